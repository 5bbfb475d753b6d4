//! Relative changes of the capacity, and tokens that come and go with their capacity: `with_capacity`, `update_capacity`,
//! `grow_and_take`, `retire`, `give_back`, and requests for up to `n` tokens.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;

use support::{MAX, Task, both, bucket, in_time, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, SetCapacityError, TakeError, TokenBucket, TryTakeError};

both! {
    a_bucket_with_a_capacity_can_grow_to_the_largest,
    an_update_sees_the_capacity_and_sets_it,
    an_update_out_of_range_changes_nothing,
    an_update_of_a_closed_bucket_does_not_call_f,
    an_update_that_panics_changes_nothing,
    an_update_may_call_back,
    updates_of_many_threads_add_up,
    a_growth_brings_its_tokens_to_the_caller,
    a_growth_bypasses_the_queue_and_leaves_the_available_tokens,
    a_growth_makes_a_deferred_request_satisfiable,
    a_growth_out_of_range_changes_nothing,
    a_growth_of_a_closed_bucket_is_refused,
    a_retired_token_takes_its_capacity_with_it,
    a_retired_token_pays_a_deficit_first,
    a_retired_token_defers_what_no_longer_fits,
    a_retired_empty_guard_changes_nothing,
    give_back_returns_what_became_of_the_tokens,
    tokens_given_back_to_a_waiter_are_restored,
    growth_and_retirement_of_many_threads_cancel_out,
    up_to_waits_for_one_token_and_takes_the_available_ones,
    up_to_takes_no_more_than_it_wants,
    up_to_keeps_its_place,
    up_to_zero_is_served_at_once,
    up_to_is_closed_with_the_bucket,
    up_to_can_be_dropped_at_any_moment,
    a_waker_may_panic_in_each_new_call,
    a_waker_may_call_each_new_call,
}

/// Numbers that no bucket of `max` can hold. On 32-bit targets, the third equals the last.
fn beyond(max: usize) -> [usize; 4] {
    [max + 1, TokenBucket::MAX_CAPACITY + 1, usize::try_from(1_u64 << 32).unwrap_or(usize::MAX), usize::MAX]
}

fn a_bucket_with_a_capacity_can_grow_to_the_largest(fairness: Fairness) {
    for capacity in [0, 1, 7, TokenBucket::MAX_CAPACITY] {
        let bucket = TokenBucket::with_capacity(capacity).with_fairness(fairness);
        assert_eq!((bucket.capacity(), bucket.max_capacity()), (capacity, TokenBucket::MAX_CAPACITY));
        assert_eq!(numbers(&bucket), [capacity, 0, 0, 0]);
        assert_eq!(bucket.set_capacity(TokenBucket::MAX_CAPACITY).unwrap().available, TokenBucket::MAX_CAPACITY);
    }
    for n in beyond(TokenBucket::MAX_CAPACITY) {
        assert!(catch_unwind(|| TokenBucket::with_capacity(n)).is_err(), "{n}");
    }
}

// Updates.

fn an_update_sees_the_capacity_and_sets_it(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    let held = bucket.try_take_many(8).unwrap();
    let mut seen = Vec::new();
    let now = bucket.update_capacity(|capacity| {
        seen.push(capacity);
        capacity / 2
    });
    assert_eq!(seen, [10]);
    let now = now.unwrap();
    assert_eq!((now.capacity, now.available, now.outstanding, now.deficit), (5, 0, 8, 3));
    assert_eq!(now, bucket.snapshot());
    let mut take = waiting(bucket.take());
    assert_eq!(bucket.update_capacity(|capacity| capacity + 4).unwrap().capacity, 9);
    assert_eq!(take.wakes(), 1);
    drop((take.done().unwrap(), held));
    for capacity in [0, 1, MAX] {
        assert_eq!(bucket.update_capacity(|_| capacity).unwrap().available, capacity);
    }
}

fn an_update_out_of_range_changes_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let before = bucket.snapshot();
    for n in beyond(MAX) {
        let refused = bucket.update_capacity(|_| n);
        assert!(
            matches!(refused, Err(SetCapacityError::OutOfRange { requested, max_capacity: MAX }) if requested == n),
            "{refused:?}"
        );
        assert_eq!(bucket.snapshot(), before);
    }
}

fn an_update_of_a_closed_bucket_does_not_call_f(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.close();
    let before = bucket.snapshot();
    let refused = bucket.update_capacity(|_| panic!("called"));
    assert!(matches!(refused, Err(SetCapacityError::Closed(_))));
    assert_eq!(bucket.snapshot(), before);
}

fn an_update_that_panics_changes_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let before = bucket.snapshot();
    assert!(catch_unwind(AssertUnwindSafe(|| bucket.update_capacity(|_| panic!("on purpose")))).is_err());
    assert_eq!(bucket.snapshot(), before);
    assert_eq!(bucket.update_capacity(|capacity| capacity + 1).unwrap().capacity, 4);
}

/// If `f` changes the capacity itself, it is called again with the new one.
fn an_update_may_call_back(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut seen = Vec::new();
    let now = bucket.update_capacity(|capacity| {
        if seen.is_empty() {
            bucket.set_capacity(10).unwrap();
            drop(bucket.try_take().unwrap());
        }
        seen.push(capacity);
        capacity + 1
    });
    assert_eq!((now.unwrap().capacity, seen), (11, vec![3, 10]));
    // The update is refused if `f` closes the bucket.
    let refused = bucket.update_capacity(|capacity| {
        bucket.close();
        capacity + 1
    });
    assert!(matches!(refused, Err(SetCapacityError::Closed(_))));
    assert_eq!(bucket.capacity(), 11);
}

fn updates_of_many_threads_add_up(fairness: Fairness) {
    in_time(move || {
        let bucket = TokenBucket::with_capacity(1_000).with_fairness(fairness);
        thread::scope(|scope| {
            for up in [true, false, true, true] {
                let bucket = &bucket;
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        bucket.update_capacity(|capacity| if up { capacity + 1 } else { capacity - 1 }).unwrap();
                    }
                });
            }
        });
        assert_eq!(numbers(&bucket), [3_000, 0, 0, 0]);
        assert_eq!(bucket.capacity(), 3_000);
    });
}

// Growth that brings its own tokens.

fn a_growth_brings_its_tokens_to_the_caller(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    for n in [0, 1, 5, MAX - 2] {
        let tokens = bucket.grow_and_take(n).unwrap();
        assert_eq!((tokens.count(), bucket.capacity()), (n, 2 + n));
        assert_eq!(numbers(&bucket), [2, n, 0, 0]);
        tokens.retire();
        let tokens = bucket.grow_and_take_owned(n).unwrap();
        assert_eq!((tokens.count(), numbers(&bucket)), (n, [2, n, 0, 0]));
        drop(tokens);
        assert_eq!(numbers(&bucket), [2 + n, 0, 0, 0]);
        bucket.set_capacity(2).unwrap();
    }
}

fn a_growth_bypasses_the_queue_and_leaves_the_available_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let held = bucket.try_take_many(2).unwrap();
    let mut takes = [waiting(bucket.take()), waiting(bucket.take())];
    let own = bucket.grow_and_take(3).unwrap();
    assert_eq!(numbers(&bucket), [0, 5, 0, 2]);
    assert_eq!(takes.each_ref().map(Task::wakes), [0, 0]);
    drop(own);
    drop(takes.each_mut().map(|take| take.done().unwrap()));
    drop(held);
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
    // A deficit is left as it is, too.
    let held = bucket.try_take_many(5).unwrap();
    bucket.set_capacity(3).unwrap();
    let own = bucket.grow_and_take(2).unwrap();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (5, [0, 7, 2, 0]));
    drop((held, own));
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

fn a_growth_makes_a_deferred_request_satisfiable(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut large = waiting(bucket.take_many(3));
    let own = bucket.grow_and_take(1).unwrap();
    assert_eq!(large.wakes(), 0);
    // It has regained its place, so in a Fifo bucket no newcomer can take its token.
    assert_eq!(bucket.try_take().is_err(), fairness == Fairness::Fifo);
    drop(own);
    assert_eq!(large.done().unwrap().count(), 3);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn a_growth_out_of_range_changes_nothing(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 3));
    let before = bucket.snapshot();
    for n in beyond(MAX - 3) {
        for refused in [bucket.grow_and_take(n).map(drop), bucket.grow_and_take_owned(n).map(drop)] {
            assert!(
                matches!(refused, Err(SetCapacityError::OutOfRange { requested, max_capacity: MAX }) if requested == n.saturating_add(3)),
                "{refused:?}"
            );
        }
        assert_eq!(bucket.snapshot(), before);
    }
    // The deficit must fit as well.
    let held = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(1).unwrap();
    assert!(bucket.grow_and_take(MAX - 2).is_err());
    bucket.grow_and_take(MAX - 3).unwrap().retire();
    drop(held);
}

fn a_growth_of_a_closed_bucket_is_refused(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.close();
    let before = bucket.snapshot();
    for n in [0, 1, MAX - 3, MAX, usize::MAX] {
        assert!(matches!(bucket.grow_and_take(n), Err(SetCapacityError::Closed(_))));
        assert_eq!(bucket.snapshot(), before);
    }
}

// Retirement.

fn a_retired_token_takes_its_capacity_with_it(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 5));
    let mut tokens = bucket.try_take_many(3).unwrap();
    tokens.split(1).unwrap().retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (4, [2, 2, 0, 0]));
    tokens.retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (2, [2, 0, 0, 0]));
    bucket.try_take_many_owned(2).unwrap().retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (0, [0, 0, 0, 0]));
    // Tokens beyond the capacity vanish on their own.
    bucket.try_release_many(2).unwrap();
    bucket.try_take_many(2).unwrap().retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (0, [0, 0, 0, 0]));
    // Even when it is closed.
    bucket.set_capacity(4).unwrap();
    let token = bucket.try_take().unwrap();
    bucket.close();
    token.retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (3, [3, 0, 0, 0]));
}

fn a_retired_token_pays_a_deficit_first(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let mut tokens = bucket.try_take_many(5).unwrap();
    bucket.set_capacity(3).unwrap();
    tokens.split(1).unwrap().retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (3, [0, 4, 1, 0]));
    tokens.split(3).unwrap().retire();
    assert_eq!((bucket.capacity(), numbers(&bucket)), (1, [0, 1, 0, 0]));
    drop(tokens);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_retired_token_defers_what_no_longer_fits(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut tokens = bucket.try_take_many(3).unwrap();
    let mut large = waiting(bucket.take_many(3));
    let mut small = waiting(bucket.take());
    drop(tokens.split(1));
    assert_eq!((large.wakes(), small.wakes()), (0, 0));
    tokens.split(1).unwrap().retire();
    // The large request is now deferred, so the available token is for the small one.
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    drop((small.done().unwrap(), tokens));
    assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    drop(bucket.grow_and_take(1).unwrap());
    assert_eq!(large.done().unwrap().count(), 3);
}

fn a_retired_empty_guard_changes_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let before = bucket.snapshot();
    bucket.try_take_many(0).unwrap().retire();
    let returned = bucket.try_take_many(0).unwrap().give_back();
    assert_eq!((returned.restored, returned.retired), (0, 0));
    assert_eq!(bucket.snapshot(), before);
}

// Returns with a result.

fn give_back_returns_what_became_of_the_tokens(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 5));
    let mut tokens = bucket.try_take_many_owned(5).unwrap();
    bucket.set_capacity(2).unwrap();
    for (n, restored, retired, deficit) in [(2, 0, 2, 1), (2, 1, 1, 0), (1, 1, 0, 0)] {
        let returned = tokens.split(n).unwrap().give_back();
        assert_eq!((returned.restored, returned.retired, bucket.deficit()), (restored, retired, deficit));
    }
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    // A token for which there is no room is neither restored nor retired.
    let tokens = bucket.try_take_many(2).unwrap();
    bucket.refill(MAX - 1);
    let returned = tokens.give_back();
    assert_eq!((returned.restored, returned.retired, bucket.available()), (1, 0, MAX));
    // Even in a closed bucket.
    let tokens = bucket.try_take_many(4).unwrap();
    bucket.close();
    assert_eq!(tokens.give_back().restored, 4);
}

fn tokens_given_back_to_a_waiter_are_restored(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut tokens = bucket.try_take_many(2).unwrap();
    let mut take = waiting(bucket.take());
    // Handed directly to a waiter for as many tokens, and then to one for more.
    let returned = tokens.split(1).unwrap().give_back();
    assert_eq!((returned.restored, returned.retired, take.wakes()), (1, 0, 1));
    let first = take.done().unwrap();
    let mut take = waiting(bucket.take_many(2));
    assert_eq!(first.give_back().restored, 1);
    assert_eq!((tokens.give_back().restored, take.wakes()), (1, 1));
    drop(take.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn growth_and_retirement_of_many_threads_cancel_out(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 4);
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (bucket, done) = (&bucket, &done);
                scope.spawn(move || {
                    for turn in 0..2_000 {
                        let own = bucket.grow_and_take(1 + turn % 3).unwrap();
                        if (turn + thread) % 2 == 0 {
                            drop(waiting_or_done(bucket.take()));
                        }
                        own.retire();
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            let mut held = None;
            while done.load(Ordering::SeqCst) < 4 {
                drop(held.take());
                held = bucket.try_take().ok();
            }
        });
        assert_eq!((bucket.capacity(), numbers(&bucket)), (4, [4, 0, 0, 0]));
    });
}

fn waiting_or_done<F: Future + Unpin>(future: F) -> Task<F> {
    let mut task = task(future);
    drop(task.poll());
    task
}

// Up to `n` tokens.

fn up_to_waits_for_one_token_and_takes_the_available_ones(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 3));
    for n in [2, 3, MAX, MAX + 1, TokenBucket::MAX_CAPACITY + 1, usize::try_from(1_u64 << 32).unwrap_or(usize::MAX), usize::MAX] {
        assert_eq!(task(bucket.take_up_to(n)).done().unwrap().count(), n.min(3));
        assert_eq!(task(bucket.take_up_to_owned(n)).done().unwrap().count(), n.min(3));
        assert_eq!(bucket.try_take_up_to_owned(n).unwrap().count(), n.min(3));
        let mut held = bucket.try_take_many(3).unwrap();
        assert!(matches!(bucket.try_take_up_to_owned(n), Err(TryTakeError::Empty)));
        let (mut take, mut owned) = (waiting(bucket.take_up_to(n)), waiting(bucket.take_up_to_owned(n)));
        drop(held.split(1));
        assert_eq!((take.wakes(), owned.wakes()), (1, 0));
        let one = take.done().unwrap();
        assert_eq!(one.count(), 1);
        drop(held);
        let rest = owned.done().unwrap();
        assert_eq!((rest.count(), numbers(&bucket)), (2, [0, 3, 0, 0]));
        drop((one, rest));
        assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
    }
}

fn up_to_takes_no_more_than_it_wants(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let held = bucket.try_take_many(5).unwrap();
    let (mut two, mut rest) = (waiting(bucket.take_up_to(2)), waiting(bucket.take_up_to(9)));
    drop(held);
    let first = two.done().unwrap();
    let second = rest.done().unwrap();
    assert_eq!((first.count(), second.count()), (2, 3));
    assert_eq!(numbers(&bucket), [0, 5, 0, 0]);
}

/// It waits behind an earlier request for more tokens, as any request does.
fn up_to_keeps_its_place(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let mut large = waiting(bucket.take_many(3));
    let mut up_to = waiting(bucket.take_up_to(3));
    drop(held.split(2));
    up_to.waits();
    assert_eq!((large.wakes(), up_to.wakes()), (0, 0));
    drop(held);
    drop(large.done().unwrap());
    assert_eq!(up_to.done().unwrap().count(), 3);
    // At capacity 0 it waits, and is served at the next growth.
    bucket.set_capacity(0).unwrap();
    let mut up_to = waiting(bucket.take_up_to(3));
    bucket.set_capacity(2).unwrap();
    assert_eq!(up_to.done().unwrap().count(), 2);
}

fn up_to_zero_is_served_at_once(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 0));
    let head = waiting(bucket.take());
    assert_eq!(task(bucket.take_up_to(0)).done().unwrap().count(), 0);
    assert_eq!(task(bucket.take_up_to_owned(0)).done().unwrap().count(), 0);
    assert_eq!(bucket.try_take_up_to_owned(0).unwrap().count(), 0);
    assert_eq!(bucket.waiting(), 1);
    drop(head);
    bucket.close();
    assert!(matches!(task(bucket.take_up_to(0)).done(), Err(TakeError::Closed(_))));
    assert!(matches!(bucket.try_take_up_to_owned(0), Err(TryTakeError::Closed(_))));
}

fn up_to_is_closed_with_the_bucket(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 0));
    let mut takes = [waiting(bucket.take_up_to_owned(1)), waiting(bucket.take_up_to_owned(usize::MAX))];
    bucket.close();
    for take in &mut takes {
        assert_eq!(take.wakes(), 1);
        assert!(matches!(take.done(), Err(TakeError::Closed(_))));
    }
    assert!(matches!(task(bucket.take_up_to(usize::MAX)).done(), Err(TakeError::Closed(_))));
}

/// New, waiting, woken and done.
fn up_to_can_be_dropped_at_any_moment(fairness: Fairness) {
    for moment in 0..4 {
        let bucket = bucket(fairness, 2);
        let mut held = bucket.try_take_many(2).unwrap();
        let mut take = task(bucket.take_up_to(2));
        let mut next = None;
        if moment > 0 {
            take.waits();
            next = Some(waiting(bucket.take_up_to(5)));
        }
        if moment > 1 {
            drop(held.split(1));
            assert!(take.is_woken());
        }
        let token = if moment > 2 { take.done().ok() } else { None };
        drop(take);
        drop((token, held));
        if let Some(mut next) = next {
            let token = next.done().unwrap();
            assert_eq!(numbers(&bucket), [2 - token.count(), token.count(), 0, 0]);
        }
        assert_eq!(numbers(&bucket), [2, 0, 0, 0], "moment {moment}");
    }
}

// Wakers.

/// Calls `f` when it is first woken.
struct OnWake<F: Fn() + Send + Sync>(F, AtomicBool);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        if !self.1.swap(true, Ordering::SeqCst) {
            (self.0)();
        }
    }
}

fn on_wake(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(f, AtomicBool::new(false))))
}

type Way = fn(&Arc<TokenBucket>);

/// The calls of this file; each lets a waiter of a paused bucket proceed and then restores the capacity.
const WAYS: [(&str, Way); 6] = [
    ("update_capacity", |bucket| {
        bucket.update_capacity(|capacity| capacity + 1).unwrap();
    }),
    ("give_back", |bucket| {
        bucket.grow_and_take(1).unwrap().give_back();
    }),
    ("grow_and_take", |bucket| drop(bucket.grow_and_take_owned(1).unwrap())),
    ("take_up_to", |bucket| {
        bucket.set_capacity(1).unwrap();
        drop(waiting_or_done(bucket.take_up_to(5)));
    }),
    ("settled", |bucket| {
        bucket.try_release().unwrap();
        drop(waiting_or_done(bucket.settled()));
    }),
    ("retire", |bucket| {
        bucket.grow_and_take(1).unwrap().retire();
        bucket.grow_and_take(1).unwrap().give_back();
    }),
];

fn a_waker_may_panic_in_each_new_call(fairness: Fairness) {
    for (name, way) in WAYS {
        let bucket = Arc::new(bucket(fairness, 0));
        let mut take = bucket.take_owned();
        assert!(poll_with(&mut take, &on_wake(|| std::panic::resume_unwind(Box::new("on purpose")))).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| way(&bucket))).is_err(), "{name}");
        drop(take);
        let now = bucket.snapshot();
        assert_eq!((now.available.max(1), now.deficit, bucket.waiting()), (1, 0, 0), "{name}: {now:?}");
        assert!(bucket.try_take().is_ok(), "{name}: no token is lost");
    }
}

fn a_waker_may_call_each_new_call(fairness: Fairness) {
    in_time(move || {
        for (name, way) in WAYS {
            for (other_name, other) in WAYS {
                let bucket = Arc::new(bucket(fairness, 0));
                let mut take = bucket.take_owned();
                let waker = on_wake({
                    let bucket = Arc::clone(&bucket);
                    move || other(&bucket)
                });
                assert!(poll_with(&mut take, &waker).is_pending());
                way(&bucket);
                assert!(poll_with(&mut take, Waker::noop()).is_ready(), "{name} wakes {other_name}");
                drop(take);
                assert_eq!((bucket.outstanding(), bucket.deficit(), bucket.waiting()), (0, 0, 0), "{name} wakes {other_name}");
            }
        }
    });
}
