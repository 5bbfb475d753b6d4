//! The end.

use loom_tests::{at_rest, barging, check, fifo, queued, race, race3};

/// Guards `State::close`, which has everybody sent home, and `State::enqueue`, which refuses those who come too late for that.
#[test]
fn close_against_take() {
    check(None, || {
        let bucket = fifo(1, 0);
        race(&bucket, |bucket| assert!(bucket.close()), |bucket| bucket.take().wait().map(drop).unwrap_err());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::dismiss`: a waiter is either sent home or has been granted its tokens, and keeps them.
#[test]
fn close_against_drop() {
    check(None, || {
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

/// Guards `Line::dismiss` against those who leave.
#[test]
fn close_against_cancel() {
    check(Some(4), || {
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

/// Guards `Line::dismiss`, which also empties the desk.
#[test]
fn close_against_those_aside() {
    check(None, || {
        let bucket = fifo(2, 1);
        let first = queued(bucket.take_many_owned(2));
        let (grown, _) = race(&bucket, |bucket| bucket.set_capacity(2).is_ok(), |bucket| bucket.close());
        let first = first.wait();
        assert!(grown || first.is_err());
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::dismiss`, which sends home all who wait for room.
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

/// Guards `Line::answer`, which looks whether the bucket was closed while the waiter was not in the line.
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

/// Guards `State::enqueue`, which refuses in a closed bucket, also one that has been taken out before it had quite lined up.
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

/// Guards `TokenBucket::close_for`: one of two has closed it.
#[test]
fn close_against_close() {
    check(None, || {
        let bucket = fifo(1, 0);
        let first = queued(bucket.take_owned());
        let (one, two) = race(&bucket, |bucket| bucket.close(), |bucket| bucket.close());
        assert_ne!(one, two);
        assert!(first.wait().is_err());
        at_rest(&bucket, 0, 0);
    });
}
