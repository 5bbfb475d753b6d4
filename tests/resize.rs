//! Resizing: what a growth or a shrink does to held tokens, to waiters, and to newcomers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use token_bucket::{CapacityError, Fairness, SetCapacityError, TokenBucket, TryReleaseError, TryTakeError};

mod support;
use support::{MAX, Task, both, bucket, numbers, task, waiting};

both! {
    a_growth_serves_a_long_queue_in_order,
    a_shrink_revokes_nothing_and_is_in_force_at_once,
    a_deficit_is_paid_off_before_any_waiter_gets_a_token,
    a_shrink_of_an_idle_bucket_takes_its_tokens,
    shrink_and_growth_cancel_out,
    a_growth_pays_off_a_deficit_first,
    a_resize_to_the_same_capacity_changes_nothing,
    capacity_0_pauses_the_bucket,
    a_growth_serves_as_many_waiters_as_there_are_tokens_for,
    a_growth_without_waiters_wakes_no_later_waiter,
    a_release_without_a_take_tops_the_bucket_up,
    a_growth_puts_no_more_into_the_bucket_than_it_can_hold,
    a_resize_returns_the_state_right_after_it,
    a_refused_resize_changes_nothing,
    a_request_above_the_capacity_blocks_no_waiter,
    a_request_above_the_capacity_is_served_when_that_many_are_released,
    deferred_requests_regain_their_places,
    only_deferred_requests_that_fit_are_restored,
    a_shrink_defers_a_queued_request_and_a_growth_restores_it,
    a_cancelled_deferred_request_is_forgotten,
    b1_growth_while_over_the_limit_grants_nothing_extra,
    b2_an_idle_bucket_grants_its_new_capacity,
    b3_resizes_during_takes_and_releases_never_admit_too_many,
    b4_nothing_is_taken_until_the_deficit_is_paid_off,
    b5_two_resizes_leave_no_work_behind,
    b6_a_shrink_is_not_lost_to_a_waiter_for_many,
    b7_a_queued_request_above_the_new_capacity_blocks_no_waiter,
    b8_a_take_over_the_limit_stays_parked,
    b10_a_growth_wakes_as_many_as_can_proceed,
    b19_releases_and_growth_stop_at_the_maximum,
    b21_taking_everything_available_leaves_a_deficit,
    b24_a_bucket_comes_back_from_capacity_0,
    b25_no_more_are_held_than_the_capacity,
}

/// 2³² where a `usize` can hold it: cut to 32 bits it would be 0.
const WRAPS: usize = if usize::BITS > 32 { 1 << (usize::BITS / 2) } else { usize::MAX - 1 };

fn wakes<F: Future + Unpin>(takes: &[Task<F>]) -> Vec<usize> {
    takes.iter().map(Task::wakes).collect()
}

// Deficits.

fn a_shrink_revokes_nothing_and_is_in_force_at_once(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    let mut held = bucket.try_take_many(8).unwrap();
    let now = bucket.set_capacity(5).unwrap();
    assert_eq!((now.capacity, now.available, now.outstanding, now.deficit), (5, 0, 8, 3));
    assert_eq!(held.count(), 8);
    assert_eq!(numbers(&bucket), [0, 8, 3, 0]);
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    for deficit in [2, 1, 0] {
        drop(held.split(1));
        assert_eq!(numbers(&bucket), [0, 5 + deficit, deficit, 0]);
        assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    }
    drop(held.split(1));
    assert_eq!(numbers(&bucket), [1, 4, 0, 0]);
    let token = bucket.try_take().unwrap();
    drop(held);
    assert_eq!(numbers(&bucket), [4, 1, 0, 0]);
    drop(token);
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

fn a_deficit_is_paid_off_before_any_waiter_gets_a_token(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let mut before = waiting(bucket.take());
    bucket.set_capacity(1).unwrap();
    let mut after = waiting(bucket.take());
    assert_eq!(numbers(&bucket), [0, 3, 2, 2]);
    for deficit in [1, 0] {
        drop(held.split(1));
        assert_eq!(numbers(&bucket), [0, 1 + deficit, deficit, 2]);
        assert_eq!((before.wakes(), after.wakes()), (0, 0));
        before.waits();
    }
    drop(held);
    assert_eq!((before.wakes(), after.wakes()), (1, 0));
    let token = before.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    after.waits();
    drop(token);
    drop(after.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_shrink_of_an_idle_bucket_takes_its_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    bucket.set_capacity(4).unwrap();
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
    // Some of the removed tokens are available, the others are held.
    let held = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(2).unwrap();
    assert_eq!(numbers(&bucket), [0, 3, 1, 0]);
    drop(held);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn shrink_and_growth_cancel_out(fairness: Fairness) {
    for held in 0..=10 {
        for low in 0..=10 {
            let bucket = bucket(fairness, 10);
            let token = bucket.try_take_many(held).unwrap();
            bucket.set_capacity(low).unwrap();
            assert_eq!(numbers(&bucket), [low.saturating_sub(held), held, held.saturating_sub(low), 0]);
            bucket.set_capacity(10).unwrap();
            assert_eq!(numbers(&bucket), [10 - held, held, 0, 0]);
            bucket.set_capacity(0).unwrap();
            drop(token);
            assert_eq!(numbers(&bucket), [0, 0, 0, 0]);
            bucket.set_capacity(10).unwrap();
            assert_eq!(numbers(&bucket), [10, 0, 0, 0]);
        }
    }
}

fn a_growth_pays_off_a_deficit_first(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let held = bucket.try_take_many(5).unwrap();
    let mut waiter = waiting(bucket.take());
    bucket.set_capacity(1).unwrap();
    bucket.set_capacity(3).unwrap();
    assert_eq!(numbers(&bucket), [0, 5, 2, 1]);
    bucket.set_capacity(5).unwrap();
    assert_eq!(numbers(&bucket), [0, 5, 0, 1]);
    assert_eq!(waiter.wakes(), 0);
    bucket.set_capacity(6).unwrap();
    assert_eq!(waiter.wakes(), 1);
    let token = waiter.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 6, 0, 0]);
    drop((held, token));
    assert_eq!(numbers(&bucket), [6, 0, 0, 0]);
}

fn a_resize_to_the_same_capacity_changes_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let held = bucket.try_take_many(2).unwrap();
    let mut waiter = waiting(bucket.take());
    let before = bucket.snapshot();
    assert_eq!(bucket.set_capacity(2).unwrap(), before);
    assert_eq!((bucket.snapshot(), bucket.waiting(), waiter.wakes()), (before, 1, 0));
    drop(held);
    drop(waiter.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

// Pause, growth and top-up.

fn capacity_0_pauses_the_bucket(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let now = bucket.set_capacity(0).unwrap();
    assert_eq!((now.capacity, now.available), (0, 0));
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_up_to(2), Err(TryTakeError::Empty)));
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    assert_eq!(numbers(&bucket), [0, 0, 0, 3]);
    // In order, one waiter for each token.
    for i in 0..3 {
        bucket.set_capacity(i + 1).unwrap();
        assert_eq!(wakes(&takes), (0..3).map(|n| usize::from(n <= i)).collect::<Vec<_>>());
        takes[i].done().unwrap().forget();
        assert_eq!(numbers(&bucket), [0, i + 1, 0, 2 - i]);
    }
}

fn a_growth_serves_as_many_waiters_as_there_are_tokens_for(fairness: Fairness) {
    for (waiters, growth) in [(3, 1), (3, 2), (3, 3), (3, 5), (1, 3), (5, 4)] {
        let bucket = bucket(fairness, 1);
        let held = bucket.try_take().unwrap();
        let mut takes: Vec<_> = (0..waiters).map(|_| waiting(bucket.take())).collect();
        bucket.set_capacity(1 + growth).unwrap();
        let served = waiters.min(growth);
        let mut tokens = Vec::new();
        for (i, take) in takes.iter_mut().enumerate() {
            assert_eq!(take.wakes(), usize::from(i < served), "waiter {i} of {waiters}, growth by {growth}");
            if i < served {
                tokens.push(take.done().unwrap());
            }
        }
        assert_eq!(numbers(&bucket), [growth - served, 1 + served, 0, waiters - served]);
        drop((tokens, held, takes));
        assert_eq!(numbers(&bucket), [1 + growth, 0, 0, 0]);
    }
}

fn a_growth_without_waiters_wakes_no_later_waiter(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    bucket.set_capacity(3).unwrap();
    let held = bucket.try_take_many(3).unwrap();
    let mut late = waiting(bucket.take());
    late.waits();
    assert_eq!(late.wakes(), 0);
    drop(held);
    assert_eq!(late.wakes(), 1);
}

fn a_release_without_a_take_tops_the_bucket_up(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.try_release().unwrap();
    assert_eq!(bucket.capacity(), 3);
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
    task(bucket.release()).done().unwrap();
    bucket.try_release_many(MAX - 5).unwrap();
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_release(), Err(TryReleaseError::Full)));
    assert_eq!(bucket.refill(7), 0);
    assert_eq!(bucket.snapshot(), before);
    let held = bucket.try_take_many(MAX).unwrap();
    assert_eq!(numbers(&bucket), [0, 3, 0, 0]);
    drop(held);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn a_growth_puts_no_more_into_the_bucket_than_it_can_hold(fairness: Fairness) {
    let bucket = bucket(fairness, 50);
    assert_eq!(bucket.refill(usize::MAX), 50);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    bucket.set_capacity(60).unwrap();
    assert_eq!((bucket.capacity(), bucket.available()), (60, MAX));
    bucket.set_capacity(40).unwrap();
    assert_eq!((bucket.capacity(), bucket.available()), (40, MAX - 20));
}

fn a_resize_returns_the_state_right_after_it(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let _held = bucket.try_take_many(2).unwrap();
    let mut waiter = waiting(bucket.take());
    let now = bucket.set_capacity(5).unwrap();
    assert_eq!((now.capacity, now.max_capacity, now.closed), (5, MAX, false));
    // The state after the step itself, before the waiter gets its token.
    assert_eq!((now.available, now.outstanding, now.deficit), (3, 2, 0));
    let _token = waiter.done().unwrap();
    assert_eq!(numbers(&bucket), [2, 3, 0, 0]);
    let now = bucket.set_capacity(1).unwrap();
    assert_eq!((now.capacity, now.available, now.outstanding, now.deficit), (1, 0, 3, 2));
    assert_eq!(now, bucket.snapshot());
}

fn a_refused_resize_changes_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 4);
    let mut held = bucket.try_take_many(4).unwrap();
    bucket.set_capacity(2).unwrap();
    let mut waiter = waiting(bucket.take());
    let before = bucket.snapshot();
    for c in [MAX + 1, u32::MAX as usize, WRAPS, WRAPS + 1, usize::MAX] {
        let error = bucket.set_capacity(c).unwrap_err();
        assert!(
            matches!(error, SetCapacityError::OutOfRange { requested, max_capacity } if requested == c && max_capacity == MAX),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(&c.to_string()) && text.contains(&MAX.to_string()), "{text}");
        assert_eq!((bucket.snapshot(), bucket.waiting(), waiter.wakes()), (before, 1, 0));
    }
    drop(held.split(3));
    drop(waiter.done().unwrap());
    bucket.close();
    let before = bucket.snapshot();
    assert!(matches!(bucket.set_capacity(3), Err(SetCapacityError::Closed(_))));
    assert_eq!(bucket.snapshot(), before);
}

// Requests above the capacity.

fn a_request_above_the_capacity_blocks_no_waiter(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut large = waiting(bucket.take_many(3));
    assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    let one = bucket.try_take().unwrap();
    let other = task(bucket.take()).done().unwrap();
    let mut small = waiting(bucket.take());
    assert_eq!(numbers(&bucket), [0, 2, 0, 2]);
    drop(one);
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    let token = small.done().unwrap();
    drop((token, other));
    assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    assert_eq!(bucket.try_take_many(2).unwrap().count(), 2);
    assert_eq!(large.wakes(), 0);
    bucket.set_capacity(3).unwrap();
    assert_eq!(large.wakes(), 1);
    assert_eq!(large.done().unwrap().count(), 3);
}

fn a_request_above_the_capacity_is_served_when_that_many_are_released(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut large = waiting(bucket.take_many(4));
    let mut larger = waiting(bucket.take_many(5));
    bucket.try_release().unwrap();
    assert_eq!(numbers(&bucket), [3, 0, 0, 2]);
    assert!(bucket.try_take().is_ok());
    assert_eq!(large.wakes(), 0);
    bucket.try_release().unwrap();
    assert_eq!((large.wakes(), larger.wakes()), (1, 0));
    let four = large.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    drop(four);
    // After its return, more tokens than the capacity are available.
    assert_eq!(numbers(&bucket), [4, 0, 0, 1]);
    assert_eq!(bucket.refill(1), 1);
    assert_eq!(larger.wakes(), 1);
    assert_eq!(larger.done().unwrap().count(), 5);
}

fn deferred_requests_regain_their_places(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let mut held = bucket.try_take_many(5).unwrap();
    let mut takes = [waiting(bucket.take_many(4)), waiting(bucket.take_many(3)), waiting(bucket.take())];
    bucket.set_capacity(2).unwrap();
    // The first two are deferred, and the last one proceeds.
    drop(held.split(4));
    assert_eq!(wakes(&takes), [0, 0, 1]);
    drop(takes[2].done().unwrap());
    assert_eq!(numbers(&bucket), [1, 1, 0, 2]);
    let mut last = waiting(bucket.take_many(2));
    // They are restored in the order of their arrival, ahead of the later request.
    bucket.set_capacity(5).unwrap();
    assert_eq!((wakes(&takes), last.wakes()), (vec![1, 0, 1], 0));
    let four = takes[0].done().unwrap();
    assert_eq!(numbers(&bucket), [0, 5, 0, 2]);
    drop(held);
    assert_eq!((takes[1].wakes(), last.wakes()), (0, 0));
    drop(four);
    // The 5 tokens suffice for both.
    assert_eq!((takes[1].wakes(), last.wakes()), (1, 1));
    let three = takes[1].done().unwrap();
    assert_eq!(last.wakes(), 1);
    drop((three, last.done().unwrap()));
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

fn only_deferred_requests_that_fit_are_restored(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let mut takes: Vec<_> = [9, 4, 6].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    assert_eq!(numbers(&bucket), [1, 0, 0, 3]);
    bucket.set_capacity(5).unwrap();
    assert_eq!(wakes(&takes), [0, 1, 0]);
    let four = takes[1].done().unwrap();
    bucket.set_capacity(7).unwrap();
    // The request for 6 is next, and is no longer bypassed.
    assert_eq!(numbers(&bucket), [3, 4, 0, 2]);
    assert_eq!(bucket.try_take().is_ok(), fairness == Fairness::Barging);
    drop(four);
    assert_eq!(wakes(&takes), [0, 1, 1]);
    let six = takes[2].done().unwrap();
    bucket.set_capacity(9).unwrap();
    assert_eq!(takes[0].wakes(), 0);
    drop(six);
    assert_eq!(takes[0].wakes(), 1);
    assert_eq!(takes[0].done().unwrap().count(), 9);
    assert_eq!(numbers(&bucket), [9, 0, 0, 0]);
}

fn a_shrink_defers_a_queued_request_and_a_growth_restores_it(fairness: Fairness) {
    let bucket = bucket(fairness, 6);
    let held = bucket.try_take_many(4).unwrap();
    let mut large = waiting(bucket.take_many(5));
    let mut small = waiting(bucket.take_many(3));
    bucket.set_capacity(4).unwrap();
    assert_eq!(numbers(&bucket), [0, 4, 0, 2]);
    drop(held);
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    let three = small.done().unwrap();
    assert_eq!(numbers(&bucket), [1, 3, 0, 1]);
    drop(bucket.try_take().unwrap());
    bucket.set_capacity(6).unwrap();
    assert_eq!(numbers(&bucket), [3, 3, 0, 1]);
    // The large request is the head again.
    let mut late = waiting(bucket.take_many(4));
    drop(three);
    assert_eq!((large.wakes(), late.wakes()), (1, 0));
    drop(large.done().unwrap());
    drop(late.done().unwrap());
    assert_eq!(numbers(&bucket), [6, 0, 0, 0]);
}

#[test]
fn a_shrink_lets_the_waiters_behind_a_deferred_request_proceed() {
    let bucket = bucket(Fairness::Fifo, 8);
    let held = bucket.try_take().unwrap();
    let mut large = waiting(bucket.take_many(8));
    let mut small = waiting(bucket.take_many(6));
    assert_eq!(numbers(&bucket), [7, 1, 0, 2]);
    bucket.set_capacity(7).unwrap();
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    let six = small.done().unwrap();
    assert_eq!(numbers(&bucket), [0, 7, 0, 1]);
    bucket.set_capacity(8).unwrap();
    drop((held, six));
    assert_eq!(large.wakes(), 1);
    assert_eq!(large.done().unwrap().count(), 8);
}

fn a_cancelled_deferred_request_is_forgotten(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let mut takes: Vec<_> = (0..40).map(|i| waiting(bucket.take_many(2 + i % 3))).collect();
    assert_eq!(numbers(&bucket), [1, 0, 0, 40]);
    takes.truncate(1);
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    takes.extend((0..40).map(|i| waiting(bucket.take_many(2 + i % 3))));
    drop(takes.drain(1..));
    bucket.set_capacity(10).unwrap();
    assert_eq!(takes[0].wakes(), 1);
    assert_eq!(takes[0].done().unwrap().count(), 2);
    assert_eq!(numbers(&bucket), [10, 0, 0, 0]);
}

// Bugs of other crates.

/// anyio's limiter and deadpool's pool grew by the difference while more was held than the old limit, and granted the excess again.
fn b1_growth_while_over_the_limit_grants_nothing_extra(fairness: Fairness) {
    for full in 1..6 {
        let bucket = bucket(fairness, full);
        let held = bucket.try_take_many(full).unwrap();
        let mut waiter = waiting(bucket.take());
        bucket.set_capacity(0).unwrap();
        assert_eq!(numbers(&bucket), [0, full, full, 1]);
        bucket.set_capacity(full).unwrap();
        assert_eq!(numbers(&bucket), [0, full, 0, 1]);
        assert!(bucket.try_take().is_err());
        waiter.waits();
        assert_eq!(waiter.wakes(), 0);
        drop(held);
        assert_eq!(waiter.wakes(), 1);
        drop(waiter.done().unwrap());
        assert_eq!(numbers(&bucket), [full, 0, 0, 0]);
    }
    // vector applied its steps one by one: -2 and +5 made 8 of 3.
    let bucket = bucket(fairness, 3);
    let held = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(1).unwrap();
    bucket.set_capacity(6).unwrap();
    drop(held);
    assert_eq!(numbers(&bucket), [6, 0, 0, 0]);
}

proptest! {
    #[test]
    fn b1_resizes_while_tokens_are_held_add_up(
        held in 0_usize..20, steps in prop::collection::vec(0_usize..=MAX, 1..20),
    ) {
        let bucket = bucket(Fairness::Fifo, 20);
        let token = bucket.try_take_many(held).unwrap();
        for &c in &steps {
            bucket.set_capacity(c).unwrap();
            prop_assert_eq!(bucket.capacity(), c);
            prop_assert_eq!(numbers(&bucket), [c.saturating_sub(held), held, held.saturating_sub(c), 0]);
        }
        drop(token);
        prop_assert_eq!(numbers(&bucket), [*steps.last().unwrap(), 0, 0, 0]);
    }
}

/// deadpool counted its objects and not its permits: after 10 → 2 → 10 it handed out 18.
fn b2_an_idle_bucket_grants_its_new_capacity(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    for capacity in [2, 10, 0, 7, MAX, 1] {
        bucket.set_capacity(capacity).unwrap();
        let tokens: Vec<_> = std::iter::from_fn(|| bucket.try_take().ok()).collect();
        assert_eq!(tokens.len(), capacity);
        assert_eq!(numbers(&bucket), [0, capacity, 0, 0]);
    }
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// megaeth's shrink and release each took two steps, which could interleave in either order.
fn b3_resizes_during_takes_and_releases_never_admit_too_many(fairness: Fairness) {
    const HIGH: usize = 4;
    const LONG: Duration = Duration::from_secs(30);
    let bucket = bucket(fairness, HIGH);
    // At most the outstanding tokens: raised after a take, lowered before a return.
    let held = AtomicUsize::new(0);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in [1, 1, 2] {
            let (bucket, held, ends) = (&bucket, &held, &ends);
            scope.spawn(move || {
                while !ends.load(Ordering::SeqCst) {
                    let token = pollster::block_on(bucket.take_many(n)).unwrap();
                    let now = held.fetch_add(n, Ordering::SeqCst) + n;
                    assert!(now <= HIGH, "{now} tokens held");
                    thread::yield_now();
                    held.fetch_sub(n, Ordering::SeqCst);
                    drop(token);
                }
            });
        }
        for round in 0..300 {
            let low = round % HIGH;
            bucket.set_capacity(low).unwrap();
            let start = Instant::now();
            while bucket.deficit() > 0 {
                assert!(start.elapsed() < LONG, "the deficit was not paid off");
                thread::yield_now();
            }
            for _ in 0..20 {
                let now = held.load(Ordering::SeqCst);
                assert!(now <= low, "{now} tokens held, but the capacity is {low}");
                thread::yield_now();
            }
            bucket.set_capacity(HIGH).unwrap();
        }
        ends.store(true, Ordering::SeqCst);
    });
    assert_eq!(numbers(&bucket), [HIGH, 0, 0, 0]);
}

/// xet forgot either the whole excess or nothing, so free permits stayed usable above the limit.
fn b4_nothing_is_taken_until_the_deficit_is_paid_off(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    let mut held = bucket.try_take_many(8).unwrap();
    assert_eq!(numbers(&bucket), [2, 8, 0, 0]);
    bucket.set_capacity(5).unwrap();
    while held.count() > 4 {
        assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)), "{} are held", held.count());
        assert!(matches!(bucket.try_take_up_to(10), Err(TryTakeError::Empty)));
        drop(held.split(1));
    }
    assert!(bucket.try_take().is_ok());
}

/// In tikv and others, a postponed shrink ran after a later growth.
fn b5_two_resizes_leave_no_work_behind(fairness: Fairness) {
    let bucket = bucket(fairness, MAX);
    let held = bucket.try_take_many(80).unwrap();
    bucket.set_capacity(50).unwrap();
    let now = bucket.set_capacity(MAX).unwrap();
    assert_eq!((now.capacity, now.available, now.deficit), (MAX, 20, 0));
    drop(held);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    bucket.set_capacity(50).unwrap();
    bucket.set_capacity(MAX).unwrap();
    assert_eq!(bucket.try_take_many(MAX).unwrap().count(), MAX);
}

/// tokio forgets no permits while the head of the queue holds some of those that it needs.
fn b6_a_shrink_is_not_lost_to_a_waiter_for_many(fairness: Fairness) {
    let bucket = bucket(fairness, 4);
    let mut held = bucket.try_take_many(4).unwrap();
    let mut head = waiting(bucket.take_many(3));
    drop(held.split(2));
    assert_eq!(numbers(&bucket), [2, 2, 0, 1]);
    bucket.set_capacity(3).unwrap();
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    drop(held.split(1));
    assert_eq!(numbers(&bucket), [2, 1, 0, 1]);
    assert_eq!(head.wakes(), 0);
    bucket.set_capacity(1).unwrap();
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    drop(held);
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    bucket.set_capacity(3).unwrap();
    assert_eq!(head.wakes(), 1);
    drop(head.done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

/// In tokio, zio and xet, a waiter for more than the reduced limit blocks every waiter behind it.
fn b7_a_queued_request_above_the_new_capacity_blocks_no_waiter(fairness: Fairness) {
    let bucket = bucket(fairness, 4);
    let held = bucket.try_take_many(4).unwrap();
    let mut large = waiting(bucket.take_many(3));
    let mut small = [waiting(bucket.take()), waiting(bucket.take())];
    bucket.set_capacity(2).unwrap();
    drop(held);
    let tokens = small.each_mut().map(|take| take.done().unwrap());
    assert_eq!((large.wakes(), wakes(&small)), (0, vec![1, 1]));
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    bucket.set_capacity(4).unwrap();
    assert_eq!(numbers(&bucket), [2, 2, 0, 1]);
    let mut late = waiting(bucket.take_many(3));
    drop(tokens);
    assert_eq!((large.wakes(), late.wakes()), (1, 0));
    drop(large.done().unwrap());
    drop(late.done().unwrap());
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

/// servicetalk, feroxbuster and tower-resilience spun, or woke themselves, while more was held than the limit.
fn b8_a_take_over_the_limit_stays_parked(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let mut held = bucket.try_take_many(5).unwrap();
    bucket.set_capacity(2).unwrap();
    let mut take = waiting(bucket.take());
    for _ in 0..3 {
        drop(held.split(1));
        assert_eq!(take.wakes(), 0);
    }
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    drop(held);
    // Polled once to queue, and once to proceed.
    assert_eq!(take.wakes(), 1);
    drop(take.done().unwrap());
    assert_eq!(take.wakes(), 1);
}

/// anyio and Netflix's limiter woke no waiter, or one too few, when a limit was raised.
fn b10_a_growth_wakes_as_many_as_can_proceed(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let mut takes: Vec<_> = [1, 2, 1, 3, 1].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    bucket.set_capacity(5).unwrap();
    // All that can be served at once, and no others.
    assert_eq!(wakes(&takes), [1, 1, 1, 0, 0]);
    let mut tokens: Vec<_> = takes[..3].iter_mut().map(|take| take.done().unwrap()).collect();
    assert_eq!(wakes(&takes), [1, 1, 1, 0, 0]);
    assert_eq!(numbers(&bucket), [1, 4, 0, 2]);
    bucket.set_capacity(8).unwrap();
    tokens.extend(takes[3..].iter_mut().map(|take| take.done().unwrap()));
    assert_eq!(wakes(&takes), [1; 5]);
    assert_eq!(numbers(&bucket), [0, 8, 0, 0]);
}

/// async-lock and futures-intrusive wrap around; tokio panics when its count is wrong already.
fn b19_releases_and_growth_stop_at_the_maximum(fairness: Fairness) {
    let bucket = bucket(fairness, 50);
    let held = bucket.try_take_many(10).unwrap();
    for n in [MAX + 1, u32::MAX as usize, WRAPS, WRAPS + 1, usize::MAX] {
        let before = bucket.snapshot();
        let error = bucket.try_release_many(n).unwrap_err();
        assert!(
            matches!(error, TryReleaseError::ExceedsMax { requested, max_capacity } if requested == n && max_capacity == MAX),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(&n.to_string()) && text.contains(&MAX.to_string()), "{text}");
        assert!(matches!(bucket.try_release_many(61), Err(TryReleaseError::Full)));
        assert_eq!(bucket.snapshot(), before);
    }
    bucket.try_release_many(59).unwrap();
    assert_eq!(numbers(&bucket), [MAX - 1, 0, 0, 0]);
    // There is room for one of the ten.
    drop(held);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    bucket.set_capacity(MAX).unwrap();
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
    assert_eq!(bucket.refill(usize::MAX), 0);
    // From the deepest deficit to the full bucket.
    bucket.try_take_many(MAX).unwrap().forget();
    bucket.set_capacity(0).unwrap();
    assert_eq!(numbers(&bucket), [0, MAX, MAX, 0]);
    assert_eq!(bucket.refill(usize::MAX), 2 * MAX);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

/// marusama's semaphore truncated a limit of 2³² or more to its lower half; jsonrpsee panicked on 32 bits.
#[test]
fn b20_numbers_are_refused_and_not_truncated() {
    const LIMIT: usize = TokenBucket::MAX_CAPACITY;
    for max_capacity in [LIMIT + 1, u32::MAX as usize, WRAPS, WRAPS + 1, usize::MAX] {
        for initial in [0, 1, max_capacity] {
            let error = TokenBucket::new(max_capacity, initial).unwrap_err();
            assert_eq!(error, CapacityError::MaxTooLarge { max_capacity, limit: LIMIT });
            let text = error.to_string();
            assert!(text.contains(&max_capacity.to_string()) && text.contains(&LIMIT.to_string()), "{text}");
        }
    }
    for initial in [11, LIMIT, WRAPS, WRAPS + 1, usize::MAX] {
        let error = TokenBucket::new(10, initial).unwrap_err();
        assert_eq!(error, CapacityError::InitialExceedsMax { initial, max_capacity: 10 });
        let text = error.to_string();
        assert!(text.contains(&initial.to_string()) && text.contains("10"), "{text}");
    }
    assert_eq!(TokenBucket::new(0, 0).unwrap_err(), CapacityError::MaxIsZero);
    for (max, initial) in [(1, 0), (1, 1), (LIMIT, 0), (LIMIT, LIMIT)] {
        let bucket = TokenBucket::new(max, initial).unwrap();
        assert_eq!((bucket.max_capacity(), bucket.capacity(), bucket.available()), (max, initial, initial));
        let now = bucket.set_capacity(max).unwrap();
        assert_eq!((now.capacity, now.available), (max, max));
        assert!(bucket.set_capacity(max + 1).is_err());
    }
}

/// Java's drain sets a negative count to 0, which cancels the deficit: after -2, three returns make three permits available.
fn b21_taking_everything_available_leaves_a_deficit(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(1).unwrap();
    let before = bucket.snapshot();
    assert_eq!(before.deficit, 2);
    for n in [1, 3, MAX, usize::MAX] {
        assert!(matches!(bucket.try_take_up_to(n), Err(TryTakeError::Empty)));
        assert_eq!(bucket.snapshot(), before);
    }
    drop(held.split(2));
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    drop(held);
    assert_eq!(bucket.try_take_up_to(usize::MAX).unwrap().count(), 1);
}

/// vector's limit was rounded down to 0, and could never be raised again.
fn b24_a_bucket_comes_back_from_capacity_0(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.set_capacity(0).unwrap();
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    bucket.set_capacity(1).unwrap();
    assert_eq!(wakes(&takes), [1, 0, 0]);
    let token = takes[0].done().unwrap();
    takes[1].waits();
    takes[2].waits();
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    drop(token);
    drop(takes[1].done().unwrap());
    drop(takes[2].done().unwrap());
    assert_eq!(wakes(&takes), [1, 1, 1]);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// Netflix's and Palantir's limiters checked the limit first and counted afterwards: 12 of 10 got in.
fn b25_no_more_are_held_than_the_capacity(fairness: Fairness) {
    const CAPACITY: usize = 3;
    let bucket = bucket(fairness, CAPACITY);
    let held = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..6_usize {
            let (bucket, held) = (&bucket, &held);
            scope.spawn(move || {
                for i in 0..300 {
                    let want = 1 + (n + i) % CAPACITY;
                    let token = match i % 3 {
                        0 => pollster::block_on(bucket.take_many(want)).unwrap(),
                        1 => match bucket.try_take_many(want) {
                            Ok(token) => token,
                            Err(_) => continue,
                        },
                        _ => match bucket.try_take_up_to(want) {
                            Ok(token) => token,
                            Err(_) => continue,
                        },
                    };
                    let now = held.fetch_add(token.count(), Ordering::SeqCst) + token.count();
                    assert!(now <= CAPACITY, "{now} tokens held");
                    if i % 5 == 0 {
                        thread::yield_now();
                    }
                    held.fetch_sub(token.count(), Ordering::SeqCst);
                    drop(token);
                }
            });
        }
    });
    assert_eq!(numbers(&bucket), [CAPACITY, 0, 0, 0]);
}

/// More waiters than are woken in one batch.
fn a_growth_serves_a_long_queue_in_order(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let mut takes: Vec<_> = (0..MAX).map(|_| waiting(bucket.take())).collect();
    bucket.set_capacity(70).unwrap();
    if fairness == Fairness::Fifo {
        assert!(takes.iter().enumerate().all(|(i, take)| take.wakes() == usize::from(i < 70)), "70 at once");
    }
    // In a barging bucket they wake one another.
    for take in &mut takes[..70] {
        assert!(take.is_woken());
        take.done().unwrap().forget();
    }
    assert!(takes[70..].iter().all(|take| take.wakes() == 0));
    assert_eq!(numbers(&bucket), [0, 70, 0, MAX - 70]);
    assert!(bucket.close());
    assert!(takes[70..].iter_mut().all(|take| take.done().is_err()));
    assert_eq!(bucket.waiting(), 0);
}
