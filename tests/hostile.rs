//! Hostile users: wakers that call back or panic wherever they can, leaked futures, tasks that are dropped while they are
//! woken, and crowds of waiters.
//!
//! (More tests of wakers that call back or panic when woken or dropped are in `cancel.rs` and `close.rs`.)

mod support;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;
use std::time::Duration;

use cpu_time::ThreadTime;
use futures::future::FusedFuture;
use support::{MAX, both, bucket, in_time, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, OwnedToken, Take, TakeError, TakeOwned, TokenBucket};

both! {
    a_waker_is_cloned_once_however_often_it_is_polled,
    a_waker_may_call_back_when_it_is_cloned,
    a_waker_that_panics_when_it_is_cloned_loses_no_place,
    a_waker_that_panics_when_it_is_dropped_loses_nothing,
    a_waker_that_panics_when_it_was_woken_loses_nothing,
    a_waker_that_panics_when_a_release_drops_it_blocks_no_waiter,
    a_waker_that_panics_as_its_future_is_granted_and_dropped_loses_no_token,
    a_waker_that_is_replaced_as_its_future_is_granted_loses_no_token,
    a_release_that_woke_a_waker_that_panics_is_done,
    a_leaked_future_that_was_not_polled_costs_nothing,
    a_leaked_future_that_was_granted_keeps_its_tokens,
    a_leaked_deferred_future_blocks_no_waiter,
    a_leaked_release_claims_room_for_one,
    leaked_futures_do_not_prevent_a_close,
    a_leaked_token_stays_outstanding,
    a_task_may_be_dropped_by_its_own_wake,
    waiting_futures_keep_their_bucket,
    the_cost_of_a_crowd_is_linear,
    b28_a_blocked_thread_parks,
    a_resize_does_not_visit_requests_that_it_cannot_serve,
    ten_million_calls_add_up,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// What a waker does when it is cloned, woken or dropped.
struct Hooks {
    clone: Hook,
    wake: Hook,
    drop: Hook,
}

impl Hooks {
    fn none() -> Self {
        Self { clone: Box::new(|| {}), wake: Box::new(|| {}), drop: Box::new(|| {}) }
    }

    fn waker(self) -> Waker {
        let raw = Arc::into_raw(Arc::new(self)).cast();
        #[allow(unsafe_code, reason = "`Wake` has no hook for the clone")]
        // SAFETY: the data is an `Arc<Hooks>`, as the functions of the table require.
        unsafe {
            Waker::from_raw(RawWaker::new(raw, &TABLE))
        }
    }
}

#[allow(unsafe_code, reason = "`Wake` has no hook for the clone")]
static TABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: the data of this table is an `Arc<Hooks>`, which the caller that clones the waker keeps alive.
        unsafe {
            ((*data.cast::<Hooks>()).clone)();
            Arc::increment_strong_count(data.cast::<Hooks>());
        }
        RawWaker::new(data, &TABLE)
    },
    |data| {
        // SAFETY: as above; the waker is consumed.
        let hooks = unsafe { Arc::from_raw(data.cast::<Hooks>()) };
        (hooks.wake)();
        (hooks.drop)();
    },
    // SAFETY: as above.
    |data| unsafe { ((*data.cast::<Hooks>()).wake)() },
    |data| {
        // SAFETY: as above; the waker is consumed.
        let hooks = unsafe { Arc::from_raw(data.cast::<Hooks>()) };
        (hooks.drop)();
    },
);

/// Calls `f` the first time only.
fn once(f: impl FnOnce() + Send + 'static) -> Hook {
    let f = Mutex::new(Some(f));
    Box::new(move || {
        let f = f.lock().unwrap().take();
        if let Some(f) = f {
            f();
        }
    })
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(f()))).is_err()
}

// Wakers.

/// What a clone does to a bucket of 2.
type Prank = fn(&Arc<TokenBucket>, &Mutex<Vec<OwnedToken>>, &Mutex<Vec<TakeOwned>>);

const PRANKS: [Prank; 8] = [
    |_, held, _| drop(held.lock().unwrap().pop()),
    |bucket, _, _| drop(bucket.set_capacity(3)),
    |bucket, _, _| drop(bucket.set_capacity(0)),
    |bucket, _, _| drop(bucket.try_take_up_to(2)),
    |bucket, _, _| drop(poll_with(&mut bucket.take_many(2), Waker::noop())),
    |bucket, _, others| {
        let mut other = bucket.take_owned();
        assert!(poll_with(&mut other, Waker::noop()).is_pending());
        others.lock().unwrap().push(other);
    },
    |_, _, others| drop(mem::take(&mut *others.lock().unwrap())),
    |bucket, _, _| assert!(bucket.close()),
];

fn a_waker_is_cloned_once_however_often_it_is_polled(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let clones = Arc::new(AtomicUsize::new(0));
    let clone = Box::new({
        let clones = Arc::clone(&clones);
        move || {
            clones.fetch_add(1, Ordering::SeqCst);
        }
    });
    let waker = Hooks { clone, ..Hooks::none() }.waker();
    let mut take = bucket.take();
    for _ in 0..3 {
        assert!(poll_with(&mut take, &waker).is_pending());
    }
    assert_eq!(clones.load(Ordering::SeqCst), 1);
    drop(token);
    assert!(poll_with(&mut take, &waker).is_ready());
    assert_eq!(clones.load(Ordering::SeqCst), 1);
}

fn a_waker_may_call_back_when_it_is_cloned(fairness: Fairness) {
    in_time(move || {
        for (i, prank) in PRANKS.into_iter().enumerate() {
            for again in [false, true] {
                let bucket = Arc::new(bucket(fairness, 2));
                let held = Arc::new(Mutex::new(vec![bucket.try_take_owned().unwrap(), bucket.try_take_owned().unwrap()]));
                let others = Arc::new(Mutex::new(Vec::new()));
                let mut first = bucket.take_owned();
                if again {
                    // It already waits with another waker, so the new one is cloned.
                    assert!(poll_with(&mut first, Waker::noop()).is_pending());
                }
                let mut other = bucket.take_owned();
                assert!(poll_with(&mut other, Waker::noop()).is_pending());
                others.lock().unwrap().push(other);
                let ran = Arc::new(AtomicBool::new(false));
                let clone = once({
                    let (bucket, held, others, ran) =
                        (Arc::clone(&bucket), Arc::clone(&held), Arc::clone(&others), Arc::clone(&ran));
                    move || {
                        prank(&bucket, &held, &others);
                        ran.store(true, Ordering::SeqCst);
                    }
                });
                let woken = Arc::new(AtomicBool::new(false));
                let wake = Box::new({
                    let woken = Arc::clone(&woken);
                    move || woken.store(true, Ordering::SeqCst)
                });
                let mut result = poll_with(&mut first, &Hooks { clone, wake, ..Hooks::none() }.waker());
                assert!(ran.load(Ordering::SeqCst), "prank {i}: not cloned");
                drop(mem::take(&mut *others.lock().unwrap()));
                drop(mem::take(&mut *held.lock().unwrap()));
                drop(bucket.set_capacity(2));
                if result.is_pending() {
                    assert!(woken.load(Ordering::SeqCst), "prank {i}, {again}: not woken");
                    result = poll_with(&mut first, Waker::noop());
                }
                let Poll::Ready(result) = result else { panic!("prank {i}, {again}: it was not woken") };
                assert_eq!(matches!(result, Err(TakeError::Closed(_))), bucket.is_closed());
                drop(result);
                assert_eq!(numbers(&bucket), [2, 0, 0, 0], "prank {i}, {again}");
            }
        }
    });
}

fn a_waker_that_panics_when_it_is_cloned_loses_no_place(fairness: Fairness) {
    let hostile = || Hooks { clone: Box::new(|| panic!("on purpose")), ..Hooks::none() }.waker();
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut first = bucket.take();
    // Before it has a place in the queue:
    assert!(panics(|| poll_with(&mut first, &hostile())));
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    let mut first = task(first);
    first.waits();
    let mut second = waiting(bucket.take());
    // Once it has one:
    assert!(panics(|| poll_with(first.future(), &hostile())));
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    first.waits();
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first.done().unwrap());
    drop(second.done().unwrap());

    // A future that was dropped by the panic does not delay the next waiter.
    let held = bucket.try_take().unwrap();
    let mut first = waiting(bucket.take());
    let mut second = waiting(bucket.take());
    assert!(panics(move || poll_with(first.future(), &hostile())));
    drop(held);
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// Panics once, after it was armed.
fn panics_if(armed: &Arc<AtomicBool>) -> Hook {
    let armed = Arc::clone(armed);
    Box::new(move || {
        if armed.swap(false, Ordering::SeqCst) {
            // Without a panic message, which would take time.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    })
}

/// A waker whose drop panics, but only within the bucket.
fn panics_on_drop(armed: &Arc<AtomicBool>) -> Waker {
    Hooks { drop: panics_if(armed), ..Hooks::none() }.waker()
}

fn a_waker_that_panics_when_it_is_dropped_loses_nothing(fairness: Fairness) {
    // Dropped with its future: in the queue, at its head with tokens for other waiters, deferred.
    for (n, capacity) in [(1, 2), (3, 3), (5, 3)] {
        let bucket = bucket(fairness, capacity);
        let mut held = bucket.try_take_many(capacity).unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let mut first = bucket.take_many(n);
        assert!(poll_with(&mut first, &panics_on_drop(&armed)).is_pending());
        let mut second = waiting(bucket.take_many(2));
        if n > 1 {
            drop(held.split(2));
        }
        armed.store(true, Ordering::SeqCst);
        assert!(panics(move || drop(first)), "{n} of {capacity}");
        drop(held);
        assert!(second.is_woken(), "{n} of {capacity}");
        drop(second.done().unwrap());
        assert_eq!(numbers(&bucket), [capacity, 0, 0, 0]);
    }
    // The waker of a releaser:
    let bucket = bucket(fairness, MAX);
    let armed = Arc::new(AtomicBool::new(false));
    let mut first = bucket.release();
    assert!(poll_with(&mut first, &panics_on_drop(&armed)).is_pending());
    let mut second = waiting(bucket.release());
    armed.store(true, Ordering::SeqCst);
    assert!(panics(move || drop(first)));
    bucket.try_take().unwrap().forget();
    second.done().unwrap();
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

/// While its waker is cloned, room for the releaser appears, and a waiter for its token. So the waker is not needed.
fn a_waker_that_panics_when_a_release_drops_it_blocks_no_waiter(fairness: Fairness) {
    let bucket = Arc::new(TokenBucket::new(1, 1).unwrap().with_fairness(fairness));
    let armed = Arc::new(AtomicBool::new(false));
    let others = Arc::new(Mutex::new((None, None)));
    let clone = {
        let (bucket, armed, others) = (Arc::clone(&bucket), Arc::clone(&armed), Arc::clone(&others));
        once(move || {
            *others.lock().unwrap() = (bucket.try_take_owned().ok(), Some(waiting(bucket.take_owned())));
            armed.store(true, Ordering::SeqCst);
        })
    };
    let waker = Hooks { clone, drop: panics_if(&armed), ..Hooks::none() }.waker();
    assert!(panics(|| poll_with(&mut bucket.release(), &waker)));
    let (held, other) = mem::take(&mut *others.lock().unwrap());
    let mut other = other.expect("the waker was cloned");
    assert!(other.is_woken());
    drop(other.done().unwrap());
    drop(held);
    drop(bucket.try_take().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// The wake consumes the waker, whose drop panics; the same with a close.
fn a_waker_that_panics_when_it_was_woken_loses_nothing(fairness: Fairness) {
    for close in [false, true] {
        let bucket = bucket(fairness, 0);
        let armed = Arc::new(AtomicBool::new(false));
        let mut first = bucket.take();
        assert!(poll_with(&mut first, &panics_on_drop(&armed)).is_pending());
        let mut others: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
        armed.store(true, Ordering::SeqCst);
        assert!(panics(|| if close { bucket.close() } else { bucket.set_capacity(4).is_ok() }));
        let mut done = usize::from(poll_with(&mut first, Waker::noop()).is_ready());
        for take in &mut others {
            assert!(take.is_woken());
            done += usize::from(take.done().is_ok() != close);
        }
        assert_eq!(done, 4);
        assert_eq!((bucket.available(), bucket.waiting()), (bucket.capacity(), 0));
    }
}

/// A future is dropped while a token is returned. Whichever comes first, the token is available afterwards.
fn a_waker_that_panics_as_its_future_is_granted_and_dropped_loses_no_token(fairness: Fairness) {
    in_time(move || {
        for round in 0..2_000 {
            let bucket = bucket(fairness, 1);
            let held = bucket.try_take().unwrap();
            let armed = Arc::new(AtomicBool::new(false));
            let mut take = bucket.take();
            assert!(poll_with(&mut take, &panics_on_drop(&armed)).is_pending());
            armed.store(true, Ordering::SeqCst);
            let begun = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    begun.store(true, Ordering::SeqCst);
                    (0..round % 50).for_each(|_| std::hint::spin_loop());
                    // The waker may be woken and dropped here instead.
                    panics(|| drop(held));
                });
                while !begun.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                panics(|| drop(take));
            });
            assert!(!armed.load(Ordering::SeqCst), "the waker was dropped");
            assert_eq!(numbers(&bucket), [1, 0, 0, 0], "round {round}");
        }
    });
}

/// A thread that spins needs as much of the processor as it waits.
fn b28_a_blocked_thread_parks(fairness: Fairness) {
    let wait = Duration::from_millis(200);
    let (paused, full) = (bucket(fairness, 0), TokenBucket::new(1, 1).unwrap().with_fairness(fairness));
    let before = ThreadTime::now();
    assert!(paused.take().wait_timeout(wait).is_err());
    assert!(full.release().wait_timeout(wait).is_err());
    assert!(before.elapsed() < wait / 2, "{:?}", before.elapsed());
}

/// The token is returned while the new waker is cloned, so that waker is not needed, and panics when dropped.
fn a_waker_that_is_replaced_as_its_future_is_granted_loses_no_token(fairness: Fairness) {
    for again in [false, true] {
        let bucket = Arc::new(bucket(fairness, 1));
        let held = bucket.try_take_owned().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let mut take = bucket.take();
        assert!(poll_with(&mut take, Waker::noop()).is_pending());
        let clone = {
            let armed = Arc::clone(&armed);
            once(move || {
                drop(held);
                armed.store(true, Ordering::SeqCst);
            })
        };
        let waker = mem::ManuallyDrop::new(Hooks { clone, drop: panics_if(&armed), ..Hooks::none() }.waker());
        assert!(panics(|| poll_with(&mut take, &waker)));
        if again {
            let Poll::Ready(Ok(token)) = poll_with(&mut take, Waker::noop()) else { panic!("the token is lost") };
            assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
            drop(token);
        }
        drop(take);
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        drop(mem::ManuallyDrop::into_inner(waker));
    }
}

/// Both a new future and one that has waited.
fn a_release_that_woke_a_waker_that_panics_is_done(fairness: Fairness) {
    for waited in [false, true] {
        let capacity = if waited { MAX } else { 0 };
        let bucket = bucket(fairness, capacity);
        let mut release = task(bucket.release());
        if waited {
            release.waits();
            bucket.try_take().unwrap().forget();
            assert!(release.is_woken());
        }
        let mut take = bucket.take_many(MAX.min(capacity).max(1));
        let wake = once(|| panic!("on purpose"));
        assert!(poll_with(&mut take, &Hooks { wake, ..Hooks::none() }.waker()).is_pending());
        assert!(panics(|| release.poll()));
        assert!(release.future().is_terminated());
        // A second poll panics, and deposits nothing.
        assert!(panics(|| release.poll()));
        let Poll::Ready(Ok(token)) = poll_with(&mut take, Waker::noop()) else { panic!("the token is lost") };
        assert_eq!(token.count(), capacity.max(1));
        assert_eq!(bucket.available(), 0);
    }
}

// Leaks.

fn leak(bucket: &TokenBucket, n: usize) {
    let mut take = bucket.take_many(n);
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    mem::forget(take);
}

fn a_leaked_future_that_was_not_polled_costs_nothing(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    mem::forget(bucket.take());
    mem::forget(bucket.release());
    drop(bucket.try_take().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_leaked_future_that_was_granted_keeps_its_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let held = bucket.try_take_many(2).unwrap();
    let take = waiting(bucket.take());
    drop(held);
    assert!(take.is_woken());
    mem::forget(take);
    // In a barging bucket it was only woken.
    let kept = usize::from(fairness == Fairness::Fifo);
    assert_eq!(numbers(&bucket), [2 - kept, kept, 0, 1 - kept]);
    // The kept tokens can be replaced.
    assert_eq!(bucket.refill(kept), kept);
    drop(bucket.try_take_many(2).unwrap());
}

#[test]
fn a_leaked_future_in_a_fifo_queue_gets_its_tokens_and_keeps_them() {
    let bucket = bucket(Fairness::Fifo, 2);
    let held = bucket.try_take_many(2).unwrap();
    leak(&bucket, 1);
    let mut second = waiting(bucket.take());
    drop(held);
    // Later waiters proceed, with one token less.
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    bucket.try_release().unwrap();
    drop(bucket.try_take_many(2).unwrap());
}

/// It claims the token it was woken for until it has been bypassed 16 times; then it is granted the token, and keeps it.
#[test]
fn a_leaked_future_in_a_barging_queue_costs_what_it_wants() {
    let bucket = bucket(Fairness::Barging, 2);
    let held = bucket.try_take_many(2).unwrap();
    leak(&bucket, 1);
    let mut second = waiting(bucket.take());
    drop(held);
    // There is a token for each of them.
    drop(second.done().unwrap());
    for losses in 0..16 {
        // Newcomers may take the token that the leaked future claims; waiters may not.
        assert_eq!(numbers(&bucket), [2, 0, 0, 1], "after {losses} losses");
        drop(bucket.try_take_many(2).unwrap());
    }
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    // From now on, it has no effect.
    for _ in 0..20 {
        let held = bucket.try_take().unwrap();
        let mut next = waiting(bucket.take());
        drop(held);
        assert!(next.is_woken());
        drop(next.done().unwrap());
    }
    assert_eq!(bucket.refill(1), 1);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// If it is bypassed before it is woken, it is served in the end as well, and keeps its tokens.
#[test]
fn a_leaked_future_in_a_barging_queue_that_is_bypassed_gets_its_tokens() {
    let bucket = bucket(Fairness::Barging, 2);
    let held = bucket.try_take().unwrap();
    let mut one = bucket.try_take().ok();
    leak(&bucket, 2);
    for _ in 0..16 {
        drop(one.take());
        one = bucket.try_take().ok();
        assert!(one.is_some());
    }
    drop(one);
    assert!(bucket.try_take().is_err());
    drop(held);
    assert_eq!(numbers(&bucket), [0, 2, 0, 0]);
    assert_eq!(bucket.refill(2), 2);
    drop(bucket.try_take_many(2).unwrap());
}

/// As long as its request is above the capacity.
fn a_leaked_deferred_future_blocks_no_waiter(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    leak(&bucket, 3);
    for _ in 0..20 {
        let held = bucket.try_take().unwrap();
        let mut next = waiting(bucket.take());
        drop(held);
        drop(next.done().unwrap());
    }
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    bucket.set_capacity(4).unwrap();
    let kept = if fairness == Fairness::Fifo { 3 } else { 0 };
    assert_eq!(bucket.outstanding(), kept);
}

/// A leaked releaser that was woken claims room for one token.
fn a_leaked_release_claims_room_for_one(fairness: Fairness) {
    let bucket = bucket(fairness, MAX);
    let mut first = bucket.release();
    assert!(poll_with(&mut first, Waker::noop()).is_pending());
    mem::forget(first);
    let mut others = [waiting(bucket.release()), waiting(bucket.release())];
    bucket.try_take().unwrap().forget();
    assert!(!others[0].is_woken());
    bucket.try_take().unwrap().forget();
    assert!(others[0].is_woken() && !others[1].is_woken());
    others[0].done().unwrap();
    assert!(!others[1].is_woken());
    bucket.try_take().unwrap().forget();
    others[1].done().unwrap();
    assert_eq!(bucket.available(), MAX - 1);
    // A caller need not queue.
    bucket.try_release().unwrap();
}

fn leaked_futures_do_not_prevent_a_close(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    leak(&bucket, 1);
    leak(&bucket, 3);
    let mut take = waiting(bucket.take());
    drop(held);
    let mut other = waiting(bucket.take_many(2));
    bucket.close();
    assert!(take.is_woken() && other.is_woken());
    assert!(take.done().is_err() && other.done().is_err());
}

fn a_leaked_token_stays_outstanding(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    mem::forget(bucket.try_take().unwrap());
    assert_eq!(numbers(&bucket), [1, 1, 0, 0]);
    assert_eq!(bucket.refill(1), 1);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

// Tasks that are dropped by their own wake, as by an executor that has been shut down.

fn a_task_may_be_dropped_by_its_own_wake(fairness: Fairness) {
    // Each return wakes the next task from within.
    const MANY: usize = 500;
    in_time(move || {
        for close in [false, true] {
            let bucket = Arc::new(bucket(fairness, 1));
            let held = bucket.try_take().unwrap();
            let dropped = Arc::new(AtomicUsize::new(0));
            for _ in 0..MANY {
                let task = Arc::new(Mutex::new(None));
                let wake = once({
                    let (task, dropped) = (Arc::clone(&task), Arc::clone(&dropped));
                    move || {
                        let task: Option<TakeOwned> = task.lock().unwrap().take();
                        assert!(task.is_some());
                        drop(task);
                        dropped.fetch_add(1, Ordering::SeqCst);
                    }
                });
                let mut take = bucket.take_owned();
                assert!(poll_with(&mut take, &Hooks { wake, ..Hooks::none() }.waker()).is_pending());
                *task.lock().unwrap() = Some(take);
            }
            if close {
                assert!(bucket.close());
            }
            drop(held);
            assert_eq!(dropped.load(Ordering::SeqCst), MANY);
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        }
    });
}

fn waiting_futures_keep_their_bucket(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    let weak = Arc::downgrade(&bucket);
    let held = bucket.try_take_many_owned(2).unwrap();
    let mut takes = [1, 2, 3].map(|n| waiting(bucket.take_many_owned(n)));
    drop(bucket);
    drop(held);
    let token = takes[0].done().unwrap();
    assert_eq!(numbers(token.bucket()), [1, 1, 0, 2]);
    drop(token);
    drop(takes[1].done().unwrap());
    // The capacity can no longer be changed, so the last future waits for ever, and keeps the bucket alive.
    takes[2].waits();
    assert_eq!(weak.strong_count(), 1);
    drop(takes);
    assert!(weak.upgrade().is_none());
}

// Crowds.

type Way = fn(&TokenBucket, Vec<Take<'_>>);

/// The ways in which the waits of a crowd end.
const WAYS: [Way; 6] = [
    // All are dropped, from the front or from the back.
    |_, takes| takes.into_iter().for_each(drop),
    |_, takes| takes.into_iter().rev().for_each(drop),
    // All are served at once (in a barging bucket, all are woken), and one after another.
    |bucket, mut takes| {
        bucket.set_capacity(takes.len() + 1).unwrap();
        takes.iter_mut().for_each(serve);
    },
    |bucket, mut takes| {
        for take in &mut takes {
            bucket.refill(1);
            serve(take);
        }
    },
    |bucket, mut takes| {
        assert!(bucket.close());
        assert!(takes.iter_mut().all(|take| poll_with(take, Waker::noop()).is_ready()));
    },
    // Every second one is dropped, then the others are served and dropped.
    |bucket, takes| {
        let (odd, even): (Vec<_>, Vec<_>) = takes.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        drop(odd);
        bucket.set_capacity(even.len() + 1).unwrap();
        drop(even);
    },
];

fn serve(take: &mut Take<'_>) {
    let Poll::Ready(Ok(token)) = poll_with(take, Waker::noop()) else { panic!("not served") };
    token.forget();
}

/// Measures the CPU time until the waits of a whole crowd have begun and ended.
fn crowd(fairness: Fairness, way: Way, many: usize) -> Duration {
    let bucket = TokenBucket::new(TokenBucket::MAX_CAPACITY, 0).unwrap().with_fairness(fairness);
    let mut takes: Vec<_> = (0..many).map(|_| bucket.take()).collect();
    let begin = ThreadTime::now();
    assert!(takes.iter_mut().all(|take| poll_with(take, Waker::noop()).is_pending()));
    assert_eq!(bucket.waiting(), many);
    way(&bucket, takes);
    assert_eq!(bucket.waiting(), 0);
    begin.elapsed()
}

/// Ten times as many waiters may take forty times as long, because of the caches, but not a hundred times.
fn the_cost_of_a_crowd_is_linear(fairness: Fairness) {
    for (i, way) in WAYS.into_iter().enumerate() {
        let few = (0..3).map(|_| crowd(fairness, way, 10_000)).min().unwrap();
        let is_linear = |_| crowd(fairness, way, 100_000) < 40 * few;
        assert!((0..3).any(is_linear), "way {i}: a crowd of ten times the size took more than 40 times {few:?}");
    }
}

/// Returns the shortest CPU time of several runs of `f`.
fn time(mut f: impl FnMut()) -> Duration {
    let times = (0..5).map(|_| {
        let begin = ThreadTime::now();
        f();
        begin.elapsed()
    });
    times.min().unwrap()
}

/// With a hundred times as many woken waiters that do not run, takes and returns take less than ten times as long.
#[test]
fn barging_calls_do_not_visit_every_woken_waiter() {
    let calls = |many: usize| {
        let bucket = TokenBucket::with_capacity(many).with_fairness(Fairness::Barging);
        let held = bucket.try_take_many(many).unwrap();
        let takes: Vec<_> = (0..many).map(|_| waiting(bucket.take())).collect();
        drop(held);
        assert!(takes.iter().all(support::Task::is_woken));
        // The head is granted its token after every 16 losses.
        let time = time(|| (0..200).for_each(|_| drop(bucket.try_take().unwrap())));
        assert_eq!(bucket.waiting(), many - 1000 / 16);
        time
    };
    let few = calls(80);
    let is_constant = |_| calls(8_000) < 10 * few;
    assert!((0..3).any(is_constant), "with a hundred times as many, more than ten times {few:?}");
}

fn a_resize_does_not_visit_requests_that_it_cannot_serve(fairness: Fairness) {
    let resizes = |many: usize| {
        let bucket = bucket(fairness, 1);
        let mut takes: Vec<_> = (0..many).map(|_| bucket.take_many(50)).collect();
        assert!(takes.iter_mut().all(|take| poll_with(take, Waker::noop()).is_pending()));
        assert_eq!(bucket.waiting(), many);
        time(|| {
            for capacity in (0..1_000).map(|n| n % 50) {
                bucket.set_capacity(capacity).unwrap();
            }
        })
    };
    let few = resizes(1_000);
    let is_constant = |_| resizes(100_000) < 10 * few;
    assert!((0..3).any(is_constant), "with a hundred times as many, more than ten times {few:?}");
}

fn ten_million_calls_add_up(fairness: Fairness) {
    const CALLS: u64 = 5_000_000;
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 3));
        // Tokens put in without a take, less those forgotten.
        let extra = AtomicI64::new(0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (bucket, extra, done) = (&bucket, &extra, &done);
            let resizer = scope.spawn(move || {
                let mut i = 0;
                while !done.load(Ordering::Relaxed) {
                    i += 1;
                    assert_eq!(bucket.set_capacity(i % 7).unwrap().capacity, i % 7);
                }
            });
            let callers: Vec<_> = (1..=2)
                .map(|seed: u64| {
                    scope.spawn(move || {
                        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                        let mut futures = Vec::new();
                        let mut tokens = Vec::new();
                        for _ in 0..CALLS {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            let n = 1 + usize::try_from(random >> 60).unwrap() % 3;
                            match (random >> 32) % 16 {
                                0..=2 => tokens.extend(bucket.try_take_many(n).ok()),
                                3..=5 if futures.len() < 50 => futures.push(bucket.take_many(n)),
                                6..=9 => {
                                    let at = usize::try_from(random >> 40).unwrap() % 64;
                                    if let Some(take) = futures.get_mut(at) {
                                        if let Poll::Ready(token) = poll_with(take, Waker::noop()) {
                                            tokens.push(token.unwrap());
                                            drop(futures.swap_remove(at));
                                        }
                                    }
                                }
                                10 | 11 if !futures.is_empty() => drop(futures.swap_remove(0)),
                                12 if extra.load(Ordering::Relaxed).abs() < 20 => {
                                    extra.fetch_add(i64::try_from(bucket.refill(n)).unwrap(), Ordering::Relaxed);
                                }
                                13 if extra.load(Ordering::Relaxed) > 0 => {
                                    if let Some(token) = tokens.pop() {
                                        extra.fetch_sub(i64::try_from(token.count()).unwrap(), Ordering::Relaxed);
                                        token.forget();
                                    }
                                }
                                _ => drop(tokens.pop()),
                            }
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            resizer.join().unwrap();
        });
        bucket.set_capacity(50).unwrap();
        let now = bucket.snapshot();
        let int = |n| i64::try_from(n).unwrap();
        assert_eq!(int(now.available), 50 + extra.into_inner(), "{now:?}");
        assert_eq!((now.deficit, bucket.waiting()), (0, 0));
        drop(bucket.try_take_many(now.available).unwrap());
    });
}
