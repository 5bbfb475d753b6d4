//! Waiting for all tokens to be back.

use loom_tests::{check, fifo, queued, race, race3, settled};

/// Guards `State::show`, which has the line served when the last token comes back, and `Line::watch`, which listens first
/// and changes the word then.
#[test]
fn idle_against_drop() {
    check(None, || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race(&bucket, |_| drop(token), |bucket| bucket.idle().wait());
        settled(&bucket, 0, 0);
    });
}

/// Guards `State::await_all`, which sets AGAIN for a server at work. One who has gone left ASIDE behind, so nothing else tells
/// the server, who is about to clear it, of the newcomer.
#[test]
fn idle_meets_server() {
    check(Some(3), || {
        let bucket = fifo(2, 2);
        let mut tokens = bucket.try_take_many_owned(2).unwrap();
        drop(queued(bucket.idle()));
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| {
                drop(tokens.split(1));
                drop(first.wait().unwrap());
                drop(tokens);
            },
            |bucket| bucket.idle().wait(),
        );
        settled(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`, which keeps ASIDE while somebody watches, and stays after a grant that has left all there should be.
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
        settled(&bucket, 0, 0);
    });
}

/// Guards `Line::dismiss`, which keeps ASIDE while somebody watches.
#[test]
fn idle_against_close() {
    check(Some(2), || {
        let bucket = fifo(1, 1);
        let token = bucket.try_take_owned().unwrap();
        race3(&bucket, |bucket| bucket.close(), |_| drop(token), |bucket| bucket.idle().wait());
        settled(&bucket, 0, 0);
    });
}

/// Guards `Line::plan`: two who bring tokens back at once make the bucket whole together.
#[test]
fn idle_against_two_drops() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let one = bucket.try_take_owned().unwrap();
        let two = bucket.try_take_owned().unwrap();
        race3(&bucket, |_| drop(one), |_| drop(two), |bucket| bucket.idle().wait());
        settled(&bucket, 0, 0);
    });
}
