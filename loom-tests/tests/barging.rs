//! Buckets where newcomers may take tokens ahead of the queue.

use loom_tests::{Arc, Counted, TokenBucket, at_rest, barging, check, poll, poll_with, queued, race, race3};

/// As in queue.rs: the losses after which the head is due.
const STARVING_AFTER: usize = if cfg!(loom) { 2 } else { 16 };
/// More than a bucket allows.
const MANY: usize = STARVING_AFTER + 2;

/// Takes the token if it can, and gives it back at once; so often that succeeded.
fn bypass(bucket: &TokenBucket) -> usize {
    bucket.try_take().map_or(0, |token| {
        drop(token);
        1
    })
}

/// Guards `Combiner::poll`: a woken waiter that has lost sleeps again, and has the queue looked at.
#[test]
fn bypass_of_a_waiter() {
    check(Some(2), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |bucket| {
                drop(token);
                bypass(bucket);
            },
            |bucket| drop(bucket.take().wait().unwrap()),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `bypass_of_a_waiter`, with three threads.
#[test]
fn two_waiters_and_a_return() {
    check(Some(2), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race3(&bucket, |_| drop(token), |_| drop(first.wait().unwrap()), |_| drop(second.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::poll`, which puts the waker before the phase tells that the waiter sleeps again, and `Waiter::set_waker`.
#[test]
fn loser_against_a_return() {
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

/// Guards `Waiter::notify`: the owner grants tokens to a starving waiter that was woken, and goes back to sleep at that moment. And
/// `Combiner::leave_served`: if that waiter takes tokens for itself at that moment, those that were granted go back.
#[test]
fn starving_loser_against_a_return() {
    check(Some(2), || {
        let bucket = barging(2, 1);
        let mut token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        // The last of these is counted by the return below.
        for _ in 0..STARVING_AFTER {
            drop(token);
            token = bucket.try_take_owned().unwrap();
        }
        race(&bucket, |_| drop(token), |_| drop(first.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// As `starving_loser_against_a_return`, where there is a token for it already.
#[test]
fn starving_waiter_takes_a_token_and_is_granted_one() {
    check(Some(2), || {
        let bucket = barging(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let mut two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        for _ in 0..STARVING_AFTER {
            drop(two);
            two = bucket.try_take_owned().unwrap();
        }
        race(
            &bucket,
            |_| {
                drop(two);
                drop(one);
            },
            |_| drop(first.wait().unwrap()),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::sleep_again`: there is room for one answer, and a waiter that finds none makes the owner look itself.
#[test]
fn two_losers_against_a_return() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let mut second = queued(bucket.take_owned());
        drop(tokens);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        // Both were woken. The second one has answered that it sleeps again.
        assert!(poll(&mut second).is_pending());
        race(&bucket, |_| drop(tokens), |_| first.wait().unwrap().forget());
        second.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `WaitQueue::rescan`: a waiter that has answered claims nothing any more, so the next one is woken.
#[test]
fn waiter_that_was_served_makes_way() {
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

/// Guards `WaitQueue::next`, which wakes as many as there are tokens for.
#[test]
fn two_are_woken_by_one_return() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |_| second.wait().unwrap().forget());
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `WaitQueue::next`: a woken waiter that is not polled claims one token, and the next token wakes the next waiter.
#[test]
fn woken_waiter_that_is_not_polled() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(one), |_| drop(two));
        // It is polled before it was woken, if it was not.
        second.wait().unwrap().forget();
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// As `woken_waiter_that_is_not_polled`, against tokens that come one by one.
#[test]
fn woken_waiter_does_not_run() {
    check(Some(2), || {
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

/// Guards `State::take_may_unblock`: a request that only surplus tokens can serve holds up those behind it until a newcomer takes
/// these tokens.
#[test]
fn take_of_surplus_tokens_behind_a_woken_head() {
    check(Some(3), || {
        let bucket = barging(4, 1);
        bucket.try_take().unwrap().forget();
        (0..3).for_each(|_| bucket.try_release().unwrap());
        let tokens = bucket.try_take_many_owned(3).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_many_owned(3));
        let third = queued(bucket.take_owned());
        drop(tokens);
        let (token, ()) = race(&bucket, |bucket| bucket.try_take_owned().unwrap(), |_| third.wait().unwrap().forget());
        drop((token, second));
        first.wait().unwrap().forget();
        at_rest(&bucket, 3, 3);
    });
}

/// Guards `State::owners_change` and `State::recheck_exclusively` (C6): the head is bypassed [`STARVING_AFTER`] times at most, in
/// any schedule.
#[test]
fn bypasses_are_bounded() {
    check(Some(3), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_owned());
        let (before, after) = race(
            &bucket,
            |bucket| {
                drop(token);
                (0..STARVING_AFTER).map(|_| bypass(bucket)).sum::<usize>()
            },
            |bucket| (0..STARVING_AFTER).map(|_| bypass(bucket)).sum::<usize>(),
        );
        let last = (0..MANY).map(|_| bypass(&bucket)).sum::<usize>();
        assert!(before + after + last <= STARVING_AFTER, "bypassed {before}, {after} and {last} times");
        assert!(poll(&mut first).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// As `bypasses_are_bounded`, for a waiter that is about to join the queue through the inbox.
#[test]
fn bypasses_of_an_arrival_are_bounded() {
    check(Some(2), || {
        let bucket = barging(1, 1);
        let token = bucket.try_take_owned().unwrap();
        drop(queued(bucket.take()));
        let ((), first) = race(
            &bucket,
            |_| drop(token),
            |bucket| {
                let mut first = bucket.take_owned();
                poll(&mut first).is_pending().then_some(first)
            },
        );
        if let Some(mut first) = first {
            let bypasses = (0..MANY).map(|_| bypass(&bucket)).sum::<usize>();
            assert!(bypasses <= STARVING_AFTER, "bypassed {bypasses} times");
            assert!(poll(&mut first).is_ready());
        }
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::next`, which grants the tokens to a head that is due: two compete for them.
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
        assert!(token.is_none(), "bypassed without end");
        race(&bucket, |bucket| drop(bucket.take().wait().unwrap()), |_| drop(first.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::summary`: newcomers are shut out for a head that is due, and wants more than there is.
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
        assert!(one.is_none(), "bypassed without end");
        let ((), newcomer) = race(&bucket, |_| drop(two), |bucket| bucket.try_take_owned().ok());
        assert!(newcomer.is_none(), "the head is due");
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::poll`, which takes out the waker that it has put while the owner woke the waiter: the entry may stay, and
/// the thread that removes it must not drop a waker (C1).
#[test]
fn no_waker_stays_with_the_entry() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let mut second = queued(bucket.take_owned());
        let waker = Arc::new(Counted);
        let inner = Arc::clone(&waker);
        race(
            &bucket,
            |_| drop(tokens),
            move |_| {
                if poll_with(&mut second, &inner).is_ready() {
                    drop((second, inner));
                    return None;
                }
                Some(second)
            },
        )
        .1
        .map_or_else(|| assert_eq!(Arc::strong_count(&waker), 1, "the entry has kept the waker"), drop);
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Answer::put`, which releases, and `Answer::take`, which acquires: an owner that finds the answer before the waiter has
/// changed the word, and takes it away, sees that the waiter sleeps (C8).
#[test]
fn answer_that_an_owner_finds_early_is_seen() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let token = bucket.try_take_owned().unwrap();
        let other = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_owned());
        // It is woken, and its token vanishes.
        drop(token);
        bucket.set_capacity(1).unwrap();
        race(
            &bucket,
            |_| drop(other),
            |bucket| {
                let taken = bucket.try_take();
                let polled = poll(&mut first);
                drop(taken);
                if polled.is_pending() {
                    drop(first.wait().unwrap());
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::recheck`, which counts a loss when the waiters of the inbox are in the queue, and `State::owners_change`,
/// which lets no newcomer in before (C6).
#[test]
fn loss_of_an_arrival_is_counted() {
    check(Some(3), || {
        let bucket = barging(2, 2);
        let token = bucket.try_take_owned().unwrap();
        // For this one, the return owns the queue.
        let _idle = queued(bucket.idle());
        let ((), (first, before)) = race(
            &bucket,
            |_| drop(token),
            |bucket| {
                let mut first = bucket.take_many_owned(2);
                if poll(&mut first).is_ready() {
                    return (None, 0);
                }
                // It waits, and the second token has not come yet.
                let before = if bucket.available() > 1 { 0 } else { bypass(bucket) };
                (Some(first), before)
            },
        );
        let Some(mut first) = first.filter(|_| before > 0) else { return };
        let bypasses = (0..MANY).map(|_| bypass(&bucket)).sum::<usize>();
        assert!(before + bypasses <= STARVING_AFTER, "bypassed {before} + {bypasses} times");
        assert!(poll(&mut first).is_ready());
    });
}

/// Guards `Combiner::leave_served`: a waiter that is served and is not the head has the queue served, too.
#[test]
fn served_waiter_behind_the_head_makes_way() {
    check(Some(3), || {
        let bucket = barging(3, 3);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let last = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        let third = queued(bucket.take_owned());
        // Wakes the first two.
        drop(tokens);
        race(&bucket, |_| drop(last), |_| second.wait().unwrap().forget());
        third.wait().unwrap().forget();
        first.wait().unwrap().forget();
        at_rest(&bucket, 3, 0);
    });
}

/// Guards `Combiner::serve_takers`, which looks at the queue again if the word has changed: a request that was above the capacity
/// has to try for itself, and no flag showed it to the other thread.
#[test]
fn growth_makes_an_arrival_try_for_itself() {
    check(Some(3), || {
        let bucket = barging(4, 1);
        race(
            &bucket,
            |bucket| drop(bucket.take_many(2).wait().unwrap()),
            |bucket| {
                bucket.try_release().unwrap();
                bucket.set_capacity(2).unwrap();
            },
        );
        at_rest(&bucket, 0, 1);
    });
}
