//! Waiting with a thread: a future, polled by a thread that parks in between.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::sync::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` until it is ready; `None` if it is not at the deadline.
///
/// The last thing that a pending poll does is to look whether it has been served, so an unpark that came before that
/// may be lost (to a waker that parks), and one that comes after it is not.
#[cold]
pub(crate) fn block_on<F: Future + Unpin>(mut future: F, deadline: Option<Instant>) -> Option<F::Output> {
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

/// Gives a future its three blocking forms. `$now` tries to complete it without waiting.
macro_rules! waits {
    ($future:ident [$($lifetime:lifetime)?], $output:ty, $error:ty, |$this:ident| $now:expr) => {
        impl$(<$lifetime>)? $future$(<$lifetime>)? {
            /// Blocks this thread until the future is ready.
            ///
            /// Blocked threads and tasks wait in one line. Do not call this from within an async task: the thread could
            /// be the one that has to run whoever will give a token back.
            ///
            /// # Errors
            ///
            /// The future's own.
            ///
            /// # Panics
            ///
            /// If the future has completed before.
            #[inline]
            pub fn wait(mut self) -> Result<$output, $error> {
                let $this = &mut self;
                if let Some(result) = $now {
                    return result;
                }
                match crate::block::block_on(self, None) {
                    Some(result) => result,
                    None => unreachable!("without a deadline there is no end"),
                }
            }

            /// Blocks this thread until the future is ready, but no longer than `timeout`. One that is too long to be
            /// told from for ever waits for ever.
            ///
            /// # Errors
            ///
            /// [`WaitError::TimedOut`](crate::WaitError::TimedOut), and the future's own as
            /// [`WaitError::Failed`](crate::WaitError::Failed).
            ///
            /// # Panics
            ///
            /// If the future has completed before.
            #[inline]
            pub fn wait_timeout(self, timeout: core::time::Duration) -> Result<$output, crate::WaitError<$error>> {
                match std::time::Instant::now().checked_add(timeout) {
                    Some(deadline) => self.wait_deadline(deadline),
                    None => self.wait().map_err(crate::WaitError::Failed),
                }
            }

            /// Blocks this thread until the future is ready, but no longer than to the `deadline`. What can be had
            /// without waiting is had, also if the deadline has passed.
            ///
            /// # Errors
            ///
            /// [`WaitError::TimedOut`](crate::WaitError::TimedOut), and the future's own as
            /// [`WaitError::Failed`](crate::WaitError::Failed).
            ///
            /// # Panics
            ///
            /// If the future has completed before.
            #[inline]
            pub fn wait_deadline(mut self, deadline: std::time::Instant) -> Result<$output, crate::WaitError<$error>> {
                let $this = &mut self;
                if let Some(result) = $now {
                    return result.map_err(crate::WaitError::Failed);
                }
                match crate::block::block_on(self, Some(deadline)) {
                    Some(result) => result.map_err(crate::WaitError::Failed),
                    None => Err(crate::WaitError::TimedOut),
                }
            }
        }
    };
}
pub(crate) use waits;
