//! Releasers that wait for room.

use loom_tests::{at_rest, check, fifo, poll, queued, race, race3};

/// Guards `State::take`, which has a releaser called if ROOM is set, and `Line::enqueue_release`, which listens first and
/// changes the word then.
#[test]
fn release_against_take() {
    check(None, || {
        let bucket = fifo(1, 1);
        race(&bucket, |bucket| bucket.try_take().unwrap().forget(), |bucket| bucket.release().wait().unwrap());
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `State::pass_room`: there is room for two, and the one that was called calls the other.
#[test]
fn two_releasers_and_room_for_both() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        race3(
            &bucket,
            |bucket| bucket.release().wait().unwrap(),
            |bucket| bucket.release().wait().unwrap(),
            |bucket| bucket.try_take_many(2).unwrap().forget(),
        );
        at_rest(&bucket, 2, 2);
    });
}

/// Guards `Line::leave_room`, which calls the next one if one that had been called leaves.
#[test]
fn cancel_a_called_releaser() {
    check(Some(2), || {
        let bucket = fifo(2, 2);
        let (cancelled, (), ()) = race3(
            &bucket,
            |bucket| poll(&mut bucket.release()).is_pending(),
            |bucket| bucket.release().wait().unwrap(),
            |bucket| bucket.try_take_many(2).unwrap().forget(),
        );
        at_rest(&bucket, 2, if cancelled { 1 } else { 2 });
    });
}

/// Guards `Place::waits`, which looks at the phase after it has put the new waker.
#[test]
fn release_polled_again_while_called() {
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

/// Guards `State::set_capacity`, which has a releaser called if a shrink has made room.
#[test]
fn release_against_shrink() {
    check(None, || {
        let bucket = fifo(2, 2);
        race(&bucket, |bucket| bucket.set_capacity(1).unwrap(), |bucket| bucket.release().wait().unwrap());
        at_rest(&bucket, 0, 1);
    });
}

/// Guards `State::release`, which shows its token to the line.
#[test]
fn release_for_a_taker() {
    check(None, || {
        let bucket = fifo(1, 0);
        race(&bucket, |bucket| bucket.release().wait().unwrap(), |bucket| bucket.take().wait().unwrap().forget());
        at_rest(&bucket, 1, 1);
    });
}

/// Guards `Line::plan`, by which the server stays after a grant that has made room for a releaser.
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

/// Guards `Line::plan`, which keeps ROOM while the bucket is full, and `Release`, which lines up again if it was called and
/// comes too late.
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
                    bucket.try_take().unwrap().forget();
                }
                refilled
            },
            |bucket| bucket.try_take().unwrap().forget(),
            |bucket| bucket.release().wait().unwrap(),
        );
        at_rest(&bucket, 1 + refilled, 1 + refilled);
    });
}
