//! Growth and shrinking.

use std::task::Poll;

use loom_tests::{at_rest, check, fifo, poll, queued, race, race3};

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
                // What was owed has been made up before this token was had.
                assert!(!has_shrunk || (now.deficit, now.outstanding) == (0, 1), "{now:?}");
                drop(token);
            },
        );
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::set_capacity`, which has the line served if it has QUEUED and a growth brought tokens.
#[test]
fn shrink_to_nothing_and_grow() {
    check(None, || {
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

/// Guards `Line::plan`, which puts aside a head that wants more than the capacity, so that the next one can be served.
#[test]
fn shrink_below_the_head() {
    check(None, || {
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

/// Guards `State::set_capacity`, which has the line served after a shrink if it has QUEUED and there are tokens: the head
/// has to step aside.
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

/// Guards `Desk::bring_back`, which puts those aside back to the front when the capacity has grown, and ASIDE, by which
/// `State::set_capacity` knows that there are any.
#[test]
fn more_than_the_capacity_against_growth() {
    check(None, || {
        let bucket = fifo(2, 1);
        race(&bucket, |bucket| bucket.set_capacity(2).unwrap(), |bucket| drop(bucket.take_many(2).wait().unwrap()));
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `Desk::bring_back`, which keeps the order, and `State::show`, which has the line served if there are more tokens
/// than the capacity.
#[test]
fn release_reaches_those_aside() {
    check(None, || {
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

/// Guards `Line::plan`, which goes on after a grant that leaves tokens.
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

/// Guards `AtomicState::replace` against resizes under a grant: the last one holds, and what is granted fits.
#[test]
fn growth_against_shrink() {
    check(None, || {
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

/// Guards `Line::plan`, by which nobody steps aside behind those who have not got their tokens yet: they may come back
/// to the front, and who is aside comes before all there.
#[test]
fn release_beyond_the_capacity_against_a_newcomer() {
    check(Some(3), || {
        let bucket = fifo(4, 0);
        let mut first = queued(bucket.take_many_owned(2));
        let mut second = queued(bucket.take_owned());
        let ((), third) = race(&bucket, |bucket| bucket.try_release_many(2).unwrap(), |bucket| queued(bucket.take_owned()));
        assert!(poll(&mut second).is_pending());
        let Poll::Ready(tokens) = poll(&mut first) else { panic!("the first is not served") };
        tokens.unwrap().forget();
        bucket.try_release_many(2).unwrap();
        second.wait().unwrap().forget();
        third.wait().unwrap().forget();
        at_rest(&bucket, 4, 4);
    });
}

/// Guards `Line::serve`, which steps back if others change the word too often, and serves again if nobody else does.
#[test]
fn resizes_under_a_server() {
    check(None, || {
        let bucket = fifo(2, 1);
        let token = bucket.try_take_owned().unwrap();
        let first = queued(bucket.take_owned());
        race(
            &bucket,
            |_| drop(token),
            |bucket| {
                for capacity in [2, 1, 2] {
                    bucket.set_capacity(capacity).unwrap();
                }
            },
        );
        drop(first.wait().unwrap());
        at_rest(&bucket, 0, 0);
    });
}

/// Guards `State::resume`, by which a server that has stepped back serves on if the bucket was closed.
#[test]
fn shrink_and_close_under_a_server() {
    check(None, || {
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

/// Guards `State::set_capacity`, which shuts newcomers out until those aside have been looked at.
#[test]
fn growth_for_one_aside_against_a_newcomer() {
    check(None, || {
        let bucket = fifo(2, 1);
        let mut first = queued(bucket.take_many_owned(2));
        let (_, newcomer) = race(
            &bucket,
            |bucket| bucket.set_capacity(2).unwrap(),
            |bucket| if bucket.capacity() == 2 { bucket.try_take_owned().ok() } else { None },
        );
        assert!(newcomer.is_none(), "it has passed one who could use the token");
        assert!(poll(&mut first).is_ready());
        at_rest(&bucket, 0, 0);
    });
}

/// As `growth_for_one_aside_against_a_newcomer`, for `State::show`.
#[test]
fn release_for_one_aside_against_a_newcomer() {
    check(None, || {
        let bucket = fifo(3, 1);
        let mut first = queued(bucket.take_many_owned(2));
        let ((), newcomer) = race(
            &bucket,
            |bucket| bucket.try_release().unwrap(),
            |bucket| if bucket.available() == 2 { bucket.try_take_owned().ok() } else { None },
        );
        assert!(newcomer.is_none(), "it has passed one who could use the token");
        assert!(poll(&mut first).is_ready());
        at_rest(&bucket, 0, 1);
    });
}
