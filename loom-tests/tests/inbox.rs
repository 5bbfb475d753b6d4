//! Arrivals that find the queue owned.

use std::task::Poll;

use loom_tests::{at_rest, barging, check, fifo, poll, queued, race};

/// Guards `Combiner::recheck`, which clears RECHECK before it empties the inbox, and `Combiner::leave`, which puts the queue back
/// before it looks for RECHECK (C3, C4): a waiter that leaves makes its thread the owner.
#[test]
fn arrival_against_an_owner_that_leaves() {
    for bucket in [fifo, barging] {
        check(Some(3), move || {
            let bucket = bucket(2, 2);
            let one = bucket.try_take_owned().unwrap();
            let first = queued(bucket.take_many_owned(2));
            // A token is available, so the arrival is to be served when the first has left.
            race(&bucket, |_| drop(first), |bucket| drop(bucket.take().wait().unwrap()));
            drop(one);
            at_rest(&bucket, 0, 0);
        });
    }
}

/// Guards `Combiner::enqueue`, which moves the inbox into the queue before it adds the waiter itself: arrivals of one thread stay
/// in order.
#[test]
fn arrivals_stay_in_order() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let ((), (mut first, mut second)) = race(
            &bucket,
            |bucket| drop(queued(bucket.take())),
            |bucket| (queued(bucket.take_owned()), queued(bucket.take_owned())),
        );
        drop(one);
        assert!(poll(&mut second).is_pending());
        let Poll::Ready(token) = poll(&mut first) else { panic!("the first is not served") };
        drop((two, token));
        assert!(poll(&mut second).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::allows_hand_off`, which refuses while RECHECK is set: a deferred request may have become satisfiable, and comes
/// before the head.
#[test]
fn hand_off_leaves_the_order() {
    check(Some(3), || {
        let bucket = fifo(3, 2);
        let one = bucket.try_take_owned().unwrap();
        // Deferred, as one token is available.
        let mut first = queued(bucket.take_many_owned(3));
        let two = bucket.try_take_owned().unwrap();
        let mut second = queued(bucket.take_owned());
        let ((), other) = race(
            &bucket,
            |bucket| drop(queued(bucket.take())),
            |bucket| {
                let other = bucket.grow_and_take_owned(1).unwrap();
                drop(one);
                other
            },
        );
        assert!(poll(&mut second).is_pending(), "it has overtaken the first");
        drop((two, other));
        assert!(poll(&mut first).is_ready());
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::request_recheck_of`, which shuts newcomers out in the step that tells of the arrival.
#[test]
fn newcomer_does_not_overtake_an_arrival() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let mut leaves = Some(queued(bucket.take_owned()));
        let ((), mut first) = race(
            &bucket,
            move |_| {
                drop(leaves.take());
                drop(token);
            },
            |bucket| {
                let mut first = bucket.take_owned();
                match poll(&mut first) {
                    Poll::Pending => {
                        assert!(bucket.try_take().is_err(), "it has overtaken a waiter");
                        Some(first)
                    }
                    Poll::Ready(_) => None,
                }
            },
        );
        if let Some(first) = &mut first {
            assert!(poll(first).is_ready());
        }
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::cancel`, which does not count a waiter that never left the inbox, and counts one that did.
#[test]
fn cancel_in_the_inbox() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        // A waiter that comes owns the queue for a moment.
        race(&bucket, |bucket| drop(queued(bucket.take())), |bucket| drop(queued(bucket.take())));
        assert_eq!(bucket.waiting(), 0);
        let second = queued(bucket.take_owned());
        assert_eq!(bucket.waiting(), 1);
        drop(token);
        drop(second.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}
