//! Waiting for all tokens to be back.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::future::FusedFuture;

use crate::TokenBucket;
use crate::line::Place;

/// A future that is ready when no token is out, made by [`TokenBucket::idle`].
///
/// Await it, or block a thread with [`wait`](Self::wait).
///
/// # Fairness
///
/// It takes no token, and holds up nobody (but for a moment, while it is told that all are back). All who wait for this are woken together.
///
/// # Memory ordering
///
/// What was done before the tokens came back is seen afterwards, as by one who takes them.
///
/// # Panics
///
/// When it is polled again after it was ready.
///
/// # Cancel safety
///
/// Dropping it takes nothing from anybody.
#[must_use = "futures do nothing unless polled, awaited or waited for"]
pub struct Idle<'a> {
    bucket: &'a TokenBucket,
    stage: Stage,
}

enum Stage {
    Fresh,
    Watching(Place),
    Done,
}

impl<'a> Idle<'a> {
    pub(crate) fn new(bucket: &'a TokenBucket) -> Self {
        Self { bucket, stage: Stage::Fresh }
    }

    fn leave(&mut self) {
        if let Stage::Watching(place) = mem::replace(&mut self.stage, Stage::Done) {
            self.bucket.line().unwatch(place);
        }
    }

    /// Blocks this thread until no token is out.
    ///
    /// # Panics
    ///
    /// If the future has completed before.
    #[cfg(feature = "std")]
    pub fn wait(self) {
        crate::block::block_on(self, None);
    }

    /// Blocks this thread until no token is out, but no longer than `timeout`. False if the time was up.
    ///
    /// # Panics
    ///
    /// If the future has completed before.
    #[cfg(feature = "std")]
    #[must_use = "it may be that the time was up"]
    pub fn wait_timeout(self, timeout: core::time::Duration) -> bool {
        // One that is too long to be told from for ever waits for ever.
        crate::block::block_on(self, std::time::Instant::now().checked_add(timeout)).is_some()
    }

    /// Blocks this thread until no token is out, but no longer than to the `deadline`. False if the time was up.
    ///
    /// # Panics
    ///
    /// If the future has completed before.
    #[cfg(feature = "std")]
    #[must_use = "it may be that the time was up"]
    pub fn wait_deadline(self, deadline: std::time::Instant) -> bool {
        crate::block::block_on(self, Some(deadline)).is_some()
    }
}

impl Future for Idle<'_> {
    type Output = ();

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match &this.stage {
            Stage::Fresh => match this.bucket.line().watch(cx.waker()) {
                Some(place) => {
                    this.stage = Stage::Watching(place);
                    return Poll::Pending;
                }
                None => this.stage = Stage::Done,
            },
            Stage::Watching(place) if place.waits(cx.waker()) => return Poll::Pending,
            Stage::Watching(_) => this.leave(),
            Stage::Done => panic!("`Idle` polled after it completed"),
        }
        Poll::Ready(())
    }
}

impl FusedFuture for Idle<'_> {
    fn is_terminated(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Idle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Fresh => "new",
            Stage::Watching(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("Idle").field("stage", &format_args!("{stage}")).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    /// Else no return of tokens would be a plain one any more.
    #[test]
    fn one_that_is_dropped_leaves_nothing_in_the_word() {
        let bucket = TokenBucket::const_new(2, 2);
        let token = bucket.try_take().expect("there are two");
        let mut idle = bucket.idle();
        assert!(Pin::new(&mut idle).poll(&mut Context::from_waker(core::task::Waker::noop())).is_pending());
        drop(idle);
        drop(token);
        assert_eq!(bucket.line().state(), State::new(2));
    }
}
