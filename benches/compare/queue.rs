//! Futures that are polled by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Waiting futures, each in a place that is allocated in advance, so that no allocation of the bench is measured.
pub(crate) struct Queue<F>(Vec<Pin<Box<Option<F>>>>);

impl<F: Future> Queue<F> {
    pub(crate) fn new(places: usize) -> Self {
        Self((0..places).map(|_| Box::pin(None)).collect())
    }

    /// Puts a future in a place. It must wait.
    #[inline]
    pub(crate) fn enter(&mut self, place: usize, future: F, cx: &mut Context<'_>) {
        self.0[place].set(Some(future));
        assert!(self.poll(place, cx).is_pending(), "the future did not wait");
    }

    #[inline]
    pub(crate) fn poll(&mut self, place: usize, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0[place].as_mut().as_pin_mut().expect("a future is in this place").poll(cx)
    }

    /// Drops the future in a place.
    #[inline]
    pub(crate) fn leave(&mut self, place: usize) {
        self.0[place].set(None);
    }

    /// Polls all futures in turn until all are ready.
    pub(crate) fn serve_all(&mut self, cx: &mut Context<'_>, mut served: impl FnMut(F::Output)) {
        let mut left = self.0.len();
        while left > 0 {
            let before = left;
            for place in &mut self.0 {
                let Some(future) = place.as_mut().as_pin_mut() else { continue };
                if let Poll::Ready(output) = future.poll(cx) {
                    place.set(None);
                    served(output);
                    left -= 1;
                }
            }
            assert!(left < before, "no future was served");
        }
    }
}

/// Counts wake-ups, and does nothing else.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker with a reference count, like that of a task.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(Wakes::default()))
}
