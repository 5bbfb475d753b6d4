//! Blocking waits: a thread polls a future, and parks between polls.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::WaitError;
use crate::sync::coop;
use crate::sync::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` until it is ready.
#[cold]
pub(crate) fn block_on<F: Future + Unpin>(future: F) -> F::Output {
    match poll_until(future, None) {
        Some(output) => output,
        None => unreachable!("there is no deadline"),
    }
}

/// Polls a future of a result until it is ready, or until the deadline.
#[cold]
pub(crate) fn block_until<T, E, F>(future: F, deadline: Option<Instant>) -> Result<T, WaitError<E>>
where
    F: Future<Output = Result<T, E>> + Unpin,
{
    match poll_until(future, deadline) {
        Some(result) => result.map_err(WaitError::Failed),
        None => Err(WaitError::TimedOut),
    }
}

/// Polls `future` until it is ready; `None` if it is not by the deadline.
///
/// A pending poll ends with a check whether it has been served. So an unpark before that check may be lost (to a waker that parks),
/// and one after it is not lost.
#[cold]
pub(crate) fn poll_until<F: Future + Unpin>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = coop::unconstrained(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut cx) {
            return Some(output);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        thread::park(deadline);
    }
}
