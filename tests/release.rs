//! Giving back without a guard: `release`, `try_release`, `try_release_many`, `refill`.

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
    a_release_waits_while_the_bucket_is_full_until_somebody_takes,
    a_release_waits_while_the_bucket_is_full_until_it_shrinks,
    a_release_that_nobody_polled_does_nothing,
    releases_without_a_take_fill_the_bucket_up_to_its_maximum,
    a_release_pays_back_what_a_shrink_has_asked_for,
    a_release_lets_a_taker_on,
    a_release_replaces_a_forgotten_token,
    a_releaser_is_no_one_who_waits_for_tokens,
    two_takes_before_any_poll_let_two_releasers_on,
    a_take_of_many_lets_releasers_on_one_after_the_other,
    a_shrink_lets_releasers_on_one_after_the_other,
    releasers_are_called_in_the_order_in_which_they_came,
    a_releaser_that_lost_its_room_waits_on,
    a_waiting_release_that_is_dropped_deposits_nothing,
    a_called_release_that_is_dropped_passes_the_room_on,
    a_release_that_is_dropped_in_the_middle_holds_up_nobody,
    a_release_uses_the_last_waker_that_it_was_polled_with,
    try_release_puts_back_one,
    try_release_many_is_all_or_nothing,
    b23_a_release_beyond_the_maximum_is_refused,
    b19_counts_that_cannot_fit_are_refused,
    refill_puts_back_what_fits,
    a_refill_lets_on_as_many_as_it_brought,
    tokens_that_come_back_to_a_full_bucket_are_lost,
    nothing_is_released_by_zero,
    a_release_tells_when_it_is_over,
    a_blocked_release_goes_on_when_somebody_takes,
    a_blocked_release_gives_up_in_time,
    a_blocked_release_does_at_once_what_can_be_done_at_once,
    a_releaser_that_comes_while_a_full_bucket_is_handed_out_is_not_forgotten,
}

fn full(fairness: Fairness) -> TokenBucket {
    bucket(fairness, MAX)
}

fn beyond() -> [usize; 4] {
    // On a target of 32 bits, the third is as good as the last.
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

fn a_release_waits_while_the_bucket_is_full_until_somebody_takes(fairness: Fairness) {
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
    // One more than it is meant to hold: the release did not know of a take.
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn a_release_that_nobody_polled_does_nothing(fairness: Fairness) {
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

    // All that is there can be had, though the capacity is 0.
    let tokens = bucket.try_take_many(MAX).unwrap();
    beyond.done().unwrap();
    assert_eq!(bucket.available(), 1);
    tokens.forget();
}

fn a_release_pays_back_what_a_shrink_has_asked_for(fairness: Fairness) {
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

fn a_release_lets_a_taker_on(fairness: Fairness) {
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

fn a_releaser_is_no_one_who_waits_for_tokens(fairness: Fairness) {
    let bucket = full(fairness);
    let release = waiting(bucket.release());
    assert_eq!(bucket.waiting(), 0);
    drop(release);
    assert_eq!(bucket.waiting(), 0);
}

fn two_takes_before_any_poll_let_two_releasers_on(fairness: Fairness) {
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

fn a_take_of_many_lets_releasers_on_one_after_the_other(fairness: Fairness) {
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

fn a_shrink_lets_releasers_on_one_after_the_other(fairness: Fairness) {
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

fn releasers_are_called_in_the_order_in_which_they_came(fairness: Fairness) {
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

fn a_releaser_that_lost_its_room_waits_on(fairness: Fairness) {
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
fn a_called_release_that_is_dropped_passes_the_room_on(fairness: Fairness) {
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

fn a_release_that_is_dropped_in_the_middle_holds_up_nobody(fairness: Fairness) {
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
    assert_eq!(Arc::strong_count(&new), 1, "the waker is kept after the end");
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

    // All of it at once, into a bucket that owes as much as it can.
    bucket.set_capacity(MAX).unwrap();
    bucket.try_take_many(MAX).unwrap().forget();
    bucket.set_capacity(0).unwrap();
    assert_eq!(bucket.deficit(), MAX);
    bucket.try_release_many(MAX).unwrap();
    assert_eq!(numbers(&bucket), [0, 0, 0, 0]);
    bucket.try_release_many(MAX).unwrap();
    assert_eq!(bucket.available(), MAX);
}

/// A release without a take raised the limit for good in the Go package that this one replaces, and in others.
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

/// async-lock's count wraps to 0, futures-intrusive's too, tokio's is wrong after the panic.
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

    // The most that ever fits: the deepest deficit, and a whole bucket on top of it.
    let largest = TokenBucket::new(TokenBucket::MAX_CAPACITY, TokenBucket::MAX_CAPACITY).unwrap().with_fairness(fairness);
    largest.try_take_many(TokenBucket::MAX_CAPACITY).unwrap().forget();
    largest.set_capacity(0).unwrap();
    assert_eq!(largest.refill(usize::MAX), 2 * TokenBucket::MAX_CAPACITY);
    assert_eq!(numbers(&largest), [TokenBucket::MAX_CAPACITY, 0, 0, 0]);
}

fn a_refill_lets_on_as_many_as_it_brought(fairness: Fairness) {
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

fn nothing_is_released_by_zero(fairness: Fairness) {
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

fn a_release_tells_when_it_is_over(fairness: Fairness) {
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

fn a_blocked_release_goes_on_when_somebody_takes(fairness: Fairness) {
    in_time(move || {
        let bucket = full(fairness);
        thread::scope(|scope| {
            let blocked = scope.spawn(|| bucket.release().wait());
            let limited = scope.spawn(|| bucket.release().wait_timeout(Duration::from_secs(60)));
            // Each take makes room for one, whether it has lined up before or comes later.
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

fn a_blocked_release_gives_up_in_time(fairness: Fairness) {
    let bucket = full(fairness);
    let begin = Instant::now();
    assert!(matches!(bucket.release().wait_timeout(Duration::from_millis(10)), Err(WaitError::TimedOut)));
    assert!(begin.elapsed() >= Duration::from_millis(10));
    assert!(matches!(bucket.release().wait_timeout(Duration::ZERO), Err(WaitError::TimedOut)));
    assert!(matches!(bucket.release().wait_deadline(begin), Err(WaitError::TimedOut)));
    assert!(matches!(waiting_release(&bucket).wait_deadline(begin), Err(WaitError::TimedOut)));
    bucket.try_take().unwrap().forget();
    assert_eq!(bucket.available(), MAX - 1, "those who gave up deposited nothing");

    // A limit beyond all time is none.
    bucket.release().wait_timeout(Duration::MAX).unwrap();
    assert_eq!(bucket.available(), MAX);
}

fn a_blocked_release_does_at_once_what_can_be_done_at_once(fairness: Fairness) {
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

/// A release fills the bucket, which is about to be handed out as a whole to a waiter; another releaser finds it full
/// and lines up just then. When the bucket has been handed out, there is room, and the releaser is to be told.
///
/// Forgotten tokens make the bucket a bounded channel: if a releaser sleeps though there is room, everybody stops soon.
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
            // It was full at first, if it had a capacity.
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
