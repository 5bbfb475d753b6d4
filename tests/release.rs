//! Putting tokens into a bucket without a guard: `release`, `try_release`, `try_release_many`, `refill`.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use support::{MAX, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, ReleaseError, Token, TokenBucket, TryReleaseError, WaitError};

both! {
    a_releaser_that_is_polled_again_keeps_its_place,
    a_release_is_done_at_once_where_there_is_room,
    a_release_waits_while_the_bucket_is_full_until_a_take,
    a_release_waits_while_the_bucket_is_full_until_it_shrinks,
    a_release_that_was_not_polled_does_nothing,
    releases_without_a_take_fill_the_bucket_up_to_its_maximum,
    a_release_pays_off_a_deficit,
    a_release_lets_a_taker_proceed,
    a_release_replaces_a_forgotten_token,
    a_releaser_is_not_counted_as_a_waiter,
    two_takes_before_any_poll_let_two_releasers_proceed,
    a_take_of_many_lets_releasers_proceed_one_by_one,
    a_shrink_lets_releasers_proceed_one_by_one,
    releasers_are_woken_in_order_of_arrival,
    a_releaser_that_lost_its_room_keeps_waiting,
    a_waiting_release_that_is_dropped_deposits_nothing,
    a_woken_release_that_is_dropped_passes_its_room_on,
    a_release_dropped_in_the_middle_blocks_no_releaser,
    a_release_uses_the_last_waker_that_it_was_polled_with,
    try_release_puts_back_one,
    try_release_many_is_all_or_nothing,
    b23_a_release_beyond_the_maximum_is_refused,
    b19_counts_that_cannot_fit_are_refused,
    refill_puts_back_what_fits,
    a_refill_serves_as_many_waiters_as_it_brings_tokens,
    tokens_that_come_back_to_a_full_bucket_are_lost,
    a_release_of_zero_changes_nothing,
    a_release_is_fused,
    a_blocked_release_proceeds_after_a_take,
    a_blocked_release_times_out,
    a_blocking_release_does_not_block_if_there_is_room,
    a_releaser_that_comes_while_a_full_bucket_is_handed_out_is_not_forgotten,
}

fn full(fairness: Fairness) -> TokenBucket {
    bucket(fairness, MAX)
}

fn beyond() -> [usize; 4] {
    // On 32-bit targets, the third equals the last.
    [MAX + 1, TokenBucket::MAX_CAPACITY, usize::try_from(1_u64 << 32).unwrap_or(usize::MAX), usize::MAX]
}

fn a_release_is_done_at_once_where_there_is_room(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    bucket.try_take_many(2).unwrap().forget();
    task(bucket.release()).done().unwrap();
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    pollster::block_on(bucket.release()).unwrap();
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_release_waits_while_the_bucket_is_full_until_a_take(fairness: Fairness) {
    let bucket = full(fairness);
    let mut release = waiting(bucket.release());
    assert_eq!(bucket.available(), MAX);

    let token = bucket.try_take().unwrap();
    assert_eq!(release.wakes(), 1);
    assert_eq!(bucket.available(), MAX - 1);
    release.done().unwrap();
    assert_eq!(bucket.available(), MAX);
    token.forget();
}

fn a_release_waits_while_the_bucket_is_full_until_it_shrinks(fairness: Fairness) {
    let bucket = full(fairness);
    let mut release = waiting(bucket.release());
    bucket.set_capacity(MAX).unwrap();
    assert_eq!(release.wakes(), 0);

    bucket.set_capacity(MAX - 1).unwrap();
    assert_eq!(release.wakes(), 1);
    release.done().unwrap();
    // One token above the capacity, because it was released without a take.
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn a_release_that_was_not_polled_does_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    drop(task(bucket.release()));
    assert_eq!(bucket.available(), 1);
}

fn releases_without_a_take_fill_the_bucket_up_to_its_maximum(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    for available in 1..=MAX {
        task(bucket.release()).done().unwrap();
        assert_eq!(numbers(&bucket), [available, 0, 0, 0]);
    }
    let mut beyond = waiting(bucket.release());
    assert!(matches!(bucket.try_release(), Err(TryReleaseError::Full)));
    assert_eq!(bucket.available(), MAX);

    // All available tokens can be taken, although the capacity is 0.
    let tokens = bucket.try_take_many(MAX).unwrap();
    beyond.done().unwrap();
    assert_eq!(bucket.available(), 1);
    tokens.forget();
}

fn a_release_pays_off_a_deficit(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.try_take_many(3).unwrap().forget();
    bucket.set_capacity(1).unwrap();
    assert_eq!(numbers(&bucket), [0, 3, 2, 0]);
    let mut take = waiting(bucket.take());

    task(bucket.release()).done().unwrap();
    assert_eq!(numbers(&bucket), [0, 2, 1, 1]);
    bucket.try_release().unwrap();
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    assert_eq!(take.wakes(), 0);
    assert_eq!(bucket.refill(1), 1);
    assert_eq!(take.wakes(), 1);
    assert_eq!(take.done().unwrap().count(), 1);
}

fn a_release_lets_a_taker_proceed(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let mut first = waiting(bucket.take());
    let mut second = waiting(bucket.take());
    task(bucket.release()).done().unwrap();
    assert_eq!([first.wakes(), second.wakes()], [1, 0]);
    first.done().unwrap().forget();
    assert_eq!(second.wakes(), 0);
    bucket.try_release().unwrap();
    assert_eq!(second.wakes(), 1);
    second.done().unwrap().forget();
    assert_eq!(numbers(&bucket), [0, 0, 0, 0]);
}

fn a_release_replaces_a_forgotten_token(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    bucket.try_take().unwrap().forget();
    std::mem::forget(bucket.try_take().unwrap());
    assert_eq!(numbers(&bucket), [0, 2, 0, 0]);
    task(bucket.release()).done().unwrap();
    bucket.try_release().unwrap();
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_releaser_is_not_counted_as_a_waiter(fairness: Fairness) {
    let bucket = full(fairness);
    let release = waiting(bucket.release());
    assert_eq!(bucket.waiting(), 0);
    drop(release);
    assert_eq!(bucket.waiting(), 0);
}

fn two_takes_before_any_poll_let_two_releasers_proceed(fairness: Fairness) {
    let bucket = full(fairness);
    let mut releases = [waiting(bucket.release()), waiting(bucket.release()), waiting(bucket.release())];
    let tokens = [bucket.try_take().unwrap(), bucket.try_take().unwrap()];
    assert_eq!(releases.each_ref().map(support::Task::wakes), [1, 1, 0]);
    releases[1].done().unwrap();
    releases[0].done().unwrap();
    releases[2].waits();
    assert_eq!(bucket.available(), MAX);
    tokens.into_iter().for_each(Token::forget);
}

fn a_take_of_many_lets_releasers_proceed_one_by_one(fairness: Fairness) {
    let bucket = full(fairness);
    let mut releases = [waiting(bucket.release()), waiting(bucket.release()), waiting(bucket.release())];
    bucket.try_take_many(2).unwrap().forget();
    for release in &mut releases[..2] {
        assert_eq!(release.wakes(), 1);
        release.done().unwrap();
    }
    assert_eq!(releases[2].wakes(), 0);
    assert_eq!(bucket.available(), MAX);
}

fn a_shrink_lets_releasers_proceed_one_by_one(fairness: Fairness) {
    let bucket = full(fairness);
    let mut releases = [waiting(bucket.release()), waiting(bucket.release()), waiting(bucket.release())];
    bucket.set_capacity(MAX - 2).unwrap();
    for release in &mut releases[..2] {
        assert_eq!(release.wakes(), 1);
        release.done().unwrap();
    }
    assert_eq!(releases[2].wakes(), 0);
    assert_eq!(bucket.available(), MAX);
}

fn releasers_are_woken_in_order_of_arrival(fairness: Fairness) {
    let bucket = full(fairness);
    let mut later = task(bucket.release());
    let mut first = waiting(bucket.release());
    later.waits();
    bucket.try_take().unwrap().forget();
    assert_eq!([first.wakes(), later.wakes()], [1, 0]);
    first.done().unwrap();
    bucket.try_take().unwrap().forget();
    assert_eq!(later.wakes(), 1);
    later.done().unwrap();
}

fn a_releaser_that_lost_its_room_keeps_waiting(fairness: Fairness) {
    let bucket = full(fairness);
    let mut release = waiting(bucket.release());
    let token = bucket.try_take().unwrap();
    assert_eq!(release.wakes(), 1);
    drop(token);
    release.waits();
    assert_eq!(bucket.available(), MAX);
    bucket.try_take().unwrap().forget();
    assert_eq!(release.wakes(), 2);
    release.done().unwrap();
}

fn a_waiting_release_that_is_dropped_deposits_nothing(fairness: Fairness) {
    let bucket = full(fairness);
    let release = waiting(bucket.release());
    drop(release);
    bucket.try_take().unwrap().forget();
    assert_eq!(numbers(&bucket), [MAX - 1, 1, 0, 0]);
}

/// A releaser that was woken and then dropped must not keep the next one asleep.
fn a_woken_release_that_is_dropped_passes_its_room_on(fairness: Fairness) {
    let bucket = full(fairness);
    let mut releases = [waiting(bucket.release()), waiting(bucket.release()), waiting(bucket.release())].into_iter();
    bucket.try_take().unwrap().forget();
    let called = releases.next().unwrap();
    assert_eq!(called.wakes(), 1);
    drop(called);
    let mut next = releases.next().unwrap();
    assert_eq!(next.wakes(), 1);
    next.done().unwrap();
    assert_eq!(bucket.available(), MAX);
    assert_eq!(releases.next().unwrap().wakes(), 0);
}

fn a_release_dropped_in_the_middle_blocks_no_releaser(fairness: Fairness) {
    let bucket = full(fairness);
    let first = waiting(bucket.release());
    let middle = waiting(bucket.release());
    let mut last = waiting(bucket.release());
    drop(middle);
    drop(first);
    assert_eq!(last.wakes(), 0);
    bucket.try_take().unwrap().forget();
    assert_eq!(last.wakes(), 1);
    last.done().unwrap();
}

fn a_release_uses_the_last_waker_that_it_was_polled_with(fairness: Fairness) {
    let bucket = full(fairness);
    let mut release = bucket.release();
    let (old, old_waker) = counting_waker();
    let (new, new_waker) = counting_waker();
    assert!(poll_with(&mut release, &old_waker).is_pending());
    assert!(poll_with(&mut release, &new_waker).is_pending());
    drop(old_waker);
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is kept");
    bucket.try_take().unwrap().forget();
    assert_eq!([old.count(), new.count()], [0, 1]);
    assert!(poll_with(&mut release, &new_waker).is_ready());
    drop(new_waker);
    assert_eq!(Arc::strong_count(&new), 1, "the completed future keeps the waker");
}

fn try_release_puts_back_one(fairness: Fairness) {
    let bucket = bucket(fairness, MAX - 1);
    bucket.try_release().unwrap();
    assert_eq!(bucket.available(), MAX);
    assert!(matches!(bucket.try_release(), Err(TryReleaseError::Full)));
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn try_release_many_is_all_or_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    bucket.try_release_many(MAX - 11).unwrap();
    assert_eq!(bucket.available(), MAX - 1);
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_release_many(2), Err(TryReleaseError::Full)));
    assert!(matches!(bucket.try_release_many(MAX), Err(TryReleaseError::Full)));
    assert_eq!(bucket.snapshot(), before);
    bucket.try_release_many(1).unwrap();
    assert_eq!(bucket.available(), MAX);

    // All at once, into a bucket with the largest possible deficit.
    bucket.set_capacity(MAX).unwrap();
    bucket.try_take_many(MAX).unwrap().forget();
    bucket.set_capacity(0).unwrap();
    assert_eq!(bucket.deficit(), MAX);
    bucket.try_release_many(MAX).unwrap();
    assert_eq!(numbers(&bucket), [0, 0, 0, 0]);
    bucket.try_release_many(MAX).unwrap();
    assert_eq!(bucket.available(), MAX);
}

/// In the Go package `token` and elsewhere, a release without a take raised the limit for good.
fn b23_a_release_beyond_the_maximum_is_refused(fairness: Fairness) {
    let bucket = full(fairness);
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_release(), Err(TryReleaseError::Full)));
    assert!(matches!(bucket.try_release_many(1), Err(TryReleaseError::Full)));
    assert!(matches!(bucket.try_release_many(MAX), Err(TryReleaseError::Full)));
    assert_eq!(bucket.refill(1), 0);
    assert_eq!(bucket.snapshot(), before);
    assert_eq!(bucket.try_take_up_to(usize::MAX).unwrap().count(), MAX);
}

/// The counts of async-lock and futures-intrusive wrap around to 0; tokio's is wrong after the panic.
fn b19_counts_that_cannot_fit_are_refused(fairness: Fairness) {
    for capacity in [0, 1, 3, MAX] {
        let bucket = bucket(fairness, capacity);
        let before = bucket.snapshot();
        for n in beyond() {
            match bucket.try_release_many(n) {
                Err(TryReleaseError::ExceedsMax { requested, max_capacity }) => {
                    assert_eq!((requested, max_capacity), (n, MAX));
                }
                other => panic!("{n}: {other:?}"),
            }
            assert_eq!(bucket.snapshot(), before);
        }
        for n in beyond() {
            let room = MAX - bucket.available();
            assert_eq!(bucket.refill(n), room, "{n}");
            assert_eq!(bucket.available(), MAX);
        }
    }

    let largest = TokenBucket::new(TokenBucket::MAX_CAPACITY, 1).unwrap().with_fairness(fairness);
    let before = largest.snapshot();
    assert!(matches!(largest.try_release_many(TokenBucket::MAX_CAPACITY), Err(TryReleaseError::Full)));
    assert!(matches!(largest.try_release_many(TokenBucket::MAX_CAPACITY + 1), Err(TryReleaseError::ExceedsMax { .. })));
    assert_eq!(largest.snapshot(), before);
    largest.try_release_many(TokenBucket::MAX_CAPACITY - 1).unwrap();
    assert_eq!(largest.snapshot().available, TokenBucket::MAX_CAPACITY);
    assert_eq!(largest.snapshot().capacity, 1);
    assert!(matches!(largest.try_release(), Err(TryReleaseError::Full)));
    assert_eq!(largest.snapshot().capacity, 1);
}

fn refill_puts_back_what_fits(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    bucket.try_take_many(10).unwrap().forget();
    bucket.set_capacity(5).unwrap();
    assert_eq!(numbers(&bucket), [0, 10, 5, 0]);
    assert_eq!(bucket.refill(3), 3);
    assert_eq!(numbers(&bucket), [0, 7, 2, 0]);
    assert_eq!(bucket.refill(MAX), MAX);
    assert_eq!(numbers(&bucket), [MAX - 2, 0, 0, 0]);
    assert_eq!(bucket.refill(MAX), 2);
    assert_eq!(bucket.refill(MAX), 0);
    assert_eq!(bucket.capacity(), 5);

    // The most that ever fits: the largest deficit, and a full bucket on top of it.
    let largest = TokenBucket::new(TokenBucket::MAX_CAPACITY, TokenBucket::MAX_CAPACITY).unwrap().with_fairness(fairness);
    largest.try_take_many(TokenBucket::MAX_CAPACITY).unwrap().forget();
    largest.set_capacity(0).unwrap();
    assert_eq!(largest.refill(usize::MAX), 2 * TokenBucket::MAX_CAPACITY);
    assert_eq!(numbers(&largest), [TokenBucket::MAX_CAPACITY, 0, 0, 0]);
}

fn a_refill_serves_as_many_waiters_as_it_brings_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let mut takes = [waiting(bucket.take()), waiting(bucket.take()), waiting(bucket.take()), waiting(bucket.take())];
    assert_eq!(bucket.refill(3), 3);
    let mut tokens = Vec::new();
    for take in &mut takes[..3] {
        assert_eq!(take.wakes(), 1);
        tokens.push(take.done().unwrap());
    }
    assert_eq!(takes[3].wakes(), 0);
    takes[3].waits();
    assert_eq!(numbers(&bucket), [0, 0, 0, 1]);
}

fn tokens_that_come_back_to_a_full_bucket_are_lost(fairness: Fairness) {
    let bucket = full(fairness);
    let token = bucket.try_take_many(5).unwrap();
    assert_eq!(bucket.refill(3), 3);
    drop(token);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn a_release_of_zero_changes_nothing(fairness: Fairness) {
    for capacity in [0, 1, MAX] {
        let bucket = bucket(fairness, capacity);
        let before = bucket.snapshot();
        bucket.try_release_many(0).unwrap();
        assert_eq!(bucket.refill(0), 0);
        assert_eq!(bucket.snapshot(), before);
    }
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut take = waiting(bucket.take());
    bucket.try_release_many(0).unwrap();
    bucket.refill(0);
    assert_eq!(take.wakes(), 0);
    drop(token);
    drop(take.done());
}

fn a_release_is_fused(fairness: Fairness) {
    let bucket = full(fairness);
    let mut release = bucket.release();
    assert!(!release.is_terminated());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut release).poll(&mut cx).is_pending());
    assert!(!release.is_terminated());
    bucket.try_take().unwrap().forget();
    assert!(Pin::new(&mut release).poll(&mut cx).is_ready());
    assert!(release.is_terminated());
    assert_eq!(bucket.available(), MAX);

    let again = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut release).poll(&mut cx)));
    let message = *again.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(message, "`Release` polled after it completed");
    assert_eq!(bucket.available(), MAX);
    assert!(release.is_terminated());
    drop(release);
    assert_eq!(bucket.available(), MAX);
}

fn a_blocked_release_proceeds_after_a_take(fairness: Fairness) {
    in_time(move || {
        let bucket = full(fairness);
        thread::scope(|scope| {
            let blocked = scope.spawn(|| bucket.release().wait());
            let limited = scope.spawn(|| bucket.release().wait_timeout(Duration::from_secs(60)));
            // Each take makes room for one releaser, whether it has queued before or comes later.
            bucket.try_take().unwrap().forget();
            while bucket.available() < MAX {
                thread::yield_now();
            }
            bucket.try_take().unwrap().forget();
            blocked.join().unwrap().unwrap();
            limited.join().unwrap().unwrap();
        });
        assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    });
}

fn a_blocked_release_times_out(fairness: Fairness) {
    let bucket = full(fairness);
    let begin = Instant::now();
    assert!(matches!(bucket.release().wait_timeout(Duration::from_millis(10)), Err(WaitError::TimedOut)));
    assert!(begin.elapsed() >= Duration::from_millis(10));
    assert!(matches!(bucket.release().wait_timeout(Duration::ZERO), Err(WaitError::TimedOut)));
    assert!(matches!(bucket.release().wait_deadline(begin), Err(WaitError::TimedOut)));
    assert!(matches!(waiting_release(&bucket).wait_deadline(begin), Err(WaitError::TimedOut)));
    bucket.try_take().unwrap().forget();
    assert_eq!(bucket.available(), MAX - 1, "releasers that timed out deposited nothing");

    // A timeout too large to represent is infinite.
    bucket.release().wait_timeout(Duration::MAX).unwrap();
    assert_eq!(bucket.available(), MAX);
}

fn a_blocking_release_does_not_block_if_there_is_room(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let past = Instant::now();
    bucket.release().wait_deadline(past).unwrap();
    bucket.release().wait_timeout(Duration::ZERO).unwrap();
    bucket.release().wait().unwrap();
    assert_eq!(bucket.available(), 3);
    bucket.close();
    assert!(matches!(bucket.release().wait_deadline(past), Err(WaitError::Failed(ReleaseError::Closed(_)))));
    assert!(matches!(bucket.release().wait(), Err(ReleaseError::Closed(_))));
}

fn waiting_release(bucket: &TokenBucket) -> token_bucket::Release<'_> {
    let mut release = bucket.release();
    assert!(poll_with(&mut release, Waker::noop()).is_pending());
    release
}

/// A release fills the bucket, all of whose tokens are about to be granted to one waiter. Another releaser finds it full and queues
/// just then. Once the tokens are granted, there is room, and the releaser must be woken.
///
/// Forgotten tokens make the bucket a bounded channel: if a releaser sleeps although there is room, everything soon stops.
fn a_releaser_that_comes_while_a_full_bucket_is_handed_out_is_not_forgotten(fairness: Fairness) {
    const TURNS: usize = 8_000;
    for (max, capacity) in [(1, 0), (1, 1), (2, 2)] {
        in_time(move || {
            let bucket = TokenBucket::new(max, capacity).unwrap().with_fairness(fairness);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for _ in 0..max * TURNS {
                            bucket.release().wait().unwrap();
                        }
                    });
                    scope.spawn(|| {
                        for _ in 0..TURNS {
                            bucket.take_many(max).wait().unwrap().forget();
                        }
                    });
                }
            });
            // It was full at first, unless its capacity is 0.
            assert_eq!((bucket.available(), bucket.waiting()), (capacity, 0));
        });
    }
}

fn a_releaser_that_is_polled_again_keeps_its_place(fairness: Fairness) {
    let bucket = full(fairness);
    let mut first = waiting(bucket.release());
    let mut second = waiting(bucket.release());
    first.waits();
    bucket.try_take().unwrap().forget();
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    first.done().unwrap();
    second.waits();
}
