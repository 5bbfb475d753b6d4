//! What is seen by whom. The numbers that are read here have no ordering of their own.

use std::task::Poll;

use loom_tests::atomic::{AtomicUsize, Ordering::Relaxed};
use loom_tests::{Arc, at_rest, barging, check, fifo, poll, queued, race, race3};

/// A number to be written before a token comes back, and to be read by the thread that gets it.
fn number() -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let number = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&number), number)
}

/// Guards `AtomicState::update`: a return releases, a take acquires.
#[test]
fn take_sees_what_was_before_the_drop() {
    check(None, || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(token);
            },
            move |bucket| {
                if bucket.try_take().is_ok() {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `take_sees_what_was_before_the_drop`, through a thread that took and gave back in between.
#[test]
fn take_sees_what_was_before_two_drops() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        race3(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(token);
            },
            |bucket| drop(bucket.try_take()),
            move |bucket| {
                if bucket.try_take().is_ok() {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `AtomicState::update`, which acquires in the step itself: the word may be the one that was loaded, though a token was
/// taken and came back since.
#[test]
fn take_sees_what_was_before_an_equal_word() {
    check(None, || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let (has_written, seen) = race(
            &bucket,
            move |bucket| bucket.try_take().map(|_token| written.store(1, Relaxed)).is_ok(),
            move |bucket| {
                bucket.try_take_owned().ok().map(|token| {
                    token.forget();
                    read.load(Relaxed) == 1
                })
            },
        );
        // The token does not come back a second time.
        if let Some(seen) = seen {
            assert_eq!(seen, has_written);
        }
    });
}

/// Guards `AtomicState::update`: a resize releases.
#[test]
fn take_sees_what_was_before_the_growth() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        let (written, read) = number();
        race(
            &bucket,
            move |bucket| {
                written.store(1, Relaxed);
                bucket.set_capacity(1).unwrap();
            },
            move |bucket| {
                drop(bucket.take().wait().unwrap());
                assert_eq!(read.load(Relaxed), 1);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `AtomicState::load`: a getter that shows that a token is back acquires.
#[test]
fn getter_sees_what_was_before_the_drop() {
    check(None, || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(token);
            },
            move |bucket| {
                if bucket.available() == 1 {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `AtomicState::update`: an attempt that is refused on a word that has just changed acquires as well.
#[test]
fn refusal_sees_what_was_before_the_close() {
    check(None, || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        race(
            &bucket,
            move |bucket| {
                written.store(1, Relaxed);
                bucket.close();
            },
            move |bucket| {
                // The only one that is refused by the first load of its change.
                if bucket.set_capacity(1).is_err() {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `AtomicPhase`: a grant releases what the owner saw, and the poll acquires it. The waiter is in the queue already, so its
/// thread and the owner share no lock.
#[test]
fn grant_carries_on_what_was_before_the_drop() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let (written, read) = number();
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_many_owned(2));
        drop(one);
        race(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(two);
            },
            move |_| {
                // Kept until then, for the drop of a token acquires as well.
                let token = poll(&mut first);
                if token.is_ready() {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `grant_carries_on_what_was_before_the_drop`: what one thread did before it gave back, another one hands on to a third.
#[test]
fn grant_carries_on_what_others_did() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let (written, read) = number();
        let (also_written, also_read) = number();
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        race3(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(one);
            },
            move |_| {
                also_written.store(1, Relaxed);
                drop(two);
            },
            move |_| {
                drop(first.wait().unwrap());
                assert_eq!((read.load(Relaxed), also_read.load(Relaxed)), (1, 1));
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::cancel`, which gives back a token that was handed past the word to a waiter that leaves: the next taker sees
/// what was done before it came back.
#[test]
fn hand_off_to_a_waiter_that_leaves_carries_on() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(token);
            },
            move |bucket| {
                drop(first);
                if bucket.try_take().is_ok() {
                    assert_eq!(read.load(Relaxed), 1);
                }
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `hand_off_to_a_waiter_that_leaves_carries_on`, to the waiter behind it.
#[test]
fn hand_off_carries_on_to_the_next_waiter() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let second = queued(bucket.take_owned());
        race3(
            &bucket,
            move |_| {
                written.store(1, Relaxed);
                drop(token);
            },
            |_| drop(first),
            move |_| {
                let _token = second.wait().unwrap();
                assert_eq!(read.load(Relaxed), 1);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// As `grant_carries_on_what_others_did`, where the word is the same as before: the grant starts from the word that the newcomer
/// has left.
#[test]
fn grant_carries_on_what_came_back_meanwhile() {
    check(Some(3), || {
        let bucket = barging(4, 3);
        let (written, read) = number();
        let token = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_many_owned(3));
        // Passed over until it is to be served first; then it wants more than there can be.
        while let Ok(token) = bucket.try_take() {
            drop(token);
        }
        bucket.set_capacity(2).unwrap();
        let (granted, has_written) = race(
            &bucket,
            move |bucket| {
                bucket.set_capacity(4).unwrap();
                match poll(&mut first) {
                    Poll::Ready(token) => Some((token.unwrap(), read.load(Relaxed))),
                    Poll::Pending => None,
                }
            },
            move |bucket| {
                // There is none after the grant.
                bucket.try_take().map(|_token| written.store(1, Relaxed)).is_ok()
            },
        );
        if let Some((_, seen)) = &granted {
            assert_eq!(*seen == 1, has_written);
        }
        drop((token, granted));
        at_rest(&bucket, 0, 0);
    });
}
