//! Takers that leave.

use loom_tests::{at_rest, barging, check, fifo, queued, race, race3};

/// Guards `Combiner::hand_off`, which passes over a waiter that has left, `Combiner::cancel`, which gives back what the waiter was
/// granted, and `HAS_WAITERS`, which stays for the next one (C2, C5).
#[test]
fn cancel_against_grant() {
    check(Some(4), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// As `cancel_against_grant`, with a waiter that comes meanwhile.
#[test]
fn cancel_grant_and_take() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race3(&bucket, |_| drop(token), |_| drop(first), |bucket| bucket.take().wait().unwrap().forget());
        at_rest(&bucket, 1, 0);
    });
}

/// Guards `NO_BARGING`: a waiter is queued all along, so a newcomer gets nothing.
#[test]
fn cancel_grant_and_newcomer() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        let ((), (), barged) = race3(&bucket, |_| drop(token), |_| drop(first), |bucket| bucket.try_take().is_ok());
        assert!(!barged, "somebody waits");
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::grant_to`: no tokens are taken for a waiter that left long ago, not even for a moment. Guards
/// `Combiner::serve_takers`, which goes on after a grant that leaves tokens.
#[test]
fn grant_passes_over_the_dead() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let tokens = bucket.try_take_many_owned(3).unwrap();
        let first = queued(bucket.take_owned());
        drop(queued(bucket.take_owned()));
        let third = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(tokens),
            |bucket| {
                let (before, after) = (bucket.available(), bucket.available());
                assert!(before == 0 || after > 0, "one of three tokens is for no waiter");
            },
        );
        drop((first.wait().unwrap(), third.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::grant_to_heads`, which gives the tokens back if the waiter has left (C5), where two are served.
#[test]
fn cancel_against_two_grants() {
    check(Some(3), || {
        // There is room for more tokens than there should be.
        let bucket = fifo(4, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// As `cancel_against_two_grants`: both leave.
#[test]
fn cancel_two_against_two_grants() {
    check(Some(2), || {
        let bucket = fifo(3, 3);
        let tokens = bucket.try_take_many_owned(3).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_many_owned(2));
        race(&bucket, |_| drop(tokens), |_| drop((first, second)));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::request_service`: the owner may be about to leave, as the head wants more than there is, so a waiter
/// that leaves sets RECHECK (C3).
#[test]
fn cancel_the_head_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(one), |_| drop(first));
        drop(second.wait().unwrap());
        drop(two);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::needs_service`: the waiters behind a head that leaves may proceed with the tokens that are there.
#[test]
fn cancel_the_head_against_take() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        race(&bucket, |_| drop(first), |bucket| drop(bucket.take().wait().unwrap()));
        drop(token);
        at_rest(&bucket, 0, 0);
    });
}

/// As `cancel_the_head_against_a_return`, where the head has just got its place back.
#[test]
fn cancel_a_deferred_request_against_growth() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let first = queued(bucket.take_many_owned(2));
        let token = bucket.try_take_owned().unwrap();
        let second = queued(bucket.take_owned());
        race(&bucket, |bucket| bucket.set_capacity(2).unwrap(), |_| drop(first));
        drop(second.wait().unwrap());
        drop(token);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::cancel` where the waiter has been woken: it claims its token no more, and the next one is woken.
#[test]
fn cancel_against_a_wake() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// As `cancel_against_a_wake`, where a newcomer has taken the token meanwhile.
#[test]
fn cancel_a_woken_waiter_against_a_return() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        drop(token);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::next`, which passes over a waiter that has left in the middle of the queue.
#[test]
fn cancel_in_the_middle_against_two_returns() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        let third = queued(bucket.take_owned());
        race(
            &bucket,
            |_| {
                drop(one);
                drop(two);
            },
            |_| drop(second),
        );
        first.wait().unwrap().forget();
        third.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `Combiner::hand_off` and `Combiner::cancel` (C5): a token that was handed to a waiter past the word goes to the next one
/// if the waiter leaves.
#[test]
fn cancel_against_a_hand_off_and_a_take() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race3(&bucket, |_| drop(token), |_| drop(first), |bucket| drop(bucket.try_take()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::cancel`, which gives up a starving waiter that was granted tokens while it was woken.
#[test]
fn cancel_a_starving_waiter_against_a_return() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let mut token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        for _ in 0..if cfg!(loom) { 2 } else { 16 } {
            drop(token);
            token = bucket.try_take_owned().unwrap();
        }
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}
