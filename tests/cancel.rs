//! Cancellation: futures that are dropped at any moment, and wakers that call back into the bucket.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;

use token_bucket::{Fairness, Take, TakeError, TakeOwned, Token, TokenBucket};

mod support;
use support::{Task, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};

both! {
    a_fresh_future_can_be_dropped,
    a_waiting_future_can_be_dropped,
    a_completed_future_can_be_dropped,
    a_woken_future_passes_its_tokens_on,
    a_woken_future_with_no_successor_leaves_its_tokens,
    a_deferred_request_can_be_dropped,
    a_deferred_request_can_be_dropped_after_it_was_woken,
    a_dropped_future_releases_its_waker,
    a_dropped_future_releases_its_bucket,
    any_queued_future_can_be_dropped_at_any_moment,
    b11_waiters_behind_a_dropped_head_proceed,
    b12_a_woken_future_that_is_dropped_wakes_the_next,
    b13_a_drop_during_a_release_loses_nothing,
    b13_a_drop_during_a_grant_loses_nothing,
    b14_a_dropped_request_for_many_returns_what_it_had,
    b16_a_future_can_be_dropped_between_wake_and_poll,
    b29_a_storm_of_cancellations_leaves_nothing_behind,
    b18_a_waker_may_call_back_when_a_token_comes_back,
    b18_a_waker_may_call_back_when_the_bucket_grows,
    b18_a_waker_may_call_back_when_the_head_is_dropped,
    b18_a_waker_may_call_back_when_the_bucket_is_closed,
    b18_a_waker_may_call_back_when_it_is_replaced,
    b18_a_waker_may_call_back_when_its_future_is_dropped,
    b18_a_waker_may_call_back_when_its_woken_future_is_dropped,
    a_chain_of_wakers_may_pass_a_token_on,
    a_panic_of_a_waker_leaves_no_waiter_asleep,
    a_panic_of_a_waker_at_the_close_leaves_no_waiter_asleep,
    a_panic_of_a_waker_loses_no_token_of_the_waking_task,
    a_panic_of_a_replaced_waker_loses_no_place,
}

fn wakes<F: Future + Unpin>(takes: &[Task<F>]) -> Vec<usize> {
    takes.iter().map(Task::wakes).collect()
}

// Dropped at every stage.

fn a_fresh_future_can_be_dropped(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let mut waiter = waiting(bucket.take_many(2));
    drop(task(bucket.take()));
    drop(bucket.take_many_owned(3));
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    bucket.set_capacity(2).unwrap();
    drop(bucket.take());
    assert_eq!(waiter.wakes(), 1);
    drop(waiter.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_waiting_future_can_be_dropped(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let held = bucket.try_take().unwrap();
    let mut first = waiting(bucket.take());
    let second = waiting(bucket.take());
    let mut third = waiting(bucket.take());
    let fourth = waiting(bucket.take_owned());
    assert_eq!(numbers(&bucket), [0, 1, 0, 4]);
    drop(second);
    assert_eq!(numbers(&bucket), [0, 1, 0, 3]);
    drop(fourth);
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    assert_eq!((first.wakes(), third.wakes()), (0, 0));
    drop(held);
    drop(first.done().unwrap());
    drop(third.done().unwrap());
    assert_eq!((first.wakes(), third.wakes()), (1, 1));
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_completed_future_can_be_dropped(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    let held = bucket.try_take_many(2).unwrap();
    let mut take = waiting(bucket.take());
    let mut owned = waiting(bucket.take_owned());
    drop(held);
    let tokens = (take.done().unwrap(), owned.done().unwrap());
    drop((take, owned));
    assert_eq!(numbers(&bucket), [0, 2, 0, 0]);
    drop(tokens);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_woken_future_passes_its_tokens_on(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let held = bucket.try_take_many(3).unwrap();
    let large = waiting(bucket.take_many(3));
    let mut small = [waiting(bucket.take_many(2)), waiting(bucket.take()), waiting(bucket.take())];
    drop(held);
    assert_eq!((large.wakes(), wakes(&small)), (1, vec![0, 0, 0]));
    drop(large);
    let two = small[0].done().unwrap();
    let one = small[1].done().unwrap();
    assert_eq!(wakes(&small), [1, 1, 0]);
    assert_eq!(numbers(&bucket), [0, 3, 0, 1]);
    drop((two, one));
    drop(small[2].done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn a_woken_future_with_no_successor_leaves_its_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let held = bucket.try_take_many(3).unwrap();
    let take = waiting(bucket.take_many(2));
    drop(held);
    assert_eq!(take.wakes(), 1);
    drop(take);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
    drop(bucket.try_take_many(3).unwrap());
    drop(task(bucket.take_many(3)).done().unwrap());
}

fn a_deferred_request_can_be_dropped(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let first = waiting(bucket.take_many(2));
    let mut second = waiting(bucket.take_many(3));
    assert_eq!(numbers(&bucket), [1, 0, 0, 2]);
    drop(first);
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    drop(bucket.try_take().unwrap());
    bucket.set_capacity(3).unwrap();
    assert_eq!(second.wakes(), 1);
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn a_deferred_request_can_be_dropped_after_it_was_woken(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let first = waiting(bucket.take_many(3));
    let mut second = waiting(bucket.take_many(2));
    bucket.set_capacity(4).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first);
    assert_eq!(second.wakes(), 1);
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

fn a_dropped_future_releases_its_waker(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let (mut first, mut second, mut deferred) = (bucket.take(), bucket.take(), bucket.take_many(2));
    let (wakes, waker) = counting_waker();
    assert!(poll_with(&mut first, &waker).is_pending());
    assert!(poll_with(&mut second, &waker).is_pending());
    assert!(poll_with(&mut deferred, &waker).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 4);
    drop(second);
    assert_eq!(Arc::strong_count(&wakes), 3);
    drop(held);
    drop(first);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 2));
    drop(deferred);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 1));
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_dropped_future_releases_its_bucket(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let held = bucket.try_take_owned().unwrap();
    let takes = [waiting(bucket.take_owned()), waiting(bucket.take_owned()), waiting(bucket.take_many_owned(5))];
    drop(held);
    let weak = Arc::downgrade(&bucket);
    drop((takes, bucket));
    assert_eq!(weak.strong_count(), 0);
}

/// Polls the first woken future, if there is one.
fn poll_woken<'a>(takes: &mut [Option<Task<Take<'a>>>]) -> Option<Token<'a>> {
    let woken = takes.iter_mut().find(|take| take.as_ref().is_some_and(Task::is_woken))?;
    Some(woken.take()?.done().unwrap())
}

/// Drops the waiter at each place in the queue, after any number of tokens were returned and waiters served.
fn any_queued_future_can_be_dropped_at_any_moment(fairness: Fairness) {
    const NEEDS: [usize; 5] = [2, 1, 5, 3, 1];
    let cases = (0..NEEDS.len()).flat_map(|dropped| (0..=4).flat_map(move |free| (0..3).map(move |polls| (dropped, free, polls))));
    for (dropped, free, polls) in cases {
        let bucket = bucket(fairness, 4);
        let mut held = bucket.try_take_many(4).unwrap();
        let mut takes: Vec<_> = NEEDS.iter().map(|&n| Some(waiting(bucket.take_many(n)))).collect();
        drop(held.split(free));
        let mut tokens: Vec<_> = (0..polls).map_while(|_| poll_woken(&mut takes)).collect();
        tokens.push(held);
        takes[dropped] = None;
        loop {
            if let Some(token) = poll_woken(&mut takes) {
                tokens.push(token);
            } else if tokens.pop().is_none() {
                break;
            }
            assert!(tokens.iter().map(Token::count).sum::<usize>() <= bucket.outstanding());
        }
        // Only the request for 5 of 4 tokens still waits.
        let wait: Vec<_> = (0..NEEDS.len()).filter(|&i| takes[i].is_some()).collect();
        assert_eq!(wait, if dropped == 2 { vec![] } else { vec![2] }, "{dropped} {free} {polls}");
        assert_eq!(numbers(&bucket), [4, 0, 0, wait.len()]);
        bucket.set_capacity(5).unwrap();
        assert_eq!(poll_woken(&mut takes).is_some(), dropped != 2);
        assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
    }
}

/// A barging waiter is woken, and is dropped while a newcomer holds its token.
#[test]
fn a_woken_future_that_would_have_lost_can_be_dropped() {
    let bucket = bucket(Fairness::Barging, 1);
    let held = bucket.try_take().unwrap();
    let first = waiting(bucket.take());
    let mut second = waiting(bucket.take());
    drop(held);
    let barged = bucket.try_take().unwrap();
    assert_eq!(first.wakes(), 1);
    drop(first);
    // No token is available, so the second waiter is not woken.
    assert_eq!(second.wakes(), 0);
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    drop(barged);
    assert_eq!(second.wakes(), 1);
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

#[test]
fn a_woken_future_that_is_late_can_be_dropped() {
    let bucket = bucket(Fairness::Barging, 2);
    let held = bucket.try_take_many(2).unwrap();
    let first = waiting(bucket.take());
    let mut second = waiting(bucket.take());
    let mut third = waiting(bucket.take());
    drop(held);
    // One more bypass would shut newcomers out.
    for _ in 0..15 {
        drop(bucket.try_take().unwrap());
    }
    assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 1, 0));
    drop(first);
    // The token that it claimed is for the third waiter.
    assert_eq!((second.wakes(), third.wakes()), (1, 1));
    assert_eq!(numbers(&bucket), [2, 0, 0, 2]);
    // Its losses are not passed on.
    for _ in 0..15 {
        drop(bucket.try_take().unwrap());
    }
    drop(third.done().unwrap());
    drop(second.done().unwrap());
    assert_eq!((second.wakes(), third.wakes()), (1, 1));
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

// Bugs of other crates.

/// In Go's weighted semaphore, embassy and others, waiters behind a large request stayed asleep when it was cancelled.
fn b11_waiters_behind_a_dropped_head_proceed(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let head = waiting(bucket.take_many(3));
    let mut next = [waiting(bucket.take()), waiting(bucket.take_many(2)), waiting(bucket.take())];
    drop(held.split(1));
    assert_eq!(numbers(&bucket), [1, 2, 0, 4]);
    drop(head);
    assert_eq!(wakes(&next), [1, 0, 0]);
    let token = next[0].done().unwrap();
    assert_eq!(numbers(&bucket), [0, 3, 0, 2]);
    drop((held, token));
    drop(next[1].done().unwrap());
    drop(next[2].done().unwrap());
    assert_eq!(wakes(&next), [1, 1, 1]);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

/// In asyncio and anyio, a wake-up was lost if the woken task was cancelled.
fn b12_a_woken_future_that_is_dropped_wakes_the_next(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut takes: Vec<_> = (0..4).map(|_| waiting(bucket.take())).collect();
    drop(held);
    for left in (1..4).rev() {
        assert_eq!(takes.remove(0).wakes(), 1);
        assert_eq!(takes[0].wakes(), 1);
        assert!(takes[1..].iter().all(|take| take.wakes() == 0));
        assert_eq!(takes.len(), left);
    }
    drop(takes[0].done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// Netflix's limiter and others lost or duplicated a permit when a timeout raced with a release.
fn b13_a_drop_during_a_release_loses_nothing(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 3);
        thread::scope(|scope| {
            for n in 0..4_usize {
                let bucket = &bucket;
                scope.spawn(move || {
                    for i in 0..1500 {
                        let want = 1 + (i + n) % 3;
                        let mut take = bucket.take_many(want);
                        let polled = poll_with(&mut take, Waker::noop());
                        let result = match polled {
                            Poll::Ready(result) => Some(result),
                            Poll::Pending if (i + n) % 4 == 0 => Some(pollster::block_on(take)),
                            // Dropped while it waits, after it was served, or once it has its tokens.
                            Poll::Pending => {
                                thread::yield_now();
                                if i % 2 == 0 { None } else { ready(poll_with(&mut take, Waker::noop())) }
                            }
                        };
                        if let Some(token) = result {
                            assert_eq!(token.unwrap().count(), want);
                        }
                    }
                });
            }
        });
        assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
        assert_eq!(bucket.try_take_many(3).unwrap().count(), 3);
    });
}

fn b13_a_drop_during_a_grant_loses_nothing(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        // Both threads queue; the token of one may be granted to the other, which leaves.
                        let mut take = bucket.take();
                        drop(poll_with(&mut take, Waker::noop()));
                        drop(take);
                    }
                });
            }
        });
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        drop(bucket.try_take().unwrap());
    });
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// asyncband returned the number of permits that a waiter still wanted, instead of those that it had.
fn b14_a_dropped_request_for_many_returns_what_it_had(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    for free in 0..5 {
        let mut held = bucket.try_take_many(5).unwrap();
        let take = waiting(bucket.take_many(5));
        for n in 0..free {
            drop(held.split(1));
            assert_eq!(numbers(&bucket), [n + 1, 4 - n, 0, 1]);
        }
        drop(take);
        assert_eq!(numbers(&bucket), [free, 5 - free, 0, 0]);
        assert_eq!(bucket.try_take_up_to(5).map_or(0, |token| token.count()), free);
    }
    // Every token it asked for:
    let held = bucket.try_take_many(5).unwrap();
    let take = waiting(bucket.take_many(4));
    drop(held);
    drop(take);
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
}

/// asyncband removed a waiter from its list when it woke it, and panicked when the waiter then removed itself.
fn b16_a_future_can_be_dropped_between_wake_and_poll(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    for _ in 0..3 {
        let held = bucket.try_take_many(2).unwrap();
        let takes = [waiting(bucket.take()), waiting(bucket.take()), waiting(bucket.take_many(2))];
        drop(held);
        assert_eq!(takes[0].wakes(), 1);
        drop(takes);
        assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    }
    // The bucket is closed between wake and poll:
    let held = bucket.try_take_many(2).unwrap();
    let takes = [waiting(bucket.take()), waiting(bucket.take()), waiting(bucket.take_many(2))];
    drop(held);
    bucket.close();
    drop(takes);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// .NET's limiters counted cancelled entries as queued, and a cancelled entry at the head blocked the queue.
fn b29_a_storm_of_cancellations_leaves_nothing_behind(fairness: Fairness) {
    const MANY: usize = 2000;
    let bucket = bucket(fairness, 4);
    for order in 0..3 {
        let mut held = bucket.try_take_many(4).unwrap();
        let mut takes: Vec<_> = (0..MANY).map(|i| waiting(bucket.take_many(1 + i % 6))).collect();
        let mut last = waiting(bucket.take_many(2));
        // Some waiters have been examined, some are woken, some are deferred.
        drop(held.split(2));
        assert!(bucket.waiting() > MANY - 4);
        match order {
            0 => takes.clear(),
            1 => takes.drain(..).rev().for_each(drop),
            _ => {
                for i in (1..=MANY).rev() {
                    takes.swap_remove((i * 7919) % i);
                }
                assert!(takes.is_empty());
            }
        }
        assert_eq!(last.wakes(), 1);
        drop(last.done().unwrap());
        assert_eq!(numbers(&bucket), [2, 2, 0, 0]);
    }
    // The same while tokens are being returned.
    in_time(move || {
        let bucket = support::bucket(fairness, 2);
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            for n in 0..2_usize {
                let (bucket, ends) = (&bucket, &ends);
                scope.spawn(move || {
                    for i in 0..60 {
                        let mut takes: Vec<_> = (0..20).map(|k| task(bucket.take_many(1 + (k + i) % 3))).collect();
                        // A future that is served at once is dropped as well.
                        for take in &mut takes {
                            drop(take.poll());
                        }
                        if (i + n) % 2 == 0 {
                            takes.reverse();
                        }
                        drop(takes);
                    }
                    ends.store(true, Ordering::SeqCst);
                });
            }
            scope.spawn(|| {
                while !ends.load(Ordering::SeqCst) {
                    drop(pollster::block_on(bucket.take()).unwrap());
                    drop(bucket.try_take());
                }
            });
        });
        assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
        drop(bucket.try_take_many(2).unwrap());
    });
}

// Wakers that call back.

/// What a waker does with the bucket from within the call that runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Release,
    Refill,
    TryTake,
    Take,
    DropWaiting,
    Grow,
    Shrink,
    Close,
}

const CALLS: [Call; 8] =
    [Call::Release, Call::Refill, Call::TryTake, Call::Take, Call::DropWaiting, Call::Grow, Call::Shrink, Call::Close];

/// A bucket of 2, and a waiting future that a call may drop.
struct Scene {
    call: Call,
    bucket: Arc<TokenBucket>,
    other: Mutex<Option<TakeOwned>>,
    calls: Mutex<usize>,
}

impl Scene {
    fn new(call: Call, fairness: Fairness) -> Arc<Self> {
        let bucket = Arc::new(bucket(fairness, 2));
        Arc::new(Self { call, bucket, other: Mutex::new(None), calls: Mutex::new(0) })
    }

    /// Queues the future that a call may drop.
    fn enqueue(&self, n: usize) {
        let mut take = self.bucket.take_many_owned(n);
        assert!(poll_with(&mut take, Waker::noop()).is_pending());
        *self.other.lock().unwrap() = Some(take);
    }

    fn run(&self) {
        let bucket = &self.bucket;
        *self.calls.lock().unwrap() += 1;
        match self.call {
            Call::Release => drop(bucket.try_release()),
            Call::Refill => drop(bucket.refill(1)),
            Call::TryTake => drop(bucket.try_take_up_to(2)),
            Call::Take => drop(poll_with(&mut bucket.take_many(2), Waker::noop())),
            Call::DropWaiting => {
                let other = self.other.lock().unwrap().take();
                drop(other);
            }
            Call::Grow => drop(bucket.set_capacity(3)),
            Call::Shrink => drop(bucket.set_capacity(1)),
            Call::Close => drop(bucket.close()),
        }
    }

    /// Every token has been returned, and can be taken.
    fn check_end(&self) {
        assert!(*self.calls.lock().unwrap() > 0, "{:?} was not called", self.call);
        drop(self.other.lock().unwrap().take());
        let bucket = &self.bucket;
        let runs = *self.calls.lock().unwrap();
        let extra = if matches!(self.call, Call::Release | Call::Refill) { runs } else { 0 };
        assert_eq!((bucket.available(), bucket.waiting()), (bucket.capacity() + extra, 0), "{:?}", self.call);
        assert_eq!(bucket.is_closed(), bucket.try_take_many(bucket.available()).is_err(), "{:?}", self.call);
    }
}

/// Calls back when woken.
struct OnWake(Arc<Scene>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        self.0.run();
    }
}

/// Calls back when its last clone is dropped.
struct OnDrop(Arc<Scene>);

impl Wake for OnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.run();
    }
}

/// Runs a test for each call and each kind of waker.
fn each_call(fairness: Fairness, test: fn(&Arc<Scene>, Waker)) {
    in_time(move || {
        for call in CALLS {
            for on_drop in [false, true] {
                let scene = Scene::new(call, fairness);
                let waker = if on_drop {
                    Waker::from(Arc::new(OnDrop(Arc::clone(&scene))))
                } else {
                    Waker::from(Arc::new(OnWake(Arc::clone(&scene))))
                };
                test(&scene, waker);
                scene.check_end();
            }
        }
    });
}

/// Like [`each_call`], with the kind of waker that calls back when dropped.
fn each_call_on_drop(fairness: Fairness, test: fn(&Arc<Scene>, Waker)) {
    in_time(move || {
        for call in CALLS {
            let scene = Scene::new(call, fairness);
            test(&scene, Waker::from(Arc::new(OnDrop(Arc::clone(&scene)))));
            scene.check_end();
        }
    });
}

/// event-listener and futures-intrusive wake under the lock of the queue, and tokio drops a replaced waker under it: a waker
/// that uses the semaphore deadlocks.
fn b18_a_waker_may_call_back_when_a_token_comes_back(fairness: Fairness) {
    each_call(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take_many(2).unwrap();
        let (mut first, mut second) = (bucket.take(), bucket.take_many(2));
        assert!(poll_with(&mut first, &waker).is_pending());
        drop(waker);
        scene.enqueue(1);
        assert!(poll_with(&mut second, Waker::noop()).is_pending());
        drop(held);
        drop(poll_with(&mut first, Waker::noop()));
    });
}

fn b18_a_waker_may_call_back_when_the_bucket_grows(fairness: Fairness) {
    each_call(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        bucket.set_capacity(0).unwrap();
        let (mut first, mut second) = (bucket.take(), bucket.take());
        assert!(poll_with(&mut first, &waker).is_pending());
        drop(waker);
        scene.enqueue(2);
        assert!(poll_with(&mut second, Waker::noop()).is_pending());
        bucket.set_capacity(2).unwrap();
        drop(poll_with(&mut first, Waker::noop()));
    });
}

fn b18_a_waker_may_call_back_when_the_head_is_dropped(fairness: Fairness) {
    each_call(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take().unwrap();
        let (mut head, mut next) = (bucket.take_many(2), bucket.take());
        assert!(poll_with(&mut head, Waker::noop()).is_pending());
        // Hold the last token: otherwise, in a barging bucket, the second request would take it instead of waiting.
        let other = bucket.try_take();
        assert!(poll_with(&mut next, &waker).is_pending());
        drop(waker);
        scene.enqueue(2);
        drop(other);
        drop(head);
        drop(poll_with(&mut next, Waker::noop()));
        drop(held);
    });
}

fn b18_a_waker_may_call_back_when_the_bucket_is_closed(fairness: Fairness) {
    each_call(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take_many(2).unwrap();
        let (mut first, mut second) = (bucket.take(), bucket.take());
        assert!(poll_with(&mut first, &waker).is_pending());
        scene.enqueue(1);
        assert!(poll_with(&mut second, &waker).is_pending());
        drop(waker);
        bucket.close();
        assert!(matches!(poll_with(&mut first, Waker::noop()), Poll::Ready(Err(TakeError::Closed(_)))));
        assert!(matches!(poll_with(&mut second, Waker::noop()), Poll::Ready(Err(TakeError::Closed(_)))));
        drop(held);
        // A closed bucket refuses releases, so they do not count.
        if scene.call == Call::Release {
            assert_eq!(bucket.available(), 2);
            bucket.refill(*scene.calls.lock().unwrap());
        }
    });
}

fn b18_a_waker_may_call_back_when_it_is_replaced(fairness: Fairness) {
    each_call_on_drop(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take_many(2).unwrap();
        let mut take = bucket.take();
        assert!(poll_with(&mut take, &waker).is_pending());
        drop(waker);
        scene.enqueue(1);
        let (wakes, waker) = counting_waker();
        let mut result = poll_with(&mut take, &waker);
        assert_eq!(*scene.calls.lock().unwrap(), 1);
        drop(held);
        if result.is_pending() {
            assert_eq!(wakes.count(), 1);
            result = poll_with(&mut take, &waker);
        }
        assert_eq!(matches!(result, Poll::Ready(Err(_))), scene.call == Call::Close);
        assert!(result.is_ready());
    });
}

fn b18_a_waker_may_call_back_when_its_future_is_dropped(fairness: Fairness) {
    each_call_on_drop(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take_many(2).unwrap();
        let (mut take, mut next) = (bucket.take(), waiting(bucket.take()));
        assert!(poll_with(&mut take, &waker).is_pending());
        drop(waker);
        scene.enqueue(1);
        drop(take);
        assert_eq!(*scene.calls.lock().unwrap(), 1);
        drop(held);
        assert!(next.is_woken());
        drop(next.done());
    });
}

fn b18_a_waker_may_call_back_when_its_woken_future_is_dropped(fairness: Fairness) {
    each_call(fairness, |scene, waker| {
        let bucket = &scene.bucket;
        let held = bucket.try_take_many(2).unwrap();
        let first = waiting(bucket.take_many(2));
        let mut take = bucket.take();
        assert!(poll_with(&mut take, &waker).is_pending());
        drop(waker);
        scene.enqueue(1);
        drop(held);
        assert!(first.is_woken());
        // Dropping it wakes the other waiter.
        drop(first);
        assert_eq!(*scene.calls.lock().unwrap(), 1);
        drop(take);
    });
}

/// Each waker takes the next token and returns it, within the return that woke it.
fn a_chain_of_wakers_may_pass_a_token_on(fairness: Fairness) {
    struct Run(Mutex<Option<TakeOwned>>);
    impl Wake for Run {
        fn wake(self: Arc<Self>) {
            let take = self.0.lock().unwrap().take();
            if let Some(mut take) = take {
                let Poll::Ready(Ok(token)) = poll_with(&mut take, Waker::noop()) else { panic!("woken without a token") };
                drop(token);
            }
        }
    }
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 1));
        let held = bucket.try_take().unwrap();
        for _ in 0..50 {
            let run = Arc::new(Run(Mutex::new(None)));
            let mut take = bucket.take_owned();
            assert!(poll_with(&mut take, &Waker::from(Arc::clone(&run))).is_pending());
            *run.0.lock().unwrap() = Some(take);
        }
        assert_eq!(numbers(&bucket), [0, 1, 0, 50]);
        drop(held);
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    });
}

// Wakers that panic.

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

fn panicking_waker() -> Waker {
    Waker::from(Arc::new(Panics))
}

/// Wherever in the queue a waker panics, the other waiters are woken.
fn a_panic_of_a_waker_leaves_no_waiter_asleep(fairness: Fairness) {
    for bad in 0..4 {
        let bucket = bucket(fairness, 0);
        let mut takes: Vec<_> = (0..4).map(|_| task(bucket.take())).collect();
        for (i, take) in takes.iter_mut().enumerate() {
            if i == bad {
                assert!(poll_with(take.future(), &panicking_waker()).is_pending());
            } else {
                take.waits();
            }
        }
        let mut panics = usize::from(catch_unwind(AssertUnwindSafe(|| bucket.set_capacity(4))).is_err());
        for (i, take) in takes.iter_mut().enumerate() {
            assert!(take.is_woken() || i == bad, "waiter {i} was not woken; the waker of {bad} panicked");
            let token = catch_unwind(AssertUnwindSafe(|| take.done().unwrap().forget()));
            panics += usize::from(token.is_err());
        }
        assert_eq!(panics, 1);
        assert_eq!(bucket.waiting(), 0);
    }
}

fn a_panic_of_a_waker_at_the_close_leaves_no_waiter_asleep(fairness: Fairness) {
    for bad in 0..4 {
        let bucket = bucket(fairness, 2);
        let held = bucket.try_take_many(2).unwrap();
        // The first request is above the capacity.
        let mut takes: Vec<_> = (0..4).map(|i| task(bucket.take_many(3 - i % 3))).collect();
        for (i, take) in takes.iter_mut().enumerate() {
            if i == bad {
                assert!(poll_with(take.future(), &panicking_waker()).is_pending());
            } else {
                take.waits();
            }
        }
        assert!(catch_unwind(AssertUnwindSafe(|| bucket.close())).is_err());
        assert!(bucket.is_closed());
        for (i, take) in takes.iter_mut().enumerate() {
            assert!(take.is_woken() || i == bad, "waiter {i} was not woken; the waker of {bad} panicked");
            assert!(matches!(take.done(), Err(TakeError::Closed(_))));
        }
        drop(held);
        assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    }
}

/// If a call that has taken a token wakes a waker that panics, the token is returned.
fn a_panic_of_a_waker_loses_no_token_of_the_waking_task(fairness: Fairness) {
    // A take that makes room for a releaser:
    let bucket = bucket(fairness, support::MAX);
    let mut release = bucket.release();
    assert!(poll_with(&mut release, &panicking_waker()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| bucket.try_take().map(drop))).is_err());
    assert_eq!(numbers(&bucket), [support::MAX, 0, 0, 0]);
    drop(release);

    // A poll of a new or woken take; the take then starts again. (In a Fifo bucket, a woken take already has its token.)
    for woken in [false, true] {
        if woken && fairness == Fairness::Fifo {
            continue;
        }
        let bucket = support::bucket(fairness, support::MAX);
        let mut take = task(bucket.take());
        if woken {
            let held = bucket.try_take_many(support::MAX).unwrap();
            take.waits();
            drop(held);
            assert!(take.is_woken());
        }
        let mut release = bucket.release();
        assert!(poll_with(&mut release, &panicking_waker()).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| take.poll().map(drop))).is_err());
        assert_eq!(numbers(&bucket), [support::MAX, 0, 0, 0]);
        let token = take.done().unwrap();
        // The releaser was woken for one of the two.
        assert!(poll_with(&mut release, Waker::noop()).is_ready());
        token.forget();
        assert_eq!(numbers(&bucket), [support::MAX, 0, 0, 0]);
    }
}

fn a_panic_of_a_replaced_waker_loses_no_place(fairness: Fairness) {
    struct PanicsOnDrop;
    impl Wake for PanicsOnDrop {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut first = task(bucket.take());
    assert!(poll_with(first.future(), &Waker::from(Arc::new(PanicsOnDrop))).is_pending());
    let mut second = waiting(bucket.take());
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll())).is_err());
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    first.waits();
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first.done().unwrap());
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}
