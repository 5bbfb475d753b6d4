//! Takers, and tokens that come back.

use std::task::Poll;

use loom_tests::atomic::{AtomicUsize, Ordering};
use loom_tests::{Arc, at_rest, barging, block_on, check, fifo, poll, queued, race, race3};
use token_bucket::{Fairness, Token, TokenBucket};

type Wait = fn(&TokenBucket) -> Token<'_>;

fn blocking(bucket: &TokenBucket) -> Token<'_> {
    bucket.take().wait().unwrap()
}

fn task(bucket: &TokenBucket) -> Token<'_> {
    block_on(bucket.take()).unwrap()
}

/// Two threads count under the only token, as if it were a lock: an addition is lost if both hold it, or if one does not see
/// what the other did.
fn two_takers(wait: Wait) {
    let bucket = fifo(1, 1);
    let counter = Arc::new(AtomicUsize::new(0));
    let count = {
        let counter = Arc::clone(&counter);
        move |bucket: &Arc<TokenBucket>| {
            let token = wait(bucket);
            let before = counter.load(Ordering::Relaxed);
            counter.store(before + 1, Ordering::Relaxed);
            drop(token);
        }
    };
    race(&bucket, count.clone(), count);
    assert_eq!(counter.load(Ordering::Relaxed), 2);
    at_rest(&bucket, 0, 0);
}

/// Guards `Combiner::enqueue`, whose waiter is in the queue, or the inbox, before the flags tell of it (C4), and
/// `AtomicState::update`, by which a take sees what was done before the token came back.
#[test]
fn two_takers_one_token() {
    check(Some(3), || two_takers(blocking));
}

/// As `two_takers_one_token`, for tasks.
#[test]
fn two_tasks_one_token() {
    check(Some(3), || two_takers(task));
}

/// Guards `State::settle`, which refuses if a token has come since the owner looked (C2).
#[test]
fn return_against_take() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |bucket| drop(bucket.take().wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::request_recheck_of`, which sets RECHECK: a waiter that left has kept `HAS_WAITERS` set, so nothing else tells the
/// owner, which is about to clear it, of the arrival. And `Registration::listen`, which listens again if it was notified before it
/// could be known.
#[test]
fn arrival_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        drop(queued(bucket.take()));
        race(&bucket, |_| drop(token), |bucket| drop(bucket.take().wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::poll`, which looks at the phase again after it has put the new waker: the grant may have come in between,
/// and have woken the old one.
#[test]
fn polled_again_while_granted() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let take = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(take.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::update_and_recheck` (C3): the thread that finds the queue owned leaves its token to the owner.
#[test]
fn two_returns_meet() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_owned());
        let mut second = queued(bucket.take_owned());
        race(&bucket, |_| drop(one), |_| drop(two));
        // Both before anyone is polled.
        assert_eq!((bucket.available(), bucket.waiting()), (0, 0));
        assert!(poll(&mut first).is_ready());
        assert!(poll(&mut second).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::next`, which looks at the head alone: it is not overtaken while it waits for more.
#[test]
fn head_keeps_its_place() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_many_owned(2).unwrap();
        let mut first = queued(bucket.take_many_owned(2));
        let mut second = queued(bucket.take_many_owned(2));
        race(&bucket, |_| drop(one), |_| drop(two));
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut first).is_ready());
        assert!(poll(&mut second).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::grant`, which starts from the word as it is: a shrink between two grants leaves nothing for the second.
#[test]
fn two_grants_against_shrink() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let mut first = queued(bucket.take_owned());
        let mut second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |bucket| bucket.set_capacity(1).unwrap());
        // Both, if they came before the shrink.
        let two = poll(&mut second);
        let one = poll(&mut first);
        assert!(one.is_ready(), "the second came first");
        drop((one, two));
        assert_eq!(bucket.waiting(), 0);
        drop(second);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve_takers`, which serves as many as there are tokens for, also those from the inbox.
#[test]
fn three_grants_of_one_return() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let tokens = bucket.try_take_many_owned(3).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |bucket| bucket.take().wait().unwrap().forget());
        first.wait().unwrap().forget();
        second.wait().unwrap().forget();
        at_rest(&bucket, 3, 0);
    });
}

/// Guards `HAS_WAITERS`, which stays for a waiter that is left when others have been served (C2).
#[test]
fn two_grants_of_one_return() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race(
            &bucket,
            |_| {
                drop(tokens);
                drop(first.wait().unwrap());
            },
            |bucket| drop(bucket.take().wait().unwrap()),
        );
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::grant` against tokens that come at the same time.
#[test]
fn grant_against_refill() {
    check(Some(2), || {
        let bucket = fifo(3, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let (fitted, ()) = race(
            &bucket,
            |bucket| bucket.refill(2),
            |_| {
                drop(token);
                drop(first.wait().unwrap());
            },
        );
        at_rest(&bucket, 0, fitted);
    });
}

/// As `two_takers_one_token`, with both ways to wait in one queue, and two tokens that come back at once.
#[test]
fn tasks_and_threads_in_one_queue() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        race3(&bucket, |_| drop(tokens), |_| first.wait().unwrap().forget(), |bucket| block_on(bucket.take()).unwrap().forget());
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `State::take` and `State::grant`: a request for up to so many tokens takes those that are there when it is served.
#[test]
fn take_up_to_against_two_returns() {
    for bucket in [fifo, barging] {
        check(Some(3), move || {
            let bucket = bucket(2, 2);
            let one = bucket.try_take_owned().unwrap();
            let two = bucket.try_take_owned().unwrap();
            let mut first = queued(bucket.take_up_to_owned(3));
            race(&bucket, |_| drop(one), |_| drop(two));
            let Poll::Ready(tokens) = poll(&mut first) else { panic!("it is not served") };
            let count = tokens.as_ref().unwrap().count();
            // In a Barging bucket it takes for itself when both are back.
            assert!(bucket.fairness() == Fairness::Fifo || count == 2);
            assert!((1..=2).contains(&count) && bucket.available() == 2 - count, "{count} of {bucket:?}");
            drop(tokens);
            at_rest(&bucket, 0, 0);
        });
    }
}

/// As `take_up_to_against_two_returns`, for a waiter that comes meanwhile.
#[test]
fn take_up_to_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        race(&bucket, |_| drop(tokens), |bucket| assert_eq!(bucket.take_up_to(3).wait().unwrap().count(), 2));
        at_rest(&bucket, 0, 0);
    });
}
