//! The end.

use loom_tests::{Arc, TokenBucket, at_rest, barging, check, fifo, queued, race, race3};

/// Guards `State::concerns_waiters`, by which a close has the queue served, and `State::settle`, which refuses once the bucket is
/// closed.
#[test]
fn close_against_take() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        race(&bucket, |bucket| assert!(bucket.close()), |bucket| bucket.take().wait().map(drop).unwrap_err());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::close_waiters` and `Combiner::hand_off`: a waiter is either notified of the close or has been granted its tokens,
/// and keeps them.
#[test]
fn close_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |bucket| assert!(bucket.close()));
        let first = first.wait();
        assert!(second.wait().is_err());
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::close_waiters` against waiters that leave.
#[test]
fn close_against_cancel() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(first), |bucket| assert!(bucket.close()));
        assert!(second.wait().is_err());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::set_capacity`, which refuses from the close on.
#[test]
fn close_against_growth() {
    check(Some(2), || {
        let bucket = fifo(1, 0);
        let (grown, taken, closed_with) = race3(
            &bucket,
            |bucket| bucket.set_capacity(1).is_ok(),
            |bucket| bucket.take().wait().is_ok(),
            |bucket| {
                bucket.close();
                bucket.capacity()
            },
        );
        assert!(grown || !taken);
        assert_eq!((bucket.capacity(), closed_with), (usize::from(grown), usize::from(grown)));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::take_all`, which includes deferred requests.
#[test]
fn close_against_a_deferred_request() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let first = queued(bucket.take_many_owned(2));
        let (grown, _) = race(&bucket, |bucket| bucket.set_capacity(2).is_ok(), |bucket| bucket.close());
        let first = first.wait();
        assert!(grown || first.is_err());
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::take_all`, which includes releasers.
#[test]
fn close_against_release() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let other = queued(bucket.release());
        race(&bucket, |bucket| bucket.close(), |bucket| bucket.release().wait().unwrap_err());
        assert!(other.wait().is_err());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Waiter::notify`: a woken waiter may go back to sleep while it is notified of the close.
#[test]
fn close_against_a_loser() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        drop(token);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |bucket| bucket.close(), |_| first.wait().map(drop).unwrap_err());
        drop(token);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve`, which tells of the close all that come too late for it.
#[test]
fn close_against_two_takers() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        race(
            &bucket,
            |bucket| bucket.take().wait().map(drop).unwrap_err(),
            |bucket| {
                let second = queued(bucket.take());
                bucket.close();
                second.wait().map(drop).unwrap_err()
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Whether this call was the first.
fn close(bucket: &Arc<TokenBucket>) -> bool {
    let is_first = bucket.close();
    assert!(bucket.is_closed());
    is_first
}

/// Guards `TokenBucket::close`: one of two has closed the bucket, and it is closed when either returns.
#[test]
fn close_against_close() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        let first = queued(bucket.take_owned());
        let (one, two) = race(&bucket, close, close);
        assert_ne!(one, two);
        assert!(first.wait().is_err());
        at_rest(&bucket, 0, 0);
    });
}
