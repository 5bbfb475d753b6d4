//! Taking tokens: refusals, waiting, blocking, and what a guard does with its tokens.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use token_bucket::{Fairness, OwnedToken, Take, TakeError, TakeOwned, Token, TokenBucket, TryTakeError, WaitError};

mod support;
use support::{MAX, both, bucket, numbers, poll_with, task, waiting};

both! {
    a_token_is_outstanding_until_its_guard_is_dropped,
    many_tokens_are_taken_all_or_none,
    up_to_takes_the_available_tokens,
    up_to_takes_no_tokens_from_a_waiter,
    owned_tokens_keep_the_bucket_alive,
    requests_above_the_maximum_are_refused_at_once,
    requests_for_zero_are_served_at_once,
    requests_for_the_maximum_wait_for_growth,
    a_take_is_ready_at_once_if_tokens_are_available,
    a_take_waits_and_is_woken_once,
    a_take_that_was_never_polled_has_no_place_and_no_tokens,
    a_take_for_many_waits_for_all_of_them,
    a_closed_bucket_gives_nothing,
    b15_a_take_that_fails_puts_nothing_back,
    a_wait_returns_when_a_token_comes_back,
    a_wait_that_times_out_gives_up_its_place,
    a_wait_takes_available_tokens_even_after_its_deadline,
    a_timeout_too_large_to_represent_is_infinite,
    a_wait_ends_when_the_bucket_is_closed,
    a_polled_future_keeps_its_place_when_it_blocks,
    a_granted_future_does_not_block,
    threads_and_tasks_wait_in_one_queue,
    a_split_moves_tokens_and_a_merge_moves_them_back,
    a_merge_across_buckets_panics_and_loses_nothing,
    a_forgotten_token_stays_outstanding_until_it_is_replaced,
    b27_a_panic_while_a_token_is_held_gives_it_back,
    a_completed_future_panics_when_polled_again,
    a_completed_future_panics_when_waited_for,
    a_future_is_terminated_once_it_is_ready,
}

/// 2³² where a `usize` can hold it: cut to 32 bits it would be 0.
const WRAPS: usize = if usize::BITS > 32 { 1 << (usize::BITS / 2) } else { usize::MAX - 1 };
const TOO_MANY: [usize; 5] = [MAX + 1, TokenBucket::MAX_CAPACITY + 1, u32::MAX as usize, WRAPS, usize::MAX];

/// Long enough for any machine; a test that passes never waits that long.
const LONG: Duration = Duration::from_secs(30);
/// Long enough for a wrong result to show.
const SHORT: Duration = Duration::from_millis(20);

#[track_caller]
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it should panic");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

/// Waits until that many waiters are queued.
fn until_waiting(bucket: &TokenBucket, waiters: usize) {
    let start = Instant::now();
    while bucket.waiting() != waiters {
        assert!(start.elapsed() < LONG, "no thread queued");
        thread::yield_now();
    }
}

// Taking without waiting.

fn a_token_is_outstanding_until_its_guard_is_dropped(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    let first = bucket.try_take().unwrap();
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    let second = bucket.try_take().unwrap();
    assert_eq!(numbers(&bucket), [0, 2, 0, 0]);
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    drop(first);
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    drop(second);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn many_tokens_are_taken_all_or_none(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let three = bucket.try_take_many(3).unwrap();
    assert_eq!(three.count(), 3);
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_take_many(3), Err(TryTakeError::Empty)));
    assert_eq!(bucket.snapshot(), before);
    let two = bucket.try_take_many(2).unwrap();
    assert_eq!(numbers(&bucket), [0, 5, 0, 0]);
    drop(three);
    assert_eq!(numbers(&bucket), [3, 2, 0, 0]);
    drop(two);
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

fn up_to_takes_the_available_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    for (wanted, taken) in [(0, 0), (1, 1), (5, 5), (6, 5), (MAX + 1, 5), (WRAPS, 5), (WRAPS + 1, 5), (usize::MAX, 5)] {
        let token = bucket.try_take_up_to(wanted).unwrap();
        assert_eq!(token.count(), taken, "of {wanted}");
        assert_eq!(numbers(&bucket), [5 - taken, taken, 0, 0]);
    }
    let four = bucket.try_take_many(4).unwrap();
    assert_eq!(bucket.try_take_up_to(3).unwrap().count(), 1);
    let last = bucket.try_take_up_to(3).unwrap();
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_take_up_to(3), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_up_to(usize::MAX), Err(TryTakeError::Empty)));
    assert_eq!(bucket.try_take_up_to(0).unwrap().count(), 0);
    assert_eq!(bucket.snapshot(), before);
    drop((four, last));
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

fn up_to_takes_no_tokens_from_a_waiter(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let mut head = waiting(bucket.take_many(2));
    drop(held.split(1));
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    let taken = bucket.try_take_up_to(2);
    assert_eq!(taken.is_ok(), fairness == Fairness::Barging);
    drop(taken);
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    drop(held);
    assert_eq!(head.done().unwrap().count(), 2);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn owned_tokens_keep_the_bucket_alive(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 3));
    let one = bucket.try_take_owned().unwrap();
    let two = bucket.try_take_many_owned(2).unwrap();
    assert_eq!((one.count(), two.count()), (1, 2));
    assert_eq!(numbers(&bucket), [0, 3, 0, 0]);
    assert!(matches!(bucket.try_take_owned(), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_many_owned(2), Err(TryTakeError::Empty)));
    let mut take = waiting(bucket.take_owned());
    assert!(Arc::ptr_eq(one.bucket(), &bucket));
    let weak = Arc::downgrade(&bucket);
    drop(bucket);
    thread::spawn(move || drop(two)).join().unwrap();
    let token = take.done().unwrap();
    assert_eq!(numbers(token.bucket()), [1, 2, 0, 0]);
    drop((one, take));
    assert_eq!(numbers(token.bucket()), [2, 1, 0, 0]);
    drop(token);
    assert!(weak.upgrade().is_none());
}

// The limits of the range.

fn requests_above_the_maximum_are_refused_at_once(fairness: Fairness) {
    fn check(result: Result<usize, TryTakeError>, n: usize) {
        let error = result.unwrap_err();
        assert!(
            matches!(error, TryTakeError::ExceedsMax { requested, max_capacity } if requested == n && max_capacity == MAX),
            "{n}: {error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(&n.to_string()) && text.contains(&MAX.to_string()), "{text}");
    }
    fn check_wait(error: WaitError<TakeError>, n: usize) {
        match error {
            WaitError::Failed(error) => check(Err(error.into()), n),
            other => panic!("{other:?}"),
        }
    }
    let bucket = Arc::new(bucket(fairness, 3));
    let token = bucket.try_take().unwrap();
    let before = bucket.snapshot();
    for n in TOO_MANY {
        check(bucket.try_take_many(n).map(|token| token.count()), n);
        check(bucket.try_take_many_owned(n).map(|token| token.count()), n);
        check(task(bucket.take_many(n)).done().map(|token| token.count()).map_err(TryTakeError::from), n);
        check(task(bucket.take_many_owned(n)).done().map(|token| token.count()).map_err(TryTakeError::from), n);
        check(bucket.take_many(n).wait().map(|token| token.count()).map_err(TryTakeError::from), n);
        check(bucket.take_many_owned(n).wait().map(|token| token.count()).map_err(TryTakeError::from), n);
        check_wait(bucket.take_many(n).wait_timeout(LONG).unwrap_err(), n);
        check_wait(bucket.take_many_owned(n).wait_deadline(Instant::now()).unwrap_err(), n);
        assert_eq!((bucket.snapshot(), bucket.waiting()), (before, 0), "{n}");
    }
    drop(token);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn requests_for_zero_are_served_at_once(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let held = bucket.try_take().unwrap();
    let mut waiter = waiting(bucket.take());
    bucket.set_capacity(0).unwrap();
    let before = bucket.snapshot();
    assert_eq!(bucket.try_take_many(0).unwrap().count(), 0);
    assert_eq!(bucket.try_take_many_owned(0).unwrap().count(), 0);
    assert_eq!(bucket.try_take_up_to(0).unwrap().count(), 0);
    assert_eq!(task(bucket.take_many(0)).done().unwrap().count(), 0);
    assert_eq!(task(bucket.take_many_owned(0)).done().unwrap().count(), 0);
    assert_eq!(bucket.take_many(0).wait().unwrap().count(), 0);
    assert_eq!(bucket.take_many(0).wait_timeout(Duration::ZERO).unwrap().count(), 0);
    assert_eq!((bucket.snapshot(), bucket.waiting(), waiter.wakes()), (before, 1, 0));
    drop(held);
    bucket.set_capacity(1).unwrap();
    assert_eq!(waiter.wakes(), 1);
    assert_eq!(waiter.done().unwrap().count(), 1);

    bucket.close();
    assert!(matches!(bucket.try_take_many(0), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_up_to(0), Err(TryTakeError::Closed(_))));
    assert!(matches!(task(bucket.take_many(0)).done(), Err(TakeError::Closed(_))));
}

fn requests_for_the_maximum_wait_for_growth(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    assert!(matches!(bucket.try_take_many(MAX), Err(TryTakeError::Empty)));
    let mut all = waiting(bucket.take_many(MAX));
    assert_eq!(numbers(&bucket), [3, 0, 0, 1]);
    bucket.set_capacity(MAX - 1).unwrap();
    assert_eq!(all.wakes(), 0);
    bucket.set_capacity(MAX).unwrap();
    assert_eq!(all.wakes(), 1);
    let token = all.done().unwrap();
    assert_eq!(token.count(), MAX);
    assert_eq!(numbers(&bucket), [0, MAX, 0, 0]);
    drop(token);
    assert_eq!(bucket.try_take_many(MAX).unwrap().count(), MAX);
}

/// Nothing overflows in the largest possible bucket.
#[test]
fn the_largest_bucket_can_be_emptied_and_filled() {
    const LARGEST: usize = TokenBucket::MAX_CAPACITY;
    let bucket = TokenBucket::new(LARGEST, LARGEST).unwrap();
    let mut all = bucket.try_take_many(LARGEST).unwrap();
    assert_eq!(numbers(&bucket), [0, LARGEST, 0, 0]);
    bucket.set_capacity(0).unwrap();
    assert_eq!(numbers(&bucket), [0, LARGEST, LARGEST, 0]);
    let mut one = waiting(bucket.take());
    drop(all.split(LARGEST - 1));
    assert_eq!(numbers(&bucket), [0, 1, 1, 1]);
    bucket.set_capacity(LARGEST).unwrap();
    assert_eq!(numbers(&bucket), [LARGEST - 2, 2, 0, 0]);
    drop((one.done(), all));
    assert_eq!(numbers(&bucket), [LARGEST, 0, 0, 0]);
}

// Futures.

fn a_take_is_ready_at_once_if_tokens_are_available(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 4));
    let mut take = task(bucket.take());
    let mut owned = task(bucket.take_many_owned(3));
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
    let token = take.done().unwrap();
    assert_eq!(numbers(&bucket), [3, 1, 0, 0]);
    let three = owned.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    assert_eq!((token.count(), three.count(), take.wakes(), owned.wakes()), (1, 3, 0, 0));
    drop((take, owned));
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    drop((token, three));
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

fn a_take_waits_and_is_woken_once(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let held = bucket.try_take().unwrap();
    let mut first = waiting(bucket.take());
    let mut second = waiting(bucket.take_owned());
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    first.waits();
    assert_eq!((first.wakes(), second.wakes()), (0, 0));
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    let token = first.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    second.waits();
    drop(token);
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
    let token = second.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    drop(token);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
}

fn a_take_that_was_never_polled_has_no_place_and_no_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut early = task(bucket.take());
    let mut late = waiting(bucket.take());
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    early.waits();
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    drop(held);
    assert_eq!((early.wakes(), late.wakes()), (0, 1));
    drop(late.done().unwrap());
    assert_eq!((early.wakes(), late.wakes()), (1, 1));
    drop(early.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_take_for_many_waits_for_all_of_them(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let mut all = waiting(bucket.take_many(3));
    for free in 1..3 {
        drop(held.split(1));
        assert_eq!(numbers(&bucket), [free, 3 - free, 0, 1]);
        assert_eq!(all.wakes(), 0);
        all.waits();
    }
    drop(held);
    assert_eq!(all.wakes(), 1);
    let token = all.done().unwrap();
    assert_eq!(token.count(), 3);
    assert_eq!(numbers(&bucket), [0, 3, 0, 0]);
}

fn a_closed_bucket_gives_nothing(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    let token = bucket.try_take().unwrap();
    let mut fresh = task(bucket.take());
    bucket.close();
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_many(2), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_up_to(2), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_owned(), Err(TryTakeError::Closed(_))));
    assert!(matches!(fresh.done(), Err(TakeError::Closed(_))));
    assert!(matches!(task(bucket.take_owned()).done(), Err(TakeError::Closed(_))));
    assert!(matches!(bucket.take_many(2).wait(), Err(TakeError::Closed(_))));
    assert!(matches!(bucket.take().wait_timeout(LONG), Err(WaitError::Failed(TakeError::Closed(_)))));
    assert_eq!(bucket.snapshot(), before);
    drop(token);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// asyncband created the guard before it knew whether a permit was available; dropping that guard then created a permit.
fn b15_a_take_that_fails_puts_nothing_back(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let _held = bucket.try_take().unwrap();
    for _ in 0..3 {
        assert!(bucket.try_take().is_err());
        assert!(bucket.try_take_many(2).is_err());
        assert!(bucket.try_take_many(MAX + 1).is_err());
        assert!(bucket.try_take_up_to(2).is_err());
        assert!(bucket.try_take_owned().is_err());
        assert!(bucket.take().wait_deadline(Instant::now()).is_err());
        drop(waiting(bucket.take()));
        assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    }
}

// Blocking.

fn a_wait_returns_when_a_token_comes_back(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    // Without waiting:
    drop(bucket.take().wait().unwrap());
    drop(bucket.take().wait_timeout(Duration::ZERO).unwrap());
    for way in 0..3 {
        let held = bucket.try_take().unwrap();
        thread::scope(|scope| {
            let blocked = scope.spawn(|| match way {
                0 => bucket.take().wait().unwrap(),
                1 => bucket.take().wait_timeout(LONG).unwrap(),
                _ => bucket.take().wait_deadline(Instant::now() + LONG).unwrap(),
            });
            until_waiting(&bucket, 1);
            assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
            drop(held);
            let token = blocked.join().unwrap();
            assert_eq!(token.count(), 1);
            assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
        });
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    }
}

fn a_wait_that_times_out_gives_up_its_place(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let held = bucket.try_take().unwrap();
    assert!(matches!(bucket.take().wait_timeout(SHORT), Err(WaitError::TimedOut)));
    assert!(matches!(bucket.take().wait_timeout(Duration::ZERO), Err(WaitError::TimedOut)));
    assert!(matches!(bucket.take().wait_deadline(Instant::now() + SHORT), Err(WaitError::TimedOut)));
    assert!(matches!(bucket.take_many_owned(MAX).wait_timeout(SHORT), Err(WaitError::TimedOut)));
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    drop(held);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    assert!(bucket.try_take().is_ok());
}

fn a_wait_takes_available_tokens_even_after_its_deadline(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let past = Instant::now();
    thread::yield_now();
    drop(bucket.take().wait_deadline(past).unwrap());
    let held = bucket.try_take().unwrap();
    let mut take = bucket.take();
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    drop(held);
    drop(take.wait_deadline(past).unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_timeout_too_large_to_represent_is_infinite(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| bucket.take().wait_timeout(Duration::MAX).map(|token| token.count()));
        until_waiting(&bucket, 1);
        bucket.set_capacity(1).unwrap();
        assert_eq!(blocked.join().unwrap().unwrap(), 1);
    });
}

fn a_wait_ends_when_the_bucket_is_closed(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    thread::scope(|scope| {
        let endless = scope.spawn(|| bucket.take().wait().map(drop));
        let limited = scope.spawn(|| bucket.take().wait_timeout(LONG).map(drop));
        until_waiting(&bucket, 2);
        bucket.close();
        assert!(matches!(endless.join().unwrap(), Err(TakeError::Closed(_))));
        assert!(matches!(limited.join().unwrap(), Err(WaitError::Failed(TakeError::Closed(_)))));
    });
    assert_eq!(bucket.waiting(), 0);
}

fn a_polled_future_keeps_its_place_when_it_blocks(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut first = bucket.take();
    assert!(poll_with(&mut first, Waker::noop()).is_pending());
    let mut second = waiting(bucket.take());
    thread::scope(|scope| {
        let blocked = scope.spawn(|| first.wait().map(drop));
        drop(held);
        blocked.join().unwrap().unwrap();
    });
    // The first future kept its place and has returned its token.
    assert_eq!(second.wakes(), 1);
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_granted_future_does_not_block(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut take = bucket.take();
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    drop(held);
    drop(take.wait().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn threads_and_tasks_wait_in_one_queue(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut first = waiting(bucket.take());
    thread::scope(|scope| {
        // The first poll gives a future its place. A blocked thread that is counted as waiting may not have one yet.
        let mut second = bucket.take();
        assert!(poll_with(&mut second, Waker::noop()).is_pending());
        let second = scope.spawn(|| second.wait().unwrap());
        let mut third = waiting(bucket.take());
        assert_eq!(numbers(&bucket), [0, 1, 0, 3]);
        drop(held);
        assert_eq!((first.wakes(), third.wakes()), (1, 0));
        let token = first.done().unwrap();
        assert!(!second.is_finished());
        drop(token);
        let token = second.join().unwrap();
        assert_eq!(third.wakes(), 0);
        assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
        drop(token);
        drop(third.done().unwrap());
    });
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

// Guards.

fn a_split_moves_tokens_and_a_merge_moves_them_back(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 5));
    macro_rules! check {
        ($five:expr) => {
            let mut token = $five;
            for n in [6, WRAPS, usize::MAX] {
                assert!(token.split(n).is_none());
                assert_eq!(token.count(), 5);
            }
            let none = token.split(0).unwrap();
            assert_eq!((none.count(), token.count()), (0, 5));
            drop(none);
            let two = token.split(2).unwrap();
            assert_eq!((two.count(), token.count()), (2, 3));
            let three = token.split(3).unwrap();
            assert_eq!((three.count(), token.count()), (3, 0));
            assert!(token.split(1).is_none());
            assert_eq!(numbers(&bucket), [0, 5, 0, 0]);
            drop(three);
            assert_eq!(numbers(&bucket), [3, 2, 0, 0]);
            token.merge(two);
            assert_eq!(token.count(), 2);
            assert_eq!(numbers(&bucket), [3, 2, 0, 0]);
            drop(token);
            assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
        };
    }
    check!(bucket.try_take_many(5).unwrap());
    check!(bucket.try_take_many_owned(5).unwrap());
}

fn a_merge_across_buckets_panics_and_loses_nothing(fairness: Fairness) {
    let (one, other) = (Arc::new(bucket(fairness, 5)), Arc::new(bucket(fairness, 5)));
    let mut token = one.try_take_many(2).unwrap();
    let strange = other.try_take_many(3).unwrap();
    let panic = panic_of(|| token.merge(strange));
    assert!(panic.contains("different buckets"), "{panic}");
    assert_eq!(token.count(), 2);
    assert_eq!((numbers(&one), numbers(&other)), ([3, 2, 0, 0], [5, 0, 0, 0]));
    drop(token);

    let mut token = one.try_take_many_owned(2).unwrap();
    let strange = other.try_take_many_owned(3).unwrap();
    let panic = panic_of(|| token.merge(strange));
    assert!(panic.contains("different buckets"), "{panic}");
    assert_eq!(token.count(), 2);
    drop(token);
    assert_eq!((numbers(&one), numbers(&other)), ([5, 0, 0, 0], [5, 0, 0, 0]));
}

fn a_forgotten_token_stays_outstanding_until_it_is_replaced(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 4));
    bucket.try_take().unwrap().forget();
    mem::forget(bucket.try_take().unwrap());
    assert_eq!(numbers(&bucket), [2, 2, 0, 0]);
    bucket.try_take_many_owned(2).unwrap().forget();
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    // Forgetting an owned guard drops its reference to the bucket.
    assert_eq!(Arc::strong_count(&bucket), 1);
    let mut waiter = waiting(bucket.take());
    bucket.try_release().unwrap();
    assert_eq!(waiter.wakes(), 1);
    waiter.done().unwrap().forget();
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    assert_eq!(bucket.refill(4), 4);
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

/// async-weighted-semaphore was poisoned for good by a guard that was dropped during a panic.
fn b27_a_panic_while_a_token_is_held_gives_it_back(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    let panic = panic_of(|| {
        let _token = bucket.try_take().unwrap();
        panic!("on purpose");
    });
    assert_eq!(panic, "on purpose");
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);

    // A panic in another thread lets a waiter proceed.
    let owned = bucket.try_take_many_owned(2).unwrap();
    let mut waiter = waiting(bucket.take_many(2));
    let result = thread::spawn(move || {
        let _owned = owned;
        panic!("on purpose");
    })
    .join();
    assert!(result.is_err());
    assert_eq!(waiter.wakes(), 1);
    drop(waiter.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    assert!(bucket.set_capacity(3).is_ok() && bucket.try_take_many(3).is_ok());
}

// Completed futures.

fn a_completed_future_panics_when_polled_again(fairness: Fairness) {
    const MESSAGE: &str = "polled after it completed";
    let bucket = Arc::new(bucket(fairness, 2));
    let mut now = task(bucket.take());
    let mut owned = task(bucket.take_owned());
    let tokens = (now.done().unwrap(), owned.done().unwrap());
    let mut later = waiting(bucket.take());
    drop(tokens);
    drop(later.done().unwrap());
    let mut refused = task(bucket.take_many_owned(MAX + 1));
    refused.done().unwrap_err();
    for _ in 0..2 {
        for panic in [
            panic_of(|| drop(now.poll())),
            panic_of(|| drop(later.poll())),
            panic_of(|| drop(owned.poll())),
            panic_of(|| drop(refused.poll())),
        ] {
            assert!(panic.contains(MESSAGE), "{panic}");
        }
    }
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_completed_future_panics_when_waited_for(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let mut take = bucket.take();
    assert!(poll_with(&mut take, Waker::noop()).is_ready());
    let mut owned = bucket.take_owned();
    assert!(poll_with(&mut owned, Waker::noop()).is_ready());
    for panic in [panic_of(|| drop(take.wait())), panic_of(|| drop(owned.wait_timeout(LONG)))] {
        assert!(panic.contains("polled after it completed"), "{panic}");
    }
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_future_is_terminated_once_it_is_ready(fairness: Fairness) {
    fn check<T>(bucket: &TokenBucket, mut take: impl FusedFuture<Output = Result<T, TakeError>> + Unpin) {
        let held = bucket.try_take();
        assert!(!take.is_terminated());
        if held.is_ok() {
            assert!(poll_with(&mut take, Waker::noop()).is_pending());
            assert!(!take.is_terminated());
        }
        drop(held);
        assert!(!take.is_terminated());
        let Poll::Ready(result) = poll_with(&mut take, Waker::noop()) else { panic!("pending") };
        assert!(take.is_terminated());
        drop(result);
        assert!(take.is_terminated());
    }
    let bucket = Arc::new(bucket(fairness, 1));
    check(&bucket, bucket.take());
    check(&bucket, bucket.take_owned());
    let held = bucket.try_take().unwrap();
    check(&bucket, bucket.take_many(MAX + 1));
    check(&bucket, bucket.take_many_owned(0));
    drop(held);
    bucket.close();
    check(&bucket, bucket.take());
    check(&bucket, bucket.take_owned());
}

// Static buckets, sizes and debug output.

static FIFO: TokenBucket = TokenBucket::const_new(10, 2);
static BARGING: TokenBucket = TokenBucket::const_new(TokenBucket::MAX_CAPACITY, 1).with_fairness(Fairness::Barging);

#[test]
fn a_bucket_can_be_static() {
    assert_eq!((FIFO.max_capacity(), FIFO.capacity(), FIFO.fairness()), (10, 2, Fairness::Fifo));
    assert_eq!((BARGING.max_capacity(), BARGING.fairness()), (TokenBucket::MAX_CAPACITY, Fairness::Barging));
    let token: Token<'static> = FIFO.try_take_many(2).unwrap();
    let mut take: support::Task<Take<'static>> = waiting(FIFO.take());
    thread::spawn(move || drop(token)).join().unwrap();
    assert_eq!(take.wakes(), 1);
    drop(take.done());
    assert_eq!(numbers(&FIFO), [2, 0, 0, 0]);
}

#[test]
fn guards_and_futures_are_small() {
    let word = size_of::<usize>();
    assert!(size_of::<Token<'_>>() <= 2 * word, "{}", size_of::<Token<'_>>());
    assert!(size_of::<OwnedToken>() <= 2 * word, "{}", size_of::<OwnedToken>());
    assert!(size_of::<Take<'_>>() <= 64, "{}", size_of::<Take<'_>>());
    assert!(size_of::<TakeOwned>() <= 64, "{}", size_of::<TakeOwned>());
}

#[test]
fn debug_output_shows_the_count_and_the_stage() {
    let bucket = Arc::new(TokenBucket::new(10, 1).unwrap());
    let mut take = bucket.take_many_owned(3);
    assert!(format!("{take:?}").contains("count: 3") && format!("{take:?}").contains("new"));
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    assert!(format!("{take:?}").contains("waiting"));
    bucket.set_capacity(3).unwrap();
    let Poll::Ready(Ok(token)) = poll_with(&mut take, Waker::noop()) else { panic!("not granted") };
    assert!(format!("{take:?}").contains("done"));
    assert!(format!("{token:?}").contains("count: 3"));
}
