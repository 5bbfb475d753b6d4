//! Blocking waits: a thread polls a future, and parks between polls.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::WaitError;
use crate::sync::{Parker, coop};

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.unpark();
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
    in_time(poll_until(future, deadline))
}

/// The result of a wait with a deadline.
pub(crate) fn in_time<T, E>(result: Option<Result<T, E>>) -> Result<T, WaitError<E>> {
    result.map_or(Err(WaitError::TimedOut), |result| result.map_err(WaitError::Failed))
}

/// Polls `future` until it is ready; `None` if it is not by the deadline.
#[cold]
pub(crate) fn poll_until<F: Future + Unpin>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = coop::unconstrained(future);
    park_until(deadline, |waker| match Pin::new(&mut future).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(output) => ControlFlow::Break(output),
        Poll::Pending => ControlFlow::Continue(None),
    })
}

/// Calls `poll` until it breaks; `None` if it has not by the deadline. In between, parks this thread until it is woken, or until
/// the time that `poll` has returned.
#[cold]
pub(crate) fn park_until<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&Waker) -> ControlFlow<T, Option<Instant>>,
) -> Option<T> {
    let parker = Arc::new(Parker::new());
    let waker = Waker::from(Arc::clone(&parker));
    loop {
        let alarm = match poll(&waker) {
            ControlFlow::Break(output) => return Some(output),
            ControlFlow::Continue(alarm) => alarm,
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        parker.park([alarm, deadline].into_iter().flatten().min());
    }
}

#[cfg(test)]
mod tests {
    use core::future;
    use core::time::Duration;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// A poll may run the waker of another waiter, which may park, and so use up the unpark of this thread.
    #[test]
    fn a_poll_that_parks_does_not_hide_that_the_thread_was_woken() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut polls = 0;
            block_on(future::poll_fn(|cx| {
                polls += 1;
                if polls < 4 {
                    cx.waker().wake_by_ref();
                    thread::park();
                    return Poll::Pending;
                }
                Poll::Ready(())
            }));
            done.send(polls).unwrap();
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(4));
    }
}
