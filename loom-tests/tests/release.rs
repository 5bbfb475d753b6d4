//! Releasers that wait for room.

use loom_tests::{Arc, TokenBucket, at_rest, check, fifo, poll, queued, race, race3, thread};
use token_bucket::Token;

/// Guards `HAS_RELEASERS`, by which a take has a releaser woken, and `State::settle`, if the take has come before.
#[test]
fn release_against_take() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        race(&bucket, |bucket| bucket.try_take().unwrap().forget(), |bucket| bucket.release().wait().unwrap());
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `WaitQueue::next_releaser`: there is room for two, and both are woken.
#[test]
fn two_releasers_and_room_for_both() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let first = queued(bucket.release());
        race(&bucket, |bucket| bucket.release().wait().unwrap(), |bucket| bucket.take_many(2).wait().unwrap().forget());
        first.wait().unwrap();
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `Combiner::request_service`: if a woken releaser leaves, the next one is woken.
#[test]
fn cancel_a_woken_releaser() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        race(
            &bucket,
            |bucket| {
                let (mut first, mut second) = (bucket.release(), bucket.release());
                if poll(&mut first).is_pending() && poll(&mut second).is_pending() {
                    drop(first);
                    second.wait().unwrap();
                }
            },
            |bucket| bucket.take().wait().unwrap().forget(),
        );
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `Combiner::poll`, which looks at the phase once more after it has put the new waker.
#[test]
fn release_polled_again_while_woken() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        race(
            &bucket,
            |bucket| bucket.try_take().unwrap().forget(),
            |bucket| {
                let mut release = bucket.release();
                if poll(&mut release).is_pending() {
                    release.wait().unwrap();
                }
            },
        );
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `State::concerns_waiters`, by which a releaser is woken if a shrink has made room.
#[test]
fn release_against_shrink() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        race(&bucket, |bucket| bucket.set_capacity(1).unwrap(), |bucket| bucket.release().wait().unwrap());
        at_rest(&bucket, 0, 1);
    });
}

/// Guards `Combiner::retry`, which has takers served with the token that a releaser brings.
#[test]
fn release_for_a_taker() {
    check(Some(3), || {
        let bucket = fifo(1, 0);
        race(&bucket, |bucket| bucket.release().wait().unwrap(), |bucket| bucket.take().wait().unwrap().forget());
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `Combiner::serve_others`, which looks for room after grants.
#[test]
fn grant_makes_room() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        let first = queued(bucket.take_many_owned(2));
        race(&bucket, |bucket| bucket.release().wait().unwrap(), |bucket| bucket.release().wait().unwrap());
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `HAS_RELEASERS`, which stays while the bucket is full, and `Combiner::poll`: a releaser that was woken and comes too late
/// waits on.
#[test]
fn release_refill_and_take() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        drop(queued(bucket.release()));
        let (refilled, (), ()) = race3(
            &bucket,
            |bucket| {
                let refilled = bucket.refill(1);
                if refilled == 1 {
                    // Full again, perhaps before the releaser came.
                    bucket.take().wait().unwrap().forget();
                }
                refilled
            },
            |bucket| bucket.take().wait().unwrap().forget(),
            |bucket| bucket.release().wait().unwrap(),
        );
        at_rest(&bucket, 1 + refilled, 1 + refilled);
    });
}

/// Guards `WaitQueue::next_releaser`: one releaser is woken for one place, and the other one is when that is filled and there is
/// room again.
#[test]
fn two_releasers_and_room_for_one() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let first = queued(bucket.release());
        race(
            &bucket,
            |bucket| bucket.try_take().unwrap().forget(),
            |bucket| {
                let mut second = bucket.release();
                // It may find room before the first, which has not run.
                poll(&mut second).is_ready()
            },
        );
        // The place is the first one's, unless a caller has filled it.
        if bucket.available() == 1 {
            bucket.try_take().unwrap().forget();
        }
        first.wait().unwrap();
        assert_eq!(bucket.available(), 1);
    });
}

/// Guards `Combiner::poll`: a releaser that was woken and finds no room keeps its place.
#[test]
fn releaser_woken_without_room_keeps_its_place() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        race(
            &bucket,
            |bucket| {
                bucket.take().wait().unwrap().forget();
                if bucket.try_release().is_ok() {
                    bucket.take().wait().unwrap().forget();
                }
            },
            |bucket| {
                let (mut first, mut second) = (bucket.release(), bucket.release());
                // A caller that finds room need not queue.
                if poll(&mut first).is_pending() && poll(&mut second).is_pending() {
                    assert!(poll(&mut second).is_pending(), "there is never room for two");
                    first.wait().unwrap();
                }
            },
        );
        assert_eq!(bucket.waiting(), 0);
    });
}

/// Guards the count of answers that no owner has seen, which releases and acquires: an owner that finds an answer counted before
/// RECHECK tells of it sees that the releaser sleeps.
#[test]
fn answer_of_a_releaser_that_an_owner_finds_early_is_seen() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let first = queued(bucket.release());
        // It is woken, and its place is filled again.
        bucket.try_take().unwrap().forget();
        bucket.try_release().unwrap();
        let taker = Arc::clone(&bucket);
        let taker = thread::spawn(move || taker.take().wait().unwrap().forget());
        // If this goes through the inbox, the owner looks for answers on its account.
        let mut second = bucket.release();
        if poll(&mut second).is_pending() {
            first.wait().unwrap();
        }
        taker.join().unwrap();
        drop(second);
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `Combiner::update_as_owner`: an owner whose own change is refused serves for the changes that found the queue owned.
#[test]
fn refused_take_serves_for_another() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let release = queued(bucket.release());
        let take = |bucket: &Arc<TokenBucket>| bucket.try_take().map(Token::forget).is_ok();
        let (one, two) = race(&bucket, take, take);
        assert!(one != two, "there is one token");
        release.wait().unwrap();
        at_rest(&bucket, 1, 1);
    });
}
