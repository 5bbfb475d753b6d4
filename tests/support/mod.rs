//! What the tests share: a future that is polled by hand, with a waker that counts.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

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

    /// Polls, and expects it to wait.
    #[track_caller]
    pub fn waits(&mut self) {
        assert!(self.poll().is_pending(), "ready, but should wait");
    }

    /// Polls, and expects it to be done.
    #[track_caller]
    pub fn done(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("pending, but should be done"),
        }
    }

    /// How often it was woken in all.
    pub fn wakes(&self) -> usize {
        self.wakes.count()
    }

    /// Whether it was woken since it was last polled.
    pub fn is_woken(&self) -> bool {
        self.wakes.count() > self.seen
    }

    pub fn future(&mut self) -> &mut F {
        &mut self.future
    }
}

/// A task that has been polled once, and waits.
#[track_caller]
pub fn waiting<F: Future + Unpin>(future: F) -> Task<F> {
    let mut task = task(future);
    task.waits();
    task
}
