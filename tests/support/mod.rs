//! Shared by the tests: a future that is polled by hand, with a waker that counts.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use token_bucket::{Fairness, TokenBucket};

/// Counts how often it was woken.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that is polled only when the test says so.
pub struct Task<F> {
    future: F,
    wakes: Arc<Wakes>,
    waker: Waker,
    seen: usize,
}

pub fn task<F: Future + Unpin>(future: F) -> Task<F> {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    Task { future, wakes, waker, seen: 0 }
}

impl<F: Future + Unpin> Task<F> {
    pub fn poll(&mut self) -> Poll<F::Output> {
        self.seen = self.wakes.count();
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&self.waker))
    }

    /// Polls, and requires that the future is pending.
    #[track_caller]
    pub fn waits(&mut self) {
        assert!(self.poll().is_pending(), "ready, but should wait");
    }

    /// Polls, and requires that the future is ready.
    #[track_caller]
    pub fn done(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("pending, but should be done"),
        }
    }

    /// How often it has been woken in total.
    pub fn wakes(&self) -> usize {
        self.wakes.count()
    }

    /// Whether it has been woken since the last poll.
    pub fn is_woken(&self) -> bool {
        self.wakes.count() > self.seen
    }

    pub fn future(&mut self) -> &mut F {
        &mut self.future
    }
}

/// A task that has been polled once and is pending.
#[track_caller]
pub fn waiting<F: Future + Unpin>(future: F) -> Task<F> {
    let mut task = task(future);
    task.waits();
    task
}

/// Makes two tests, `fifo` and `barging`, of each function.
#[allow(unused_macros, reason = "each test file uses a part of this")]
macro_rules! both {
    ($($test:ident,)*) => {$(
        mod $test {
            #[test]
            fn fifo() {
                super::$test(token_bucket::Fairness::Fifo);
            }
            #[test]
            fn barging() {
                super::$test(token_bucket::Fairness::Barging);
            }
        }
    )*};
}
#[allow(unused_imports, reason = "each test file uses a part of this")]
pub(crate) use both;

/// The largest capacity of the buckets of [`bucket`].
pub const MAX: usize = 100;

pub fn bucket(fairness: Fairness, capacity: usize) -> TokenBucket {
    TokenBucket::new(MAX, capacity).unwrap().with_fairness(fairness)
}

/// `[available, outstanding, deficit, waiting]`
pub fn numbers(bucket: &TokenBucket) -> [usize; 4] {
    let now = bucket.snapshot();
    [now.available, now.outstanding, now.deficit, bucket.waiting()]
}

/// What `.ci/chaos` sets for each of its rounds, so that these differ; else 0.
pub fn chaos_seed() -> u64 {
    std::env::var("TOKEN_BUCKET_CHAOS").map_or(0, |seed| seed.parse().expect("TOKEN_BUCKET_CHAOS is a number"))
}

/// Runs a test that would deadlock if it failed.
pub fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        test();
        drop(done);
    });
    // The sender is dropped when the thread ends, even if it panics.
    assert_eq!(ended.recv_timeout(Duration::from_secs(120)), Err(mpsc::RecvTimeoutError::Disconnected), "deadlock");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A new waker, and its counter. The counter's `Arc` shows whether a clone of the waker is left.
pub fn counting_waker() -> (Arc<Wakes>, Waker) {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    (wakes, waker)
}

/// Polls with this waker.
pub fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}
