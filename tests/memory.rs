//! Memory: a call that need not wait allocates nothing, and a wait frees what it allocated.
//!
//! Allocations are counted per thread, so those of the test harness do not count. A bucket allocates its queue at the first
//! wait and keeps it, and a queue keeps room for a few entries. So a wait is measured in a bucket that has had waiters before.
//! One test shows that everything is freed at the end.
//!
//! A waiter that leaves stays in the queue as a dead entry until the queue is next examined, or has more than a few of them.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use support::{both, bucket, in_time, poll_with};
use token_bucket::{Fairness, TokenBucket};

both! {
    a_call_that_does_not_wait_does_not_allocate,
    a_call_that_does_not_wait_does_not_allocate_beside_waiters,
    a_refusal_does_not_allocate,
    owned_forms_allocate_nothing_but_the_arc,
    a_closed_bucket_refuses_without_allocating,
    a_wait_allocates_once,
    a_first_wait_allocates_little_more,
    a_wait_that_is_cancelled_leaves_nothing,
    a_wait_that_is_closed_leaves_nothing,
    a_deferred_wait_leaves_nothing,
    cancelled_waits_do_not_pile_up,
    a_cancelled_crowd_leaves_nothing,
    waits_that_are_served_do_not_pile_up,
    a_watch_allocates_once,
    a_wait_that_is_polled_often_allocates_once,
    a_release_that_waits_allocates_once,
    a_blocked_thread_allocates_twice,
    a_blocked_thread_that_gives_up_leaves_nothing,
    a_crowd_leaves_nothing,
    a_dropped_bucket_leaves_nothing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Use {
    allocations: usize,
    /// Bytes allocated, less those freed.
    bytes: i64,
}

thread_local! {
    static USE: Cell<Use> = const { Cell::new(Use { allocations: 0, bytes: 0 }) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(allocations: usize, layout: Layout, sign: i64) {
    let now = USE.get();
    let bytes = sign * i64::try_from(layout.size()).unwrap_or(i64::MAX);
    USE.set(Use { allocations: now.allocations + allocations, bytes: now.bytes + bytes });
}

// (`realloc` and `alloc_zeroed` come here by default.)
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout, 1);
        // SAFETY: the caller of this function has promised the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout, -1);
        // SAFETY: the caller of this function has promised the same.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Returns what this thread allocates in `f`.
fn used<R>(f: impl FnOnce() -> R) -> (Use, R) {
    let before = USE.get();
    let result = black_box(f());
    let after = USE.get();
    (Use { allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes }, result)
}

#[track_caller]
fn free<R>(what: &str, f: impl FnOnce() -> R) -> R {
    let (used, result) = used(f);
    assert_eq!(used, Use::default(), "{what}");
    result
}

/// Requires at most that many allocations, and that nothing is kept.
#[track_caller]
fn at_most<R>(most: usize, f: impl FnOnce() -> R) -> R {
    let (used, result) = used(f);
    assert!((1..=most).contains(&used.allocations), "{used:?}");
    assert_eq!(used.bytes, 0, "{used:?}");
    result
}

/// A bucket in which waiters of each kind have been before.
fn worn(fairness: Fairness, capacity: usize) -> Arc<TokenBucket> {
    let bucket = Arc::new(bucket(fairness, 0));
    let waker = Waker::noop();
    let mut takes: Vec<_> = [1, 1, support::MAX].map(|n| bucket.take_many(n)).into();
    for take in &mut takes {
        assert!(poll_with(take, waker).is_pending());
    }
    bucket.set_capacity(1).unwrap();
    takes.drain(..2);
    // The last request was deferred, and is restored.
    bucket.set_capacity(support::MAX).unwrap();
    drop(takes);
    let mut release = bucket.release();
    assert!(poll_with(&mut release, waker).is_pending());
    drop(release);
    bucket.set_capacity(capacity).unwrap();
    bucket
}

#[test]
fn the_counter_counts() {
    assert_eq!(used(|| drop(black_box(Box::new(1_u64)))).0, Use { allocations: 1, bytes: 0 });
    let (now, kept) = used(|| Box::new(1_u64));
    assert_eq!(now, Use { allocations: 1, bytes: 8 });
    assert_eq!(used(|| drop(kept)).0, Use { allocations: 0, bytes: -8 });
}

fn a_call_that_does_not_wait_does_not_allocate(fairness: Fairness) {
    let new = free("new", || TokenBucket::new(support::MAX, 5).unwrap().with_fairness(fairness));
    free("drop of a bucket", move || drop(new));
    // In a new bucket, and in one that has had waiters.
    for bucket in [Arc::new(bucket(fairness, 5)), worn(fairness, 5)] {
        let waker = Waker::noop();
        let later = Instant::now() + Duration::from_secs(1);
        free("try_take", || drop(bucket.try_take().unwrap()));
        free("try_take_many", || drop(bucket.try_take_many(5).unwrap()));
        free("try_take_up_to", || drop(bucket.try_take_up_to(9).unwrap()));
        free("take", || assert!(poll_with(&mut bucket.take(), waker).is_ready()));
        free("take_many", || assert!(poll_with(&mut bucket.take_many(3), waker).is_ready()));
        free("a take that is not polled", || drop(bucket.take()));
        free("wait", || drop(bucket.take().wait().unwrap()));
        free("wait_timeout", || drop(bucket.take().wait_timeout(Duration::from_secs(1)).unwrap()));
        free("wait_deadline", || drop(bucket.take().wait_deadline(later).unwrap()));
        free("a request for zero", || {
            drop(bucket.try_take_many(0).unwrap());
            drop(bucket.try_take_up_to(0).unwrap());
            drop(bucket.take_many(0).wait().unwrap());
            bucket.try_release_many(0).unwrap();
            assert_eq!(bucket.refill(0), 0);
        });
        free("forget, and a replacement", || {
            bucket.try_take().unwrap().forget();
            bucket.try_release().unwrap();
        });
        free("split and merge", || {
            let mut tokens = bucket.try_take_many(4).unwrap();
            let two = tokens.split(2).unwrap();
            tokens.merge(two);
        });
        free("release", || {
            bucket.release().wait().unwrap();
            assert!(poll_with(&mut bucket.release(), waker).is_ready());
            bucket.try_release_many(2).unwrap();
            bucket.try_take_many(4).unwrap().forget();
        });
        free("refill", || assert_eq!(bucket.refill(1000), support::MAX - 5));
        free("give_back, grow_and_take and retire", || {
            assert_eq!(bucket.try_take_many(2).unwrap().give_back().restored, 2);
            bucket.grow_and_take(2).unwrap().retire();
        });
        free("take_up_to", || assert!(poll_with(&mut bucket.take_up_to(9), waker).is_ready()));
        free("update_capacity", || assert_eq!(bucket.update_capacity(|capacity| capacity).unwrap().capacity, 5));
        free("idle and settled", || {
            assert!(poll_with(&mut bucket.idle(), waker).is_ready());
            assert!(poll_with(&mut bucket.settled(), waker).is_ready());
        });
        free("set_capacity", || {
            for capacity in [0, support::MAX, 3, 5] {
                assert_eq!(bucket.set_capacity(capacity).unwrap().capacity, capacity);
            }
        });
        free("getters", || {
            assert_eq!(bucket.snapshot().capacity, bucket.capacity());
            let sum = bucket.available() + bucket.outstanding() + bucket.deficit() + bucket.waiting() + bucket.max_capacity();
            black_box((sum, bucket.is_closed(), bucket.fairness()))
        });
        free("close", || assert!(bucket.close()));
    }
}

/// While a releaser, watchers and a deferred request wait.
fn a_call_that_does_not_wait_does_not_allocate_beside_waiters(fairness: Fairness) {
    let bucket = Arc::new(TokenBucket::new(4, 3).unwrap().with_fairness(fairness));
    let waker = Waker::noop();
    let held = bucket.try_take().unwrap();
    let (mut idle, mut deferred) = (bucket.idle(), bucket.take_many(4));
    assert!(poll_with(&mut idle, waker).is_pending());
    assert!(poll_with(&mut deferred, waker).is_pending());
    free("try_take", || drop(bucket.try_take().unwrap()));
    free("take", || assert!(poll_with(&mut bucket.take(), waker).is_ready()));
    free("take_owned", || assert!(poll_with(&mut bucket.take_owned(), waker).is_ready()));
    free("wait", || drop(bucket.take_many(2).wait().unwrap()));
    drop((deferred, held));
    bucket.refill(4);
    let mut release = bucket.release();
    assert!(poll_with(&mut release, waker).is_pending());
    free("try_take", || drop(bucket.try_take().unwrap()));
    free("take", || assert!(poll_with(&mut bucket.take(), waker).is_ready()));
    free("take_up_to", || assert!(poll_with(&mut bucket.take_up_to(2), waker).is_ready()));
    free("wait", || drop(bucket.take().wait().unwrap()));
}

fn a_refusal_does_not_allocate(fairness: Fairness) {
    for bucket in [Arc::new(bucket(fairness, 0)), worn(fairness, 0)] {
        let over = support::MAX + 1;
        free("takes", || {
            bucket.try_take().unwrap_err();
            bucket.try_take_many(2).unwrap_err();
            bucket.try_take_up_to(2).unwrap_err();
            bucket.try_take_many(over).unwrap_err();
            bucket.take_many(over).wait().unwrap_err();
            assert!(poll_with(&mut bucket.take_many(over), Waker::noop()).is_ready());
        });
        free("set_capacity", || bucket.set_capacity(over).unwrap_err());
        bucket.set_capacity(support::MAX).unwrap();
        free("releases", || {
            bucket.try_release().unwrap_err();
            bucket.try_release_many(2).unwrap_err();
            bucket.try_release_many(over).unwrap_err();
            assert_eq!(bucket.refill(1), 0);
        });
    }
}

fn owned_forms_allocate_nothing_but_the_arc(fairness: Fairness) {
    let (now, bucket) = used(|| Arc::new(bucket(fairness, 5)));
    assert_eq!(now.allocations, 1);
    free("try_take_owned", || drop(bucket.try_take_owned().unwrap()));
    free("try_take_many_owned", || drop(bucket.try_take_many_owned(5).unwrap()));
    free("take_owned", || assert!(poll_with(&mut bucket.take_owned(), Waker::noop()).is_ready()));
    free("wait", || drop(bucket.take_many_owned(3).wait().unwrap()));
    free("split and merge", || {
        let mut tokens = bucket.try_take_many_owned(4).unwrap();
        let two = tokens.split(2).unwrap();
        tokens.merge(two);
    });
}

fn a_closed_bucket_refuses_without_allocating(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let held = bucket.try_take_many(2).unwrap();
    assert!(bucket.close_with("on purpose"));
    // All errors share the cause.
    free("calls", || {
        bucket.try_take().unwrap_err();
        bucket.take().wait().unwrap_err();
        bucket.try_release().unwrap_err();
        bucket.release().wait().unwrap_err();
        bucket.set_capacity(1).unwrap_err();
        assert!(!bucket.close());
    });
    free("a return", move || drop(held));
}

fn a_wait_allocates_once(fairness: Fairness) {
    for owned in [false, true] {
        let bucket = worn(fairness, 1);
        let waker = Waker::noop();
        at_most(1, || {
            let held = bucket.try_take().unwrap();
            if owned {
                let mut take = bucket.take_owned();
                assert!(poll_with(&mut take, waker).is_pending());
                // The thread that serves the waiter allocates nothing.
                free("return", move || drop(held));
                let (now, ready) = used(|| poll_with(&mut take, waker).is_ready());
                assert_eq!((now.allocations, ready), (0, true));
            } else {
                let mut take = bucket.take();
                assert!(poll_with(&mut take, waker).is_pending());
                free("return", move || drop(held));
                assert!(poll_with(&mut take, waker).is_ready());
            }
        });
        assert_eq!((bucket.available(), bucket.waiting()), (1, 0));
    }
}

/// The waiter, and what the bucket keeps: the queue, its entries, and the event that is used when the queue is owned.
fn a_first_wait_allocates_little_more(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let (now, ()) = used(|| {
        let held = bucket.try_take().unwrap();
        let mut take = bucket.take();
        assert!(poll_with(&mut take, Waker::noop()).is_pending());
        drop(held);
        assert!(poll_with(&mut take, Waker::noop()).is_ready());
    });
    assert_eq!(now.allocations, 3, "{now:?}");
}

/// Serving watchers gives their list away.
fn a_watch_allocates_once(fairness: Fairness) {
    let bucket = worn(fairness, 2);
    for settled in [false, true] {
        at_most(2, || {
            let held = bucket.try_take_many(2).unwrap();
            bucket.set_capacity(1).unwrap();
            let mut watch = if settled { bucket.settled() } else { bucket.idle() };
            assert!(poll_with(&mut watch, Waker::noop()).is_pending());
            drop(held);
            assert!(poll_with(&mut watch, Waker::noop()).is_ready());
        });
        bucket.set_capacity(2).unwrap();
    }
}

fn a_wait_that_is_cancelled_leaves_nothing(fairness: Fairness) {
    let bucket = worn(fairness, 1);
    let waker = Waker::noop();
    // Dropped in the queue, or after it was granted tokens or woken.
    for woken in [false, true] {
        at_most(1, || {
            let mut held = bucket.try_take().ok();
            let mut take = bucket.take();
            assert!(poll_with(&mut take, waker).is_pending());
            if woken {
                held = None;
            }
            drop((take, held));
        });
        assert_eq!((bucket.available(), bucket.waiting()), (1, 0));
    }
}

fn a_wait_that_is_closed_leaves_nothing(fairness: Fairness) {
    let bucket = worn(fairness, 0);
    let waker = Waker::noop();
    let full = worn(fairness, support::MAX);
    // The close also frees the entries that the queues keep.
    let (now, ()) = used(|| {
        let mut take = bucket.take();
        let mut release = full.release();
        assert!(poll_with(&mut take, waker).is_pending());
        assert!(poll_with(&mut release, waker).is_pending());
        assert_eq!(used(|| assert!(bucket.close() && full.close())).0.allocations, 0);
        assert!(poll_with(&mut take, waker).is_ready());
        assert!(poll_with(&mut release, waker).is_ready());
    });
    assert!(now.allocations == 2 && now.bytes <= 0, "{now:?}");
}

fn a_deferred_wait_leaves_nothing(fairness: Fairness) {
    let bucket = worn(fairness, 1);
    let waker = Waker::noop();
    for served in [true, false] {
        // The second allocation is its entry among the deferred requests.
        at_most(2, || {
            let mut take = bucket.take_many(3);
            assert!(poll_with(&mut take, waker).is_pending());
            if served {
                bucket.set_capacity(3).unwrap();
                assert!(poll_with(&mut take, waker).is_ready());
            }
            drop(take);
            bucket.set_capacity(3).unwrap();
            bucket.set_capacity(1).unwrap();
        });
    }
}

/// Up to 17 dead waiters, and 64 entries of up to 64 bytes each.
const FEW: i64 = (17 + 64) * 64;

/// Room for 1,024 entries of 16 bytes, which a queue keeps for the next crowd.
const ROOM: i64 = 1024 * 16;

/// In a paused or small bucket, cancelled waiters stay until there are more than a few of them.
fn cancelled_waits_do_not_pile_up(fairness: Fairness) {
    for (n, capacity) in [(1, 0), (3, 1)] {
        let bucket = worn(fairness, capacity);
        let give_up = |times: usize| {
            for _ in 0..times {
                assert!(poll_with(&mut bucket.take_many(n), Waker::noop()).is_pending());
                assert!(bucket.take_many(n).wait_timeout(Duration::ZERO).is_err());
                assert_eq!(bucket.waiting(), 0);
            }
        };
        give_up(20);
        for times in [2_000, 30_000] {
            let (now, ()) = used(|| give_up(times));
            assert!(now.bytes.abs() <= FEW, "{now:?}");
        }
    }
}

/// Behind a waiter that was woken and does not run, in a Barging bucket.
fn waits_that_are_served_do_not_pile_up(fairness: Fairness) {
    let bucket = worn(fairness, 3);
    let mut held = bucket.try_take_many(3).ok();
    let mut stuck = bucket.take();
    assert!(poll_with(&mut stuck, Waker::noop()).is_pending());
    drop(held.as_mut().unwrap().split(1));
    let mut serve = |times: usize| {
        for _ in 0..times {
            let mut next = bucket.take_many(2);
            assert!(poll_with(&mut next, Waker::noop()).is_pending());
            drop(held.take());
            let Poll::Ready(tokens) = poll_with(&mut next, Waker::noop()) else { panic!("it was not served") };
            held = tokens.ok();
        }
    };
    serve(100);
    for times in [2_000, 30_000] {
        let (now, ()) = used(|| serve(times));
        assert!(now.bytes.abs() <= FEW, "{now:?}");
    }
}

fn a_cancelled_crowd_leaves_nothing(fairness: Fairness) {
    for (n, capacity) in [(1, 0), (3, 1)] {
        let bucket = worn(fairness, capacity);
        let (now, ()) = used(|| {
            for i in 0..2 {
                let mut takes: Vec<_> = (0..100_000).map(|_| bucket.take_many(n)).collect();
                assert!(takes.iter_mut().all(|take| poll_with(take, Waker::noop()).is_pending()));
                match i % 2 {
                    0 => takes.into_iter().for_each(drop),
                    _ => takes.into_iter().rev().for_each(drop),
                }
                assert_eq!(bucket.waiting(), 0);
            }
        });
        assert!(now.bytes <= FEW + ROOM, "{now:?} for {n} of {capacity}");
    }
}

/// Even if it is woken, loses, and is polled with another waker.
fn a_wait_that_is_polled_often_allocates_once(fairness: Fairness) {
    let bucket = worn(fairness, 1);
    let (_, other) = support::counting_waker();
    at_most(1, || {
        let mut held = bucket.try_take().ok();
        let mut take = bucket.take();
        for waker in [Waker::noop(), &other, &other, Waker::noop()] {
            assert!(poll_with(&mut take, waker).is_pending());
            if fairness == Fairness::Barging {
                drop(held.take());
                held = bucket.try_take().ok();
            }
        }
    });
}

fn a_release_that_waits_allocates_once(fairness: Fairness) {
    let bucket = worn(fairness, support::MAX);
    let waker = Waker::noop();
    for served in [false, true] {
        at_most(1, || {
            let mut release = bucket.release();
            assert!(poll_with(&mut release, waker).is_pending());
            if served {
                free("take", || bucket.try_take().unwrap().forget());
                assert!(poll_with(&mut release, waker).is_ready());
            }
        });
    }
}

/// Runs `wait` on a thread, and `meanwhile` here once it waits. Returns what both allocate.
fn blocked(bucket: &TokenBucket, wait: impl FnOnce() + Send, meanwhile: impl FnOnce()) -> Use {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The runtime caches the name of a thread when it is first used.
            black_box(thread::current());
            used(wait).0
        });
        while bucket.waiting() == 0 {
            thread::yield_now();
        }
        let here = used(meanwhile).0;
        let there = thread.join().unwrap();
        Use { allocations: here.allocations + there.allocations, bytes: here.bytes + there.bytes }
    })
}

fn a_blocked_thread_allocates_twice(fairness: Fairness) {
    in_time(move || {
        let bucket = worn(fairness, 1);
        let held = bucket.try_take().unwrap();
        let now = blocked(&bucket, || drop(bucket.take().wait().unwrap()), || drop(held));
        assert!((1..=2).contains(&now.allocations), "{now:?}");
        assert_eq!(now.bytes, 0);
    });
}

fn a_blocked_thread_that_gives_up_leaves_nothing(fairness: Fairness) {
    in_time(move || {
        let bucket = worn(fairness, 0);
        let wait = || {
            drop(bucket.take().wait_timeout(Duration::from_millis(20)).unwrap_err());
            // The next return removes its dead entry from the queue.
            bucket.refill(1);
            bucket.try_take().unwrap().forget();
        };
        let now = blocked(&bucket, wait, || {});
        assert!((1..=2).contains(&now.allocations), "{now:?}");
        assert_eq!(now.bytes, 0);
    });
}

/// Many waiters at once: served, cancelled and closed. The lists of wakers are freed as well.
fn a_crowd_leaves_nothing(fairness: Fairness) {
    const MANY: usize = 50;
    let bucket = worn(fairness, 0);
    let waker = Waker::noop();
    let crowd = || {
        let mut takes: Vec<_> = (0..MANY).map(|_| bucket.take()).collect();
        for take in &mut takes {
            assert!(poll_with(take, waker).is_pending());
        }
        takes
    };
    // Lets the queue grow to its full size.
    let takes = crowd();
    bucket.set_capacity(MANY).unwrap();
    drop(takes);
    bucket.set_capacity(0).unwrap();
    for round in 0..3 {
        let (now, ()) = used(|| {
            let mut takes = crowd();
            match round {
                0 => {
                    bucket.set_capacity(MANY).unwrap();
                    takes.retain_mut(|take| poll_with(take, waker).is_pending());
                    assert!(takes.is_empty());
                    bucket.set_capacity(0).unwrap();
                }
                1 => {
                    bucket.set_capacity(MANY / 2).unwrap();
                    takes.drain(..).rev().for_each(drop);
                    bucket.set_capacity(0).unwrap();
                }
                _ => assert!(bucket.close()),
            }
        });
        // The close also frees the entries that the queue keeps.
        assert!(now.bytes == 0 || (round == 2 && now.bytes < 0), "round {round}: {now:?}");
        // Plus a few vectors that double.
        assert!(now.allocations <= 2 * MANY + 30, "round {round}: {now:?}");
        assert_eq!(bucket.waiting(), 0);
    }
}

fn a_dropped_bucket_leaves_nothing(fairness: Fairness) {
    let (now, ()) = used(|| {
        let bucket = worn(fairness, 2);
        let waker = Waker::noop();
        // Even while owned futures, which keep it alive, wait.
        let held = bucket.try_take_many_owned(2).unwrap();
        let mut takes = [3, 2, 1].map(|n| bucket.take_many_owned(n));
        for take in &mut takes {
            assert!(poll_with(take, waker).is_pending());
        }
        drop(bucket);
        drop(held);
        drop(takes);
    });
    assert_eq!(now.bytes, 0, "{now:?}");
    assert!(now.allocations > 6, "{now:?}");
}
