//! Takers, and tokens that come back.

use loom_tests::atomic::{AtomicUsize, Ordering};
use loom_tests::{Arc, at_rest, block_on, check, fifo, poll, queued, race, race3};
use token_bucket::{Token, TokenBucket};

type Wait = fn(&TokenBucket) -> Token<'_>;

fn blocking(bucket: &TokenBucket) -> Token<'_> {
    bucket.take().wait().unwrap()
}

fn task(bucket: &TokenBucket) -> Token<'_> {
    block_on(bucket.take()).unwrap()
}

/// Two count under the only token, as if it were a lock: an addition is lost if both hold it, or if one does not see
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

/// Guards `Line::enqueue`, which listens first and changes the word then: the other way round, the last drop finds nobody.
/// Also `AtomicState::update`, by which a take sees what was done before the token came back.
#[test]
fn two_takers_one_token() {
    check(None, || two_takers(blocking));
}

/// As `two_takers_one_token`, for tasks.
#[test]
fn two_tasks_one_token() {
    check(None, || two_takers(task));
}

/// Guards `State::enqueue`, which has tokens served that came before QUEUED was set.
#[test]
fn drop_against_take() {
    check(None, || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |bucket| drop(bucket.take().wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::enqueue`, which sets AGAIN for a server at work. A waiter that has gone left QUEUED behind, so nothing
/// else tells the server, who is about to clear it, of the newcomer.
///
/// And `Place::new`, which lines up again when it was taken out of the queue before it could be known.
#[test]
fn newcomer_meets_server() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        drop(queued(bucket.take()));
        race(&bucket, |_| drop(token), |bucket| drop(bucket.take().wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::poll`, which looks at the phase again after it has put the new waker: the grant may have come in between,
/// and have woken the old one.
#[test]
fn polled_again_while_granted() {
    check(None, || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let take = queued(bucket.take_owned());
        race(&bucket, |_| drop(token), |_| drop(take.wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::summon`, which makes one server of two: the other one leaves it to the first.
#[test]
fn two_servers_meet() {
    check(None, || {
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

/// Guards `Line::serve`, which puts the desk back before the word says that it rests, and a waiter back to the front of
/// the desk when the word has changed under its grant.
#[test]
fn head_keeps_its_place() {
    check(None, || {
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

/// Guards `OpenDesk::push_back` and `OpenDesk::put_back`, which keep the order of those who are served together, also when
/// the word has changed under their grants.
#[test]
fn two_grants_against_shrink() {
    check(None, || {
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

/// Guards `Line::plan`, by which the server stays when it has served as many as it may by one step on the word.
#[test]
fn three_grants_of_one_drop() {
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

/// Guards `Line::others_wait`, by which QUEUED stays for one who is left when others have been served together.
#[test]
fn two_grants_of_one_drop() {
    check(Some(3), || {
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

/// Guards `AtomicState::replace`, which is exact: what the server is going to do is undone by any other change.
#[test]
fn grant_against_refill() {
    check(Some(3), || {
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

/// As `two_takers_one_token`, with both ways to wait in one line, and two tokens that come back at once.
#[test]
fn tasks_and_threads_in_one_line() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_owned());
        race3(&bucket, |_| drop(tokens), |_| first.wait().unwrap().forget(), |bucket| block_on(bucket.take()).unwrap().forget());
        at_rest(&bucket, 2, 0);
    });
}
