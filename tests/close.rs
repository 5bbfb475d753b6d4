//! Closing a bucket, and what its errors say.

mod support;

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use support::{MAX, Task, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};
use token_bucket::{
    CapacityError, Closed, Fairness, ReleaseError, SetCapacityError, TakeError, TokenBucket, TryReleaseError, TryTakeError,
    WaitError,
};

both! {
    close_returns_true_for_the_call_that_closed,
    the_first_close_gives_the_cause,
    every_waiter_is_woken_and_gets_the_cause,
    releasers_are_woken_and_get_the_cause,
    takers_and_releasers_are_woken_at_once,
    a_granted_waiter_keeps_its_token,
    a_waiter_that_was_woken_is_not_woken_again,
    a_future_that_was_not_polled_before_gets_the_cause,
    a_waiter_of_a_closed_bucket_can_be_dropped_unpolled,
    nothing_succeeds_after_the_close_and_nothing_changes,
    a_request_for_zero_is_refused_when_the_bucket_is_closed,
    tokens_come_back_to_a_closed_bucket,
    b17_nothing_reopens_a_closed_bucket,
    a_paused_bucket_can_be_closed,
    blocked_threads_are_woken,
    one_of_many_threads_closes_and_gives_the_cause,
    no_taker_hangs_while_another_thread_closes,
    a_waiter_that_comes_between_a_return_and_the_close_is_woken,
    a_close_ends_woken_waiters_that_have_not_answered,
    b18_a_waker_may_call_the_bucket_when_it_is_woken,
    b18_a_waker_may_call_the_bucket_when_it_is_dropped,
    b18_a_waker_may_drop_another_waiter,
    a_waker_that_panics_leaves_no_waiter_asleep,
}

#[derive(Debug, PartialEq)]
struct Cause(usize);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cause {}", self.0)
    }
}

impl Error for Cause {}

/// Returns the number of the cause, if the error has one.
fn cause(error: &dyn Error) -> Option<usize> {
    error.source().map(|cause| cause.downcast_ref::<Cause>().expect("the cause is a `Cause`").0)
}

fn closed<T: fmt::Debug>(result: Result<T, TakeError>) -> Closed {
    match result {
        Err(TakeError::Closed(closed)) => closed,
        other => panic!("not closed, but {other:?}"),
    }
}

fn close_returns_true_for_the_call_that_closed(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    assert!(!bucket.is_closed());
    assert!(!bucket.snapshot().closed);
    assert!(bucket.close());
    assert!(!bucket.close());
    assert!(!bucket.close_with("too late"));
    assert!(bucket.is_closed());
    let now = bucket.snapshot();
    assert!(now.closed);
    assert_eq!((now.capacity, now.available), (3, 3));
    assert!(format!("{bucket:?}").contains("closed: true"), "{bucket:?}");
}

fn the_first_close_gives_the_cause(fairness: Fairness) {
    let with = bucket(fairness, 3);
    assert!(with.close_with(Cause(7)));
    assert!(!with.close_with(Cause(8)));
    assert!(!with.close());
    let error = with.try_take().unwrap_err();
    assert_eq!(cause(&error), Some(7));
    assert_eq!(error.to_string(), "token bucket is closed: cause 7");

    let without = bucket(fairness, 3);
    assert!(without.close());
    assert!(!without.close_with(Cause(8)));
    let error = without.try_take().unwrap_err();
    assert_eq!(cause(&error), None);
    assert_eq!(error.to_string(), "token bucket is closed");

    let text = bucket(fairness, 3);
    assert!(text.close_with("shutting down"));
    let error = text.try_take().unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "shutting down");
    assert_eq!(error.to_string(), "token bucket is closed: shutting down");
}

/// The head of the queue, the waiters behind it, and a deferred request.
fn every_waiter_is_woken_and_gets_the_cause(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 4));
    let token = bucket.try_take_many(3).unwrap();
    let mut owned = [waiting(bucket.take_many_owned(7))];
    let mut takes = [
        waiting(bucket.take_many(5)),
        waiting(bucket.take_many(3)),
        waiting(bucket.take_many(2)),
        waiting(bucket.take_many(MAX)),
        waiting(bucket.take_many(3)),
    ];
    assert_eq!(numbers(&bucket), [1, 3, 0, 6]);

    assert!(bucket.close_with(Cause(1)));
    assert_eq!(takes.each_ref().map(Task::wakes), [1; 5]);
    assert_eq!(owned.each_ref().map(Task::wakes), [1]);
    assert_eq!(numbers(&bucket), [1, 3, 0, 0]);
    for take in &mut takes {
        let error = closed(take.done());
        assert_eq!(cause(&error), Some(1));
        assert_eq!(error.to_string(), "token bucket is closed: cause 1");
    }
    assert_eq!(cause(&closed(owned[0].done())), Some(1));
    drop(token);
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

fn releasers_are_woken_and_get_the_cause(fairness: Fairness) {
    let bucket = bucket(fairness, MAX);
    let mut releases = [waiting(bucket.release()), waiting(bucket.release()), waiting(bucket.release())];
    assert!(bucket.close_with(Cause(2)));
    assert_eq!(releases.each_ref().map(Task::wakes), [1; 3]);
    for release in &mut releases {
        let ReleaseError::Closed(closed) = release.done().unwrap_err() else { panic!("not closed") };
        assert_eq!(cause(&closed), Some(2));
    }
    assert_eq!(bucket.available(), MAX);
}

fn takers_and_releasers_are_woken_at_once(fairness: Fairness) {
    let bucket = bucket(fairness, MAX);
    let mut first = waiting(bucket.release());
    let mut second = waiting(bucket.release());
    let tokens = bucket.try_take_many(MAX).unwrap();
    let mut take = waiting(bucket.take());
    // There is room for both releasers.
    assert_eq!([first.wakes(), second.wakes(), take.wakes()], [1, 1, 0]);

    bucket.close();
    assert_eq!([first.wakes(), second.wakes(), take.wakes()], [1, 1, 1]);
    assert!(matches!(first.done(), Err(ReleaseError::Closed(_))), "a closed bucket refuses the release of a woken releaser, too");
    assert!(matches!(second.done(), Err(ReleaseError::Closed(_))));
    closed(take.done());
    drop(tokens);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

fn a_granted_waiter_keeps_its_token(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let tokens = bucket.try_take_many(2).unwrap();
    let mut polled = waiting(bucket.take());
    let dropped = waiting(bucket.take());
    drop(tokens);
    let granted = usize::from(fairness == Fairness::Fifo);
    assert_eq!(bucket.available(), 2 - 2 * granted);

    bucket.close();
    drop(dropped);
    assert_eq!(bucket.available(), 2 - granted, "its granted token was returned");
    match polled.done() {
        Ok(token) => assert_eq!((token.count(), granted), (1, 1)),
        // It was only woken to try for itself.
        Err(error) => assert_eq!((error.to_string(), granted), ("token bucket is closed".into(), 0)),
    }
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_waiter_that_was_woken_is_not_woken_again(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut take = waiting(bucket.take());
    drop(token);
    assert_eq!(take.wakes(), 1);
    bucket.close();
    bucket.close();
    assert_eq!(take.wakes(), 1);
    drop(take.done());
    assert_eq!(take.wakes(), 1);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn a_future_that_was_not_polled_before_gets_the_cause(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let (mut take, mut owned, mut release) = (task(bucket.take()), task(bucket.take_owned()), task(bucket.release()));
    bucket.close_with(Cause(3));
    assert_eq!(cause(&closed(take.done())), Some(3));
    assert_eq!(cause(&closed(owned.done())), Some(3));
    assert_eq!(cause(&release.done().unwrap_err()), Some(3));
    assert_eq!([take.wakes(), owned.wakes(), release.wakes()], [0; 3]);
}

fn a_waiter_of_a_closed_bucket_can_be_dropped_unpolled(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let takes = [waiting(bucket.take()), waiting(bucket.take_many(2)), waiting(bucket.take())];
    bucket.close();
    drop(takes);
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    drop(token);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn nothing_succeeds_after_the_close_and_nothing_changes(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 3));
    let token = bucket.try_take().unwrap();
    bucket.close_with(Cause(4));
    let before = bucket.snapshot();

    for n in [1, 2, 3, 4, MAX] {
        let (taken, owned) = (bucket.try_take_many(n).unwrap_err(), bucket.try_take_many_owned(n).unwrap_err());
        assert!(matches!((&taken, &owned), (TryTakeError::Closed(_), TryTakeError::Closed(_))), "{n}: {taken:?}, {owned:?}");
        assert!(matches!(bucket.try_take_up_to(n), Err(TryTakeError::Closed(_))), "{n}");
        assert_eq!(cause(&closed(task(bucket.take_many(n)).done())), Some(4));
        assert_eq!(cause(&closed(task(bucket.take_many_owned(n)).done())), Some(4));
        assert_eq!(cause(&closed(bucket.take_many(n).wait())), Some(4));
        let released = bucket.try_release_many(n).unwrap_err();
        assert!(matches!(released, TryReleaseError::Closed(_)), "{n}: {released:?}");
        assert_eq!(cause(&released), Some(4));
        let resized = bucket.set_capacity(n).unwrap_err();
        assert!(matches!(resized, SetCapacityError::Closed(_)), "{n}: {resized:?}");
        assert_eq!(cause(&resized), Some(4));
    }
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_owned(), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_release(), Err(TryReleaseError::Closed(_))));
    assert!(matches!(bucket.take_owned().wait_timeout(Duration::ZERO), Err(WaitError::Failed(TakeError::Closed(_)))));
    assert!(matches!(bucket.release().wait(), Err(ReleaseError::Closed(_))));
    assert!(matches!(bucket.release().wait_timeout(Duration::ZERO), Err(WaitError::Failed(ReleaseError::Closed(_)))));
    assert_eq!(bucket.snapshot(), before);

    // An impossible request is an error in either case.
    for n in [MAX + 1, usize::MAX] {
        assert!(bucket.try_take_many(n).is_err());
        assert!(task(bucket.take_many(n)).done().is_err());
        assert!(bucket.try_release_many(n).is_err());
        assert!(bucket.set_capacity(n).is_err());
        assert!(bucket.try_take_up_to(n).is_err());
    }
    assert_eq!(bucket.snapshot(), before);
    drop(token);
    assert_eq!(bucket.available(), 3);
}

fn a_request_for_zero_is_refused_when_the_bucket_is_closed(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 3));
    bucket.close();
    assert!(matches!(bucket.try_take_many(0), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_many_owned(0), Err(TryTakeError::Closed(_))));
    assert!(matches!(bucket.try_take_up_to(0), Err(TryTakeError::Closed(_))));
    closed(task(bucket.take_many(0)).done());
    closed(task(bucket.take_many_owned(0)).done());
    closed(bucket.take_many(0).wait());
    assert!(matches!(bucket.try_release_many(0), Err(TryReleaseError::Closed(_))));
    assert!(matches!(bucket.set_capacity(3), Err(SetCapacityError::Closed(_))), "not even to the same capacity");
    assert_eq!(bucket.refill(0), 0);
}

fn tokens_come_back_to_a_closed_bucket(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 5));
    let mut tokens = bucket.try_take_many(3).unwrap();
    let owned = bucket.try_take_many_owned(2).unwrap();
    bucket.set_capacity(4).unwrap();
    bucket.close();
    assert_eq!(numbers(&bucket), [0, 5, 1, 0]);
    let one = tokens.split(1).unwrap();
    drop(one);
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    drop(tokens);
    assert_eq!(numbers(&bucket), [2, 2, 0, 0]);
    owned.forget();
    assert_eq!(bucket.refill(1), 1, "a refill counts as tokens that come back");
    assert_eq!(numbers(&bucket), [3, 1, 0, 0]);
    assert_eq!(bucket.refill(usize::MAX), MAX - 3);
    assert_eq!(numbers(&bucket), [MAX, 0, 0, 0]);
}

/// In tokio, forgetting permits of a closed semaphore reopened it, because the flag was part of the count.
fn b17_nothing_reopens_a_closed_bucket(fairness: Fairness) {
    for capacity in [0, 1, 5, MAX] {
        let bucket = Arc::new(bucket(fairness, capacity));
        let mut tokens = bucket.try_take_many_owned(capacity).unwrap();
        let others = [tokens.split(0).unwrap(), tokens.split(capacity / 2).unwrap()];
        let taker = waiting(bucket.take());
        bucket.close();

        let acts: [fn(&TokenBucket); 12] = [
            |bucket| drop(bucket.set_capacity(0)),
            |bucket| drop(bucket.set_capacity(MAX)),
            |bucket| drop(bucket.set_capacity(usize::MAX)),
            |bucket| drop(bucket.try_take_up_to(usize::MAX)),
            |bucket| drop(bucket.try_release()),
            |bucket| drop(bucket.try_release_many(MAX)),
            |bucket| drop(task(bucket.take()).poll()),
            |bucket| drop(task(bucket.release()).poll()),
            |bucket| drop(bucket.take().wait()),
            |bucket| {
                bucket.close();
            },
            |bucket| {
                bucket.refill(1);
            },
            |bucket| {
                bucket.refill(usize::MAX);
            },
        ];
        let check = |at: usize| {
            assert!(bucket.is_closed(), "{at}");
            assert!(bucket.snapshot().closed, "{at}");
            assert!(matches!(bucket.try_take(), Err(TryTakeError::Closed(_))), "{at}");
            assert_eq!(bucket.capacity(), capacity, "{at}");
        };
        for (at, act) in acts.iter().enumerate() {
            act(&bucket);
            check(at);
        }
        let [none, half] = others;
        none.forget();
        half.forget();
        check(100);
        drop(tokens);
        check(101);
        drop(taker);
        check(102);
    }
}

fn a_paused_bucket_can_be_closed(fairness: Fairness) {
    let bucket = bucket(fairness, 0);
    let mut takes = [waiting(bucket.take()), waiting(bucket.take_many(2))];
    bucket.close();
    for take in &mut takes {
        closed(take.done());
    }
}

fn blocked_threads_are_woken(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 1));
        let full = support::bucket(fairness, MAX);
        let token = bucket.try_take().unwrap();
        thread::scope(|scope| {
            let mut threads = vec![
                scope.spawn(|| cause(&closed(bucket.take().wait()))),
                scope.spawn(|| cause(&closed(bucket.take_many(2).wait()))),
                scope.spawn(|| cause(&closed(bucket.take_owned().wait()))),
                scope.spawn(|| match bucket.take().wait_timeout(Duration::from_secs(600)) {
                    Err(WaitError::Failed(error)) => cause(&error),
                    other => panic!("{other:?}"),
                }),
            ];
            while bucket.waiting() < threads.len() {
                thread::yield_now();
            }
            // These are not counted: they find the bucket full or closed, and get the same cause.
            threads.push(scope.spawn(|| cause(&full.release().wait().unwrap_err())));
            threads.push(scope.spawn(|| match full.release().wait_timeout(Duration::from_secs(600)) {
                Err(WaitError::Failed(error)) => cause(&error),
                other => panic!("{other:?}"),
            }));
            assert!(bucket.close_with(Cause(5)));
            assert!(full.close_with(Cause(5)));
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Some(5));
            }
        });
        assert_eq!(bucket.waiting(), 0);
        drop(token);
        assert_eq!(bucket.available(), 1);
    });
}

fn one_of_many_threads_closes_and_gives_the_cause(fairness: Fairness) {
    // Many threads at a time, and two at a time, which collide more often.
    for (threads, round) in (0..20).map(|round| (8, round)).chain((0..500).map(|round| (2, round))) {
        let bucket = bucket(fairness, 1);
        let token = bucket.try_take().unwrap();
        let mut take = waiting(bucket.take());
        let arrived = AtomicUsize::new(0);
        let close = |number| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < threads {
                thread::yield_now();
            }
            // One of the threads gives no cause.
            let is_first = if number == 0 { bucket.close() } else { bucket.close_with(Cause(number)) };
            // Whichever thread closed it, the bucket is closed now, and every thread gets the same cause.
            assert!(bucket.is_closed(), "{round}");
            (is_first, cause(&bucket.try_take().unwrap_err()).unwrap_or(0), number)
        };
        let winners: Vec<_> = thread::scope(|scope| {
            let close = &close;
            let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || close(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first: Vec<_> = winners.iter().filter(|(is_first, ..)| *is_first).map(|&(.., number)| number).collect();
        assert_eq!(first.len(), 1, "{winners:?}");
        assert!(winners.iter().all(|&(_, given, _)| given == first[0]), "{winners:?}");
        assert_eq!(cause(&closed(take.done())).unwrap_or(0), first[0]);
        assert_eq!(take.wakes(), 1);
        drop(token);
    }
}

fn no_taker_hangs_while_another_thread_closes(fairness: Fairness) {
    in_time(move || {
        for round in 0..100 {
            let bucket = bucket(fairness, 2);
            let barrier = Barrier::new(5);
            let taken = AtomicUsize::new(0);
            thread::scope(|scope| {
                for n in [1, 2, 3, 1] {
                    let (bucket, barrier, taken) = (&bucket, &barrier, &taken);
                    scope.spawn(move || {
                        barrier.wait();
                        while let Ok(token) = bucket.take_many(n).wait() {
                            taken.fetch_add(token.count(), Ordering::Relaxed);
                        }
                    });
                }
                barrier.wait();
                while taken.load(Ordering::Relaxed) < round % 10 {
                    thread::yield_now();
                }
                assert!(bucket.close());
            });
            assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
        }
    });
}

/// The owner of the queue is about to grant the returned token, and finds the bucket closed instead.
fn a_waiter_that_comes_between_a_return_and_the_close_is_woken(fairness: Fairness) {
    in_time(move || {
        const ROUNDS: usize = 5_000;
        let buckets: Vec<_> = (0..ROUNDS).map(|_| bucket(fairness, 1)).collect();
        let round = AtomicUsize::new(0);
        // No barrier: it would take longer than the race that it starts.
        let reach = |n| {
            let mut spins = 0;
            while round.load(Ordering::SeqCst) < n {
                spins += 1;
                if spins % 1000 == 0 {
                    thread::yield_now();
                }
                std::hint::spin_loop();
            }
        };
        let delay = |spins| (0..spins).for_each(|_| std::hint::spin_loop());
        let mut asleep = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                for (i, bucket) in buckets.iter().enumerate() {
                    let token = bucket.try_take().unwrap();
                    round.fetch_add(1, Ordering::SeqCst);
                    reach(3 * i + 2);
                    delay(i % 101);
                    drop(token);
                    bucket.close();
                    round.fetch_add(1, Ordering::SeqCst);
                    reach(3 * i + 3);
                }
            });
            for (i, bucket) in buckets.iter().enumerate() {
                let mut take = task(bucket.take());
                reach(3 * i + 1);
                round.fetch_add(1, Ordering::SeqCst);
                delay(i % 37);
                let polled = take.poll();
                reach(3 * i + 3);
                match polled {
                    Poll::Ready(result) => drop(result),
                    Poll::Pending if take.is_woken() => drop(take.done()),
                    Poll::Pending => asleep += 1,
                }
                drop(take);
                assert_eq!(numbers(bucket), [1, 0, 0, 0]);
            }
        });
        assert_eq!(asleep, 0, "waiters left asleep in a closed bucket");
    });
}

/// A waiter that was woken to try for itself stays queued until it answers; a close ends that.
fn a_close_ends_woken_waiters_that_have_not_answered(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let held = bucket.try_take_many(2).unwrap();
    let mut takes = [waiting(bucket.take()), waiting(bucket.take()), waiting(bucket.take())];
    drop(held);
    let granted = if fairness == Fairness::Fifo { 2 } else { 0 };
    assert_eq!(takes.each_ref().map(Task::wakes), [1, 1, 0]);
    assert_eq!(bucket.waiting(), 3 - granted);
    bucket.close();
    assert_eq!(takes.each_ref().map(Task::wakes), [1, 1, 1]);
    assert_eq!(bucket.waiting(), 0, "no waiter is queued in a closed bucket");
    for (i, take) in takes.iter_mut().enumerate() {
        assert_eq!(take.done().is_ok(), i < granted);
    }
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// Calls a function once, when woken or when dropped.
struct Callback<F: Fn() + Send + Sync + 'static> {
    on_wake: bool,
    called: AtomicBool,
    call: F,
}

impl<F: Fn() + Send + Sync + 'static> Callback<F> {
    fn waker(on_wake: bool, call: F) -> Waker {
        Waker::from(Arc::new(Self { on_wake, called: AtomicBool::new(false), call }))
    }

    fn call(&self) {
        if !self.called.swap(true, Ordering::SeqCst) {
            (self.call)();
        }
    }
}

impl<F: Fn() + Send + Sync + 'static> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.on_wake {
            self.call();
        }
    }
}

impl<F: Fn() + Send + Sync + 'static> Drop for Callback<F> {
    fn drop(&mut self) {
        if !self.on_wake {
            self.call();
        }
    }
}

type Act = fn(&Arc<TokenBucket>);

/// Everything that a waker may do to the bucket that runs it.
const ACTS: [(&str, Act); 12] = [
    ("look", |bucket| drop(format!("{bucket:?} {:?} {}", bucket.snapshot(), bucket.waiting()))),
    ("try_take", |bucket| drop(bucket.try_take_owned())),
    ("try_take_up_to", |bucket| drop(bucket.try_take_up_to(MAX))),
    ("try_release", |bucket| drop(bucket.try_release())),
    ("refill", |bucket| {
        bucket.refill(2);
    }),
    ("pause", |bucket| drop(bucket.set_capacity(0))),
    ("grow", |bucket| drop(bucket.set_capacity(MAX))),
    ("take", |bucket| drop(waiting_or_done(bucket.take_many_owned(2)))),
    ("take too much", |bucket| drop(waiting_or_done(bucket.take_many_owned(MAX)))),
    ("release", |bucket| drop(waiting_or_done(bucket.release()))),
    ("close", |bucket| {
        bucket.close();
    }),
    ("close_with", |bucket| {
        bucket.close_with("from a waker");
    }),
];

fn waiting_or_done<F: Future + Unpin>(future: F) -> Task<F> {
    let mut task = task(future);
    drop(task.poll());
    task
}

/// The calls that wake the waiters of a bucket.
const WAKES: [(&str, Act); 4] = [
    ("close", |bucket| {
        bucket.close();
    }),
    ("growth", |bucket| drop(bucket.set_capacity(4))),
    ("refill", |bucket| {
        bucket.refill(2);
    }),
    ("release", |bucket| bucket.try_release().unwrap()),
];

/// tokio's close woke waiters under its lock, as event-listener and futures-intrusive do with every wake: a deadlock.
fn b18_a_waker_may_call_the_bucket_when_it_is_woken(fairness: Fairness) {
    for (wake, what) in WAKES {
        for (name, act) in ACTS {
            in_time(move || {
                let bucket = Arc::new(bucket(fairness, 0));
                let calls = Arc::new(AtomicUsize::new(0));
                let mut takes = [bucket.take_owned(), bucket.take_owned(), bucket.take_many_owned(2)];
                for take in &mut takes {
                    let (bucket, calls) = (Arc::clone(&bucket), Arc::clone(&calls));
                    let waker = Callback::waker(true, move || {
                        calls.fetch_add(1, Ordering::SeqCst);
                        act(&bucket);
                    });
                    assert!(poll_with(take, &waker).is_pending());
                }
                what(&bucket);
                assert!(calls.load(Ordering::SeqCst) > 0, "{name} when woken by {wake}");
                // No waiter is left behind: at the latest, the close ends the wait.
                bucket.close();
                for mut take in takes {
                    assert!(poll_with(&mut take, Waker::noop()).is_ready(), "{name} when woken by {wake}");
                }
                assert_eq!(bucket.waiting(), 0, "{name} when woken by {wake}");
            });
        }
    }
}

/// A waker that is replaced or no longer needed is dropped: once under a lock in tokio, still so in event-listener.
fn b18_a_waker_may_call_the_bucket_when_it_is_dropped(fairness: Fairness) {
    for (name, act) in ACTS {
        in_time(move || {
            let bucket = Arc::new(bucket(fairness, 0));
            let full = Arc::new(support::bucket(fairness, MAX));
            let calls = Arc::new(AtomicUsize::new(0));
            let waker = |of: &Arc<TokenBucket>| {
                let (bucket, calls) = (Arc::clone(of), Arc::clone(&calls));
                Callback::waker(false, move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    act(&bucket);
                })
            };
            // A call may wake another waiter, whose waker is then dropped.
            let is_called = |times, when| assert!(calls.load(Ordering::SeqCst) >= times, "{name} when {when}");

            let [mut replaced, mut cancelled, mut dismissed] = [bucket.take_owned(), bucket.take_owned(), bucket.take_owned()];
            for take in [&mut replaced, &mut cancelled, &mut dismissed] {
                assert!(poll_with(take, &waker(&bucket)).is_pending());
            }
            let mut release = full.release();
            assert!(poll_with(&mut release, &waker(&full)).is_pending());
            assert_eq!(calls.load(Ordering::SeqCst), 0, "{name}");
            drop(poll_with(&mut replaced, Waker::noop()));
            is_called(1, "replaced");
            drop(cancelled);
            is_called(2, "cancelled");
            bucket.close();
            drop(dismissed);
            is_called(3, "dismissed");
            full.close();
            drop(release);
            is_called(4, "released");
            drop(replaced);
            assert_eq!(calls.load(Ordering::SeqCst), 4, "{name}");
            assert_eq!(bucket.waiting(), 0);
        });
    }
}

fn b18_a_waker_may_drop_another_waiter(fairness: Fairness) {
    for (wake, what) in WAKES {
        for victim in 0..4 {
            in_time(move || {
                let bucket = Arc::new(bucket(fairness, 0));
                let takes: Vec<_> = (0..4).map(|_| Arc::new(Mutex::new(Some(bucket.take_owned())))).collect();
                for take in &takes {
                    let victim = Arc::clone(&takes[victim]);
                    let waker = Callback::waker(true, move || {
                        // Taken out first: its drop may run a waker, perhaps this one.
                        let take = victim.lock().unwrap().take();
                        drop(take);
                    });
                    assert!(poll_with(take.lock().unwrap().as_mut().unwrap(), &waker).is_pending());
                }
                what(&bucket);
                assert!(takes[victim].lock().unwrap().is_none(), "{victim} when woken by {wake}");
                // The remaining waiters have the tokens.
                let mut tokens = Vec::new();
                for take in takes {
                    let take = take.lock().unwrap().take();
                    if let Some(mut take) = take {
                        if let std::task::Poll::Ready(Ok(token)) = poll_with(&mut take, Waker::noop()) {
                            tokens.push(token);
                        }
                    }
                }
                let expected = match wake {
                    "close" => 0,
                    "growth" => 3,
                    "refill" => 2,
                    _ => 1,
                };
                assert_eq!(tokens.len(), expected, "{victim} when woken by {wake}");
                assert_eq!(bucket.waiting(), 0);
            });
        }
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

/// Waiters that are woken after it are woken all the same, and no token is lost.
fn a_waker_that_panics_leaves_no_waiter_asleep(fairness: Fairness) {
    for (wake, what) in WAKES {
        for at in 0..4 {
            let bucket = Arc::new(bucket(fairness, 0));
            let mut takes: Vec<_> = (0..4).map(|_| bucket.take_owned()).collect();
            let (wakes, counting) = counting_waker();
            for (number, take) in takes.iter_mut().enumerate() {
                let waker = if number == at { Waker::from(Arc::new(Panics)) } else { counting.clone() };
                assert!(poll_with(take, &waker).is_pending());
            }
            let panicked = catch_unwind(AssertUnwindSafe(|| what(&bucket))).is_err();
            let notified = match wake {
                "close" | "growth" => 4,
                "refill" => 2,
                _ => 1,
            };
            if fairness == Fairness::Fifo || wake == "close" {
                assert_eq!(panicked, at < notified, "{at}, {wake}");
                assert_eq!(wakes.count(), notified - usize::from(panicked), "{at}, {wake}");
            }
            // In a barging bucket, which wakes waiters one after another, every waiter that can be served proceeds, too.
            let mut tokens = Vec::new();
            for take in &mut takes {
                let polled = catch_unwind(AssertUnwindSafe(|| poll_with(take, &counting)));
                if let Ok(std::task::Poll::Ready(Ok(token))) = polled {
                    tokens.push(token);
                }
            }
            if fairness == Fairness::Fifo {
                assert_eq!(tokens.len(), if wake == "close" { 0 } else { notified }, "{at}, {wake}");
            }
            let granted = tokens.len();
            drop(takes);
            assert_eq!(bucket.outstanding(), if wake == "growth" { granted } else { 0 }, "{at}, {wake}");
            drop(tokens);
            let back = match wake {
                "growth" => 4,
                "refill" => 2,
                "release" => 1,
                _ => 0,
            };
            assert_eq!(numbers(&bucket), [back, 0, 0, 0], "{at}, {wake}");
        }
    }
}

fn assert_error<E: Error + Clone + fmt::Debug + fmt::Display + Send + Sync + 'static>(error: &E, text: &str) {
    assert_eq!(error.to_string(), text);
    let copy = error.clone();
    assert_eq!(copy.to_string(), text);
    assert_eq!(format!("{copy:?}"), format!("{error:?}"));
    assert!(!text.ends_with('.'), "{text}");
    assert!(text.starts_with(char::is_lowercase), "{text}");
}

#[test]
fn errors_say_what_was_wrong_with_the_numbers() {
    assert_error(&TokenBucket::new(0, 0).unwrap_err(), "max_capacity is 0, but a bucket must be able to hold a token");
    assert_error(
        &TokenBucket::new(TokenBucket::MAX_CAPACITY + 1, 0).unwrap_err(),
        "max_capacity 268435456 is above the limit of 268435455",
    );
    assert_error(&TokenBucket::new(10, 11).unwrap_err(), "initial capacity 11 is above max_capacity 10");

    let bucket = TokenBucket::new(10, 10).unwrap();
    let text = "request for 11 tokens is above the bucket's max_capacity of 10";
    assert_error(&bucket.try_take_many(11).unwrap_err(), text);
    assert_error(&bucket.take_many(11).wait().unwrap_err(), text);
    assert_error(&bucket.take_many(11).wait_timeout(Duration::ZERO).unwrap_err(), text);
    assert_error(&bucket.try_release_many(12).unwrap_err(), "release of 12 tokens is above the bucket's max_capacity of 10");
    assert_error(&bucket.set_capacity(13).unwrap_err(), "capacity 13 is above the bucket's max_capacity of 10");
    assert_error(&bucket.try_release().unwrap_err(), "not enough room is left");
    bucket.try_take_many(10).unwrap().forget();
    assert_error(&bucket.try_take().unwrap_err(), "not enough tokens are available");
    assert_error(&bucket.take().wait_timeout(Duration::ZERO).unwrap_err(), "the wait timed out");
    assert!(bucket.take().wait_timeout(Duration::ZERO).unwrap_err().source().is_none());
    assert!(bucket.try_take().unwrap_err().source().is_none());
}

#[test]
fn errors_say_that_the_bucket_is_closed_and_why() {
    for why in [None, Some(Cause(6))] {
        let bucket = TokenBucket::new(10, 10).unwrap();
        let (text, number) = match why {
            None => ("token bucket is closed", None),
            Some(_) => ("token bucket is closed: cause 6", Some(6)),
        };
        match why {
            None => bucket.close(),
            Some(why) => bucket.close_with(why),
        };
        let error = bucket.try_take().unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        let TryTakeError::Closed(closed) = error else { panic!("{error:?}") };
        assert_error(&closed, text);
        assert_eq!(cause(&closed), number);
        assert_eq!(cause(&closed.clone()), number, "a clone has the cause, too");

        let error = bucket.take().wait().unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        assert_eq!(cause(&TryTakeError::from(error)), number);
        let error = bucket.take().wait_timeout(Duration::ZERO).unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        let error = bucket.try_release().unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        let error = bucket.release().wait().unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        let error = bucket.release().wait_timeout(Duration::ZERO).unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
        let error = bucket.set_capacity(1).unwrap_err();
        assert_error(&error, text);
        assert_eq!(cause(&error), number);
    }
}

#[test]
fn the_numbers_of_an_error_can_be_matched() {
    assert_eq!(TokenBucket::new(0, 0).unwrap_err(), CapacityError::MaxIsZero);
    assert_eq!(
        TokenBucket::new(usize::MAX, 1).unwrap_err(),
        CapacityError::MaxTooLarge { max_capacity: usize::MAX, limit: TokenBucket::MAX_CAPACITY }
    );
    assert_eq!(TokenBucket::new(3, 4).unwrap_err(), CapacityError::InitialExceedsMax { initial: 4, max_capacity: 3 });

    let bucket = TokenBucket::new(3, 3).unwrap();
    for n in [4, TokenBucket::MAX_CAPACITY, usize::try_from(1_u64 << 32).unwrap_or(usize::MAX), usize::MAX] {
        assert!(matches!(bucket.try_take_many(n), Err(TryTakeError::ExceedsMax { requested, max_capacity: 3 }) if requested == n));
        assert!(matches!(bucket.take_many(n).wait(), Err(TakeError::ExceedsMax { requested, max_capacity: 3 }) if requested == n));
        assert!(
            matches!(bucket.try_release_many(n), Err(TryReleaseError::ExceedsMax { requested, max_capacity: 3 }) if requested == n)
        );
        assert!(
            matches!(bucket.set_capacity(n), Err(SetCapacityError::OutOfRange { requested, max_capacity: 3 }) if requested == n)
        );
    }
}

#[derive(Debug)]
struct Held(#[expect(dead_code, reason = "only its life counts")] Arc<()>);
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("held")
    }
}
impl Error for Held {}

#[test]
fn a_cause_outlives_its_bucket_and_is_dropped_with_the_last_error() {
    let cause = Arc::new(());
    let bucket = TokenBucket::new(1, 1).unwrap();
    assert!(bucket.close_with(Held(Arc::clone(&cause))));
    assert!(!bucket.close_with(Held(Arc::clone(&cause))));
    assert_eq!(Arc::strong_count(&cause), 2, "the second cause is not kept");
    let error = bucket.try_take().unwrap_err();
    drop(bucket);
    assert_eq!(error.source().unwrap().to_string(), "held");
    assert_eq!(Arc::strong_count(&cause), 2);
    drop(error);
    assert_eq!(Arc::strong_count(&cause), 1);
}
