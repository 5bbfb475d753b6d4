//! Waiting for all tokens to be back.

use loom_tests::atomic::{AtomicUsize, Ordering::Relaxed};
use loom_tests::{Arc, at_rest, check, fifo, poll, queued, race, race3};

/// Guards `State::show`, which has the line served when the last token comes back, and `Line::watch`, which listens first
/// and changes the word then.
#[test]
fn idle_against_drop() {
    check(None, || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |bucket| bucket.idle().wait());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::await_all`, which sets AGAIN for a server at work: here one who leaves, and is about to clear ASIDE. For the word
/// has that already, so nothing else tells of the newcomer.
///
/// And `Line::watch`, which counts before the word tells of it.
#[test]
fn idle_meets_server() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(
            &bucket,
            |bucket| {
                drop(queued(bucket.idle()));
                drop(token);
            },
            |bucket| bucket.idle().wait(),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`, which keeps ASIDE while somebody watches.
#[test]
fn idle_behind_a_taker() {
    check(Some(3), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| {
                drop(token);
                drop(first.wait().unwrap());
            },
            |bucket| bucket.idle().wait(),
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`, by which the server stays after a grant that has left all there should be.
#[test]
fn idle_behind_a_taker_and_deposits() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        bucket.try_take().unwrap().forget();
        let first = queued(bucket.take_owned());
        race(&bucket, |bucket| assert_eq!(bucket.refill(2), 2), |bucket| bucket.idle().wait());
        first.wait().unwrap().forget();
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `Line::call_watchers`, which calls nobody while a token is out: the server that looks at the first token serves nobody.
#[test]
fn idle_sees_what_was_before_the_last_drop() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let number = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&number);
        let mut tokens = bucket.try_take_many_owned(2).unwrap();
        let first = queued(bucket.take_many_owned(2));
        race(
            &bucket,
            move |_| {
                drop(tokens.split(1));
                written.store(1, Relaxed);
                drop(tokens);
                drop(first.wait().unwrap());
            },
            move |bucket| {
                bucket.idle().wait();
                assert_eq!(number.load(Relaxed), 1);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Line::dismiss`, which keeps ASIDE while somebody watches, and calls them if a token came back before it.
#[test]
fn idle_against_close() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race3(&bucket, |bucket| bucket.close(), |_| drop(token), |bucket| bucket.idle().wait());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::give_plainly`, which does not pass by those who watch: only one of two who bring tokens back knows that it
/// was the last. And `Line::call_watchers`, which calls all.
#[test]
fn idle_against_two_drops() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        let other = queued(bucket.idle());
        race3(&bucket, |_| drop(one), |_| drop(two), |bucket| bucket.idle().wait());
        other.wait();
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::stays_whole`, and `Line::plan`, which makes it so: who has taken a token, and lines up then, is not told that all
/// are back because the server has seen them.
#[test]
fn idle_of_one_who_holds_a_token() {
    check(Some(3), || {
        let bucket = fifo(2, 1);
        bucket.try_release().unwrap();
        let first = queued(bucket.release());
        race(
            &bucket,
            |bucket| bucket.try_take().unwrap().forget(),
            |bucket| {
                let token = bucket.try_take().unwrap();
                if bucket.available() == 0 {
                    let mut idle = bucket.idle();
                    assert!(poll(&mut idle).is_pending() && poll(&mut idle).is_pending());
                }
                token.forget();
            },
        );
        first.wait().unwrap();
        at_rest(&bucket, 0, 0);
    });
}
