//! Growth and shrinking.

use std::task::Poll;

use loom_tests::{Arc, TokenBucket, at_rest, check, fifo, poll, queued, race, race3};

/// Guards `State::set_capacity` and `State::give`: a shrink and a return are steps on one word, in any order.
#[test]
fn shrink_release_and_take() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let mut tokens = bucket.try_take_many_owned(2).unwrap();
        race3(
            &bucket,
            |bucket| assert_eq!(bucket.set_capacity(1).unwrap().capacity, 1),
            |_| {
                drop(tokens.split(1));
                drop(tokens);
            },
            |bucket| {
                let has_shrunk = bucket.capacity() == 1;
                let token = bucket.take().wait().unwrap();
                let now = bucket.snapshot();
                // The deficit was paid off before this token was taken.
                assert!(!has_shrunk || (now.deficit, now.outstanding) == (0, 1), "{now:?}");
                drop(token);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::concerns_waiters`, by which the queue is served if a growth brings tokens.
#[test]
fn shrink_to_nothing_and_grow() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        race(
            &bucket,
            |bucket| {
                bucket.set_capacity(0).unwrap();
                bucket.set_capacity(1).unwrap();
            },
            |bucket| drop(bucket.take().wait().unwrap()),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::next`, which defers a head that wants more than the capacity, so that the next one can be served.
#[test]
fn shrink_below_the_head() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let mut first = queued(bucket.take_many_owned(3));
        let second = queued(bucket.take_owned());
        race(&bucket, |_| drop(tokens), |bucket| bucket.set_capacity(2).unwrap());
        // All three may have come back before the shrink.
        let first = match poll(&mut first) {
            Poll::Pending => Some(first),
            Poll::Ready(tokens) => {
                drop(tokens.unwrap());
                None
            }
        };
        drop(second.wait().unwrap());
        bucket.set_capacity(3).unwrap();
        if let Some(first) = first {
            drop(first.wait().unwrap());
        }
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::concerns_waiters`, by which the queue is served after a shrink if there are tokens: the head has to be deferred.
#[test]
fn shrink_with_tokens_below_the_head() {
    check(Some(3), || {
        let bucket = fifo(4, 4);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(4));
        race(&bucket, |bucket| bucket.set_capacity(3).unwrap(), |bucket| drop(bucket.take().wait().unwrap()));
        drop(first);
        drop(token);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::restore_deferred`, and `HAS_DEFERRED`, by which a resize has the queue served.
#[test]
fn more_than_the_capacity_against_growth() {
    check(Some(3), || {
        let bucket = fifo(4, 2);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |bucket| bucket.set_capacity(4).unwrap(), |bucket| drop(bucket.take_many(3).wait().unwrap()));
        drop(token);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::restore_deferred`, which keeps the order, and `State::concerns_waiters`, by which the queue is served if
/// there are more tokens than the capacity.
#[test]
fn release_reaches_deferred_requests() {
    check(Some(3), || {
        let bucket = fifo(3, 1);
        let mut first = queued(bucket.take_many_owned(3));
        let mut second = queued(bucket.take_many_owned(3));
        race(&bucket, |bucket| bucket.try_release().unwrap(), |bucket| bucket.try_release().unwrap());
        assert_eq!((bucket.available(), bucket.waiting()), (0, 1));
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut first).is_ready());
        assert!(poll(&mut second).is_ready());
        at_rest(&bucket, 0, 2);
    });
}

/// Guards `Combiner::serve_takers`, which grants tokens to two in one step.
#[test]
fn growth_for_two() {
    check(Some(3), || {
        let bucket = fifo(2, 0);
        let first = queued(bucket.take_owned());
        race(&bucket, |bucket| bucket.set_capacity(2).unwrap(), |bucket| bucket.take().wait().unwrap().forget());
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 0);
    });
}

/// As `growth_for_two`, with three threads.
#[test]
fn two_takers_and_growth() {
    check(Some(2), || {
        let bucket = fifo(2, 0);
        let first = queued(bucket.take_owned());
        race3(
            &bucket,
            |bucket| bucket.set_capacity(2).unwrap(),
            |_| first.wait().unwrap().forget(),
            |bucket| bucket.take().wait().unwrap().forget(),
        );
        at_rest(&bucket, 2, 0);
    });
}

/// Guards `State::grant` against resizes at the same time: the last one holds, and what is granted fits.
#[test]
fn growth_against_shrink() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |bucket| {
                bucket.set_capacity(2).unwrap();
                bucket.set_capacity(0).unwrap();
            },
            |_| drop(token),
        );
        assert_eq!(bucket.capacity(), 0);
        bucket.set_capacity(1).unwrap();
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `WaitQueue::restore_deferred`: a deferred request comes before those that came later, also in the inbox.
#[test]
fn release_beyond_the_capacity_against_a_newcomer() {
    check(Some(3), || {
        let bucket = fifo(5, 1);
        // Deferred, as one token is available.
        let mut first = queued(bucket.take_many_owned(2));
        bucket.try_take().unwrap().forget();
        let mut second = queued(bucket.take_owned());
        let ((), third) = race(&bucket, |bucket| bucket.try_release_many(2).unwrap(), |bucket| queued(bucket.take_owned()));
        assert!(poll(&mut second).is_pending());
        let Poll::Ready(tokens) = poll(&mut first) else { panic!("the first is not served") };
        tokens.unwrap().forget();
        bucket.try_release_many(2).unwrap();
        second.wait().unwrap().forget();
        third.wait().unwrap().forget();
        at_rest(&bucket, 5, 4);
    });
}

/// Guards `Combiner::yield_ownership` (C7): an owner that is kept busy yields, and serves on if no other thread has taken over.
#[test]
fn resizes_under_an_owner() {
    check(Some(3), || {
        let bucket = fifo(4, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        let second = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(one),
            |bucket| {
                drop(two);
                bucket.set_capacity(4).unwrap();
                bucket.set_capacity(3).unwrap();
            },
        );
        first.wait().unwrap().forget();
        second.wait().unwrap().forget();
        at_rest(&bucket, 3, 0);
    });
}

/// As `resizes_under_an_owner`, where the bucket is closed in the end.
#[test]
fn shrink_and_close_under_an_owner() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(token),
            |bucket| {
                bucket.set_capacity(0).unwrap();
                bucket.close();
            },
        );
        drop(first.wait());
        assert_eq!(bucket.waiting(), 0);
    });
}

/// Guards `State::owners_change`, which shuts newcomers out in the same step until deferred requests have been looked at.
#[test]
fn growth_for_a_deferred_request_against_a_newcomer() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let mut first = queued(bucket.take_many_owned(2));
        let (_, newcomer) = race(
            &bucket,
            |bucket| bucket.set_capacity(2).unwrap(),
            |bucket| if bucket.capacity() == 2 { bucket.try_take_owned().ok() } else { None },
        );
        assert!(newcomer.is_none(), "it has overtaken a waiter that could use the token");
        assert!(poll(&mut first).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// As `growth_for_a_deferred_request_against_a_newcomer`, for a token from outside.
#[test]
fn release_for_a_deferred_request_against_a_newcomer() {
    check(Some(3), || {
        let bucket = fifo(3, 1);
        let mut first = queued(bucket.take_many_owned(2));
        let ((), newcomer) = race(
            &bucket,
            |bucket| bucket.try_release().unwrap(),
            |bucket| if bucket.available() == 2 { bucket.try_take_owned().ok() } else { None },
        );
        assert!(newcomer.is_none(), "it has overtaken a waiter that could use the token");
        assert!(poll(&mut first).is_ready());
        at_rest(&bucket, 0, 1);
    });
}

/// Guards `TokenBucket::update_capacity`, which starts anew if the capacity has changed: two changes add up.
#[test]
fn relative_changes_add_up() {
    check(None, || {
        let bucket = fifo(4, 1);
        let add = |n: usize| {
            move |bucket: &Arc<TokenBucket>| {
                bucket.update_capacity(|capacity| capacity + n).unwrap();
            }
        };
        race(&bucket, add(1), add(2));
        assert_eq!(bucket.capacity(), 4);
        at_rest(&bucket, 0, 0);
    });
}

/// As `relative_changes_add_up`, where a waiter needs both.
#[test]
fn relative_changes_for_a_waiter() {
    check(Some(3), || {
        let bucket = fifo(4, 1);
        let first = queued(bucket.take_many_owned(3));
        let add = |bucket: &Arc<TokenBucket>| {
            bucket.update_capacity(|capacity| capacity + 1).unwrap();
        };
        race(&bucket, add, add);
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::grow_and_take`, which leaves the available tokens as they are, and `State::concerns_waiters`, which takes a
/// growth for one that may make a deferred request satisfiable.
#[test]
fn grow_and_take_against_a_return() {
    check(Some(3), || {
        let bucket = fifo(3, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(2));
        race(&bucket, |_| drop(token), |bucket| drop(bucket.grow_and_take(1).unwrap()));
        drop(first.wait().unwrap());
        assert_eq!(bucket.capacity(), 2);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::retire`, which pays the deficit of a shrink first, and then reduces the capacity.
#[test]
fn retire_against_shrink() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let token = bucket.try_take_many_owned(3).unwrap();
        race(
            &bucket,
            |_| token.retire(),
            |bucket| {
                bucket.set_capacity(1).unwrap();
            },
        );
        let now = bucket.snapshot();
        // If the shrink was last, it set the capacity; else two of the three tokens paid the deficit.
        assert!((now.capacity, now.available) == (1, 1) || (now.capacity, now.available) == (0, 0), "{now:?}");
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::concerns_waiters`: if tokens are retired, a request may become unsatisfiable, and the next one is to be served.
#[test]
fn retire_below_the_head() {
    check(Some(3), || {
        let bucket = fifo(3, 3);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_many_owned(3));
        race(&bucket, |_| token.retire(), |bucket| drop(bucket.take().wait().unwrap()));
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::hand_off` against a shrink: it is as if the token had been granted before it.
#[test]
fn shrink_against_a_hand_off() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let mut first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(one),
            |bucket| {
                bucket.set_capacity(1).unwrap();
            },
        );
        let now = bucket.snapshot();
        let token = match poll(&mut first) {
            Poll::Ready(token) => Some(token.unwrap()),
            Poll::Pending => None,
        };
        assert_eq!((now.outstanding, now.deficit), if token.is_some() { (2, 1) } else { (1, 0) });
        drop(two);
        assert!(token.is_some() || poll(&mut first).is_ready());
        drop((first, token));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::serve_takers`, which looks at the deferred requests in the step that grants: if they fit by then, they are
/// older.
#[test]
fn growth_against_a_grant_to_a_younger_request() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let token = bucket.try_take_owned().unwrap();
        let mut older = queued(bucket.take_many_owned(2));
        let younger = queued(bucket.take_owned());
        let ((), now) = race(&bucket, |_| drop(token), |bucket| bucket.set_capacity(2).unwrap());
        if now.available == 2 {
            assert!(poll(&mut older).is_ready(), "there were two tokens, and it is the first one");
        }
        drop((older, younger));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Combiner::hand_off`, which looks at the word again if the waiter has left: by then, the returned token has to pay off a
/// deficit.
#[test]
fn shrink_and_cancel_against_a_hand_off() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        let mut second = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(token),
            |bucket| {
                bucket.set_capacity(0).unwrap();
                drop(first);
            },
        );
        let now = bucket.snapshot();
        assert_eq!((now.available, now.outstanding, now.deficit), (0, 0, 0));
        assert!(poll(&mut second).is_pending());
        bucket.set_capacity(1).unwrap();
        assert!(poll(&mut second).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::recheck_exclusively`, which shuts newcomers out for deferred requests as well.
#[test]
fn growth_under_an_owner_for_a_deferred_request() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let mut first = queued(bucket.take_many_owned(2));
        race(
            &bucket,
            |bucket| drop(queued(bucket.take_many(2))),
            |bucket| {
                bucket.set_capacity(2).unwrap();
                assert!(bucket.try_take().is_err(), "it has overtaken a waiter that could use the token");
            },
        );
        assert!(poll(&mut first).is_ready());
        drop(first);
        at_rest(&bucket, 0, 0);
    });
}
