//! Takers that leave.

use loom_tests::{at_rest, barging, check, fifo, queued, race, race3};

/// Guards `Line::hand_over`, which gives the tokens back if the waiter has left, `Line::cancel`, which gives them back if
/// it leaves with a grant, and `Line::others_wait`, by which QUEUED stays for the next one.
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

/// As `cancel_against_grant`, with one that lines up meanwhile.
#[test]
fn cancel_grant_and_take() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race3(&bucket, |_| drop(token), |_| drop(first), |bucket| drop(bucket.take().wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::leave`, which tells the line before it is counted out: one waits all along, so who comes now gets nothing.
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

/// Guards `Line::hand_over`, as `cancel_against_grant`, where two are served together.
#[test]
fn cancel_against_two_grants() {
    check(Some(4), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::hand_over`, which gives back the tokens of all who have left.
#[test]
fn cancel_two_against_two_grants() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let tokens = bucket.try_take_many_owned(3).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_many_owned(2));
        race(&bucket, |_| drop(tokens), |_| drop((first, second)));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::call`, which sets AGAIN for a server at work: it may be about to rest, as the head wants more than there is.
#[test]
fn cancel_the_head_against_drop() {
    check(None, || {
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

/// Guards `Line::leave`, which has the line served if the head leaves: those behind it can go on.
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

/// Guards `Line::leave` where the head has just been brought back.
#[test]
fn cancel_aside_against_growth() {
    check(Some(4), || {
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

/// Guards `Line::leave` where the waiter has been called: the next one is to be called for what it leaves.
#[test]
fn cancel_against_call() {
    check(None, || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::leave`, which ends the patience with a waiter that had been called, and does so before the word tells of it.
#[test]
fn cancel_called_against_drop() {
    check(None, || {
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

/// Guards `Line::plan`, which ends the patience with a waiter that has left while it was called.
#[test]
fn call_comes_too_late() {
    check(None, || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first));
        let token = bucket.try_take_owned().unwrap();
        let second = queued(bucket.take_owned());
        drop(token);
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}
