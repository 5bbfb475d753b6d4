//! Waiting for all tokens to be back.

use loom_tests::atomic::{AtomicUsize, Ordering::Relaxed};
use loom_tests::{Arc, at_rest, barging, check, fifo, poll, queued, race, race3};

/// Guards `HAS_DEFERRED`, by which the last token that comes back has the queue served, and `State::settle`, if it has come before.
#[test]
fn idle_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |_| drop(token),
            |bucket| {
                bucket.idle().wait();
                assert_eq!(bucket.outstanding(), 0);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::request_recheck_of`, which sets RECHECK: the owner, to which a watcher that leaves has come, is about to clear
/// `HAS_DEFERRED`.
#[test]
fn idle_against_an_owner_that_leaves() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |bucket| {
                drop(queued(bucket.idle()));
                drop(token);
            },
            |bucket| bucket.idle().wait(),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::summary`: `HAS_DEFERRED` stays while a watcher is queued, and a token that goes on to a taker is not back.
#[test]
fn idle_behind_a_taker() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| {
                drop(token);
                drop(first.wait().unwrap());
            },
            |bucket| bucket.idle().wait(),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve`, which looks at watchers after grants, as these may leave all the tokens there should be.
#[test]
fn idle_behind_a_taker_and_deposits() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        bucket.try_take().unwrap().forget();
        let first = queued(bucket.take_owned());
        race(&bucket, |bucket| assert_eq!(bucket.refill(2), 2), |bucket| bucket.idle().wait());
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `WaitQueue::take_watchers`, which takes no watcher while a token is outstanding.
#[test]
fn idle_sees_what_was_before_the_last_return() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let number = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&number);
        let mut tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_many_owned(2));
        race(
            &bucket,
            move |_| {
                drop(tokens.split(1));
                written.store(1, Relaxed);
                drop(tokens);
                drop(first.wait().unwrap());
            },
            move |bucket| {
                bucket.idle().wait();
                assert_eq!(number.load(Relaxed), 1);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve`, which serves watchers in a closed bucket as well.
#[test]
fn idle_against_close() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race3(&bucket, |bucket| bucket.close(), |_| drop(token), |bucket| bucket.idle().wait());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::give_fast`, which refuses while a watcher is queued: only one of two that give back knows that it was the last.
/// And `WaitQueue::take_watchers`, which takes all.
#[test]
fn idle_against_two_returns() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let other = queued(bucket.idle());
        race3(&bucket, |_| drop(one), |_| drop(two), |bucket| bucket.idle().wait());
        other.wait();
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::recheck`, which looks at the word after it has emptied the inbox: a thread that has taken a token, and waits
/// then, is not notified of a state that had passed before.
#[test]
fn idle_of_a_thread_that_holds_a_token() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        bucket.try_release().unwrap();
        let first = queued(bucket.release());
        let ((), taken) = race(
            &bucket,
            |bucket| bucket.take().wait().unwrap().forget(),
            |bucket| {
                // Refused while the owner is about to look at what the other thread has done.
                let Ok(token) = bucket.try_take() else { return 0 };
                if bucket.available() == 0 {
                    let mut idle = bucket.idle();
                    assert!(poll(&mut idle).is_pending() && poll(&mut idle).is_pending());
                }
                token.forget();
                1
            },
        );
        first.wait().unwrap();
        at_rest(&bucket, 1 + taken, 2);
    });
}

/// Guards `Combiner::recheck`, as `idle_of_a_thread_that_holds_a_token`: here the owner clears RECHECK, and the thread takes a
/// token and waits before the inbox is emptied.
#[test]
fn idle_of_a_thread_that_has_just_taken_a_token() {
    check(Some(3), || {
        let bucket = barging(4, 2);
        bucket.try_release().unwrap();
        let first = queued(bucket.take_many_owned(4));
        race(
            &bucket,
            |bucket| {
                drop(first);
                // For the other thread, which holds three; so the bucket is not idle.
                bucket.try_release().unwrap();
            },
            |bucket| {
                let mut other = bucket.take_many(4);
                if poll(&mut other).is_ready() {
                    return;
                }
                let Ok(tokens) = bucket.try_take_many(3) else { return };
                let mut idle = bucket.idle();
                assert!(poll(&mut idle).is_pending());
                bucket.take().wait().unwrap().forget();
                assert!(poll(&mut idle).is_pending(), "it has been notified of what was before");
                drop(other);
                drop(tokens);
            },
        );
        assert_eq!(bucket.waiting(), 0);
    });
}

/// Guards `State::concerns_waiters`: a deficit that is paid off has the queue served.
#[test]
fn settled_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        bucket.set_capacity(1).unwrap();
        race(
            &bucket,
            |_| drop(one),
            |bucket| {
                bucket.settled().wait();
                assert_eq!(bucket.deficit(), 0);
            },
        );
        drop(two);
        at_rest(&bucket, 0, 0);
    });
}

/// As `settled_against_a_return`, where a growth settles the deficit, and a watcher is queued already.
#[test]
fn settled_against_a_return_and_growth() {
    check(Some(2), || {
        let bucket = fifo(3, 3);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_many_owned(2).unwrap();
        bucket.set_capacity(1).unwrap();
        let other = queued(bucket.settled());
        race3(
            &bucket,
            |_| drop(one),
            |bucket| {
                bucket.set_capacity(2).unwrap();
            },
            |bucket| bucket.settled().wait(),
        );
        other.wait();
        drop(two);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve_others`: a return that pays off the deficit also serves the watcher, and not only the taker.
#[test]
fn settled_against_a_taker() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        bucket.set_capacity(1).unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(tokens),
            |bucket| {
                bucket.settled().wait();
                assert_eq!(bucket.deficit(), 0);
            },
        );
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::concerns_waiters`: the bucket is idle if the last outstanding token is retired.
#[test]
fn idle_against_a_retirement() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| token.retire(), |bucket| bucket.idle().wait());
        at_rest(&bucket, 0, 0);
    });
}

/// As `idle_against_a_retirement`, with tokens that a growth brings, and that come back.
#[test]
fn idle_against_grow_and_take() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |bucket| {
                let other = bucket.grow_and_take(1).unwrap();
                drop(token);
                drop(other);
            },
            |bucket| bucket.idle().wait(),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::owners_change`, which lets no newcomer take tokens before an owner that changes the capacity has notified the
/// watchers.
#[test]
fn idle_against_a_retirement_and_an_arrival() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let token = bucket.try_take_owned().unwrap();
        let mut idle = queued(bucket.idle());
        let ((), (was_idle, _token)) = race(
            &bucket,
            |_| token.retire(),
            |bucket| {
                // It may go through the inbox.
                let _ = poll(&mut bucket.idle());
                let was_idle = bucket.outstanding() == 0;
                (was_idle, bucket.try_take_owned().ok())
            },
        );
        if was_idle {
            assert!(poll(&mut idle).is_ready(), "there was a moment without outstanding tokens");
        }
    });
}
