//! Buckets where newcomers may take tokens past the line.

use loom_tests::{at_rest, barging, check, poll, queued, race, race3};

/// More than a waiter that has been called may let pass (a model has smaller limits).
const MANY: usize = if cfg!(loom) { 4 } else { 300 };

/// Guards `Line::answer`, which has the line served after a waiter has lost and is back in it.
#[test]
fn barge_past_a_waiter() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |bucket| {
                drop(token);
                drop(bucket.try_take());
            },
            |bucket| drop(bucket.take().wait().unwrap()),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `barge_past_a_waiter`, with three threads.
#[test]
fn two_waiters_and_a_drop() {
    check(Some(2), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race3(
            &bucket,
            |bucket| {
                drop(token);
                drop(bucket.try_take());
            },
            |_| drop(first.wait().unwrap()),
            |_| drop(second.wait().unwrap()),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::answer`, which ends the patience with a waiter before the word tells that it has lost, and `Line::poll`,
/// which then puts the waker anew.
#[test]
fn loser_against_drop() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        drop(token);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |_| drop(first.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`, which sets the patience before it calls: the waiter ends it.
#[test]
fn call_against_drop() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(first.wait().unwrap()));
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::answer`, by which a waiter that was served calls the next one, if there are tokens that were left to it.
#[test]
fn called_one_calls_the_next() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |_| first.wait().unwrap().forget());
        second.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `Line::plan`, which passes over a waiter that has been called for too long, and keeps its place.
#[test]
fn called_one_does_not_come() {
    check(Some(3), || {
        let bucket = barging(2 * MANY, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        drop(token);
        race(
            &bucket,
            |bucket| {
                for _ in 0..MANY {
                    bucket.try_release().unwrap();
                }
            },
            |_| second.wait().unwrap().forget(),
        );
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, MANY);
    });
}

/// Guards `Line::plan`, which grants the tokens to a waiter that has lost too often.
#[test]
fn starving_waiter_is_served() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let mut token = bucket.try_take_owned().ok();
        let mut first = queued(bucket.take_owned());
        for _ in 0..MANY {
            drop(token.take());
            token = bucket.try_take_owned().ok();
            if token.is_none() {
                break;
            }
            assert!(poll(&mut first).is_pending());
        }
        assert!(token.is_none(), "barged without end");
        race(&bucket, |bucket| drop(bucket.take().wait().unwrap()), |_| drop(first.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`, which shuts newcomers out for a waiter that was passed over too often.
#[test]
fn starving_head_is_served() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let mut one = bucket.try_take_owned().ok();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        for _ in 0..MANY {
            drop(one.take());
            one = bucket.try_take_owned().ok();
            if one.is_none() {
                break;
            }
        }
        assert!(one.is_none(), "barged without end");
        race(&bucket, |_| drop(two), |bucket| drop(bucket.try_take()));
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}
