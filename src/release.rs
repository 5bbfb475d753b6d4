//! Waiting for room.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::future::FusedFuture;

use crate::line::Place;
use crate::{ReleaseError, TokenBucket, TryReleaseError};

/// A future that puts one token into a bucket, made by [`TokenBucket::release`].
///
/// It waits while the bucket is full. Await it, or block a thread with [`wait`](Self::wait).
///
/// # Fairness
///
/// Releasers wait in a line of their own, and are called first come first served, but one that comes when there is room need not line
/// up. One that was called may find the bucket full again, as others came first or more were called than there is room for; then it
/// lines up anew, at the end.
///
/// # Errors
///
/// Ready with [`ReleaseError::Closed`] when the bucket is closed.
///
/// # Panics
///
/// When it is polled again after it was ready.
///
/// # Cancel safety
///
/// If it is dropped before it was ready, nothing has been put into the bucket.
#[must_use = "futures do nothing unless polled, awaited or waited for"]
pub struct Release<'a> {
    bucket: &'a TokenBucket,
    stage: Stage,
}

enum Stage {
    Fresh,
    Queued(Place),
    Done,
}

impl<'a> Release<'a> {
    pub(crate) fn new(bucket: &'a TokenBucket) -> Self {
        Self { bucket, stage: Stage::Fresh }
    }

    /// Gives up the place that it may have.
    fn leave(&mut self) {
        if let Stage::Queued(place) = mem::replace(&mut self.stage, Stage::Fresh) {
            self.bucket.line().leave_room(place);
        }
    }

    /// If this is new, deposits without waiting, or fails for good.
    fn try_now(&mut self) -> Option<Result<(), ReleaseError>> {
        let Stage::Fresh = self.stage else { return None };
        let result = match self.bucket.try_release() {
            Ok(()) => Ok(()),
            Err(TryReleaseError::Closed(closed)) => Err(closed.into()),
            Err(_) => return None,
        };
        self.stage = Stage::Done;
        Some(result)
    }
}

impl Future for Release<'_> {
    type Output = Result<(), ReleaseError>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let line = this.bucket.line();
        match &this.stage {
            Stage::Fresh => {}
            Stage::Queued(place) if place.waits(cx.waker()) => return Poll::Pending,
            Stage::Queued(_) => {
                let result = this.bucket.try_release();
                // Only now, so that the next one is not called for the room that this one takes.
                this.leave();
                if !matches!(result, Err(TryReleaseError::Full)) {
                    this.stage = Stage::Done;
                    return Poll::Ready(result.map_err(|_| this.bucket.closed().into()));
                }
            }
            Stage::Done => panic!("`Release` polled after it completed"),
        }
        if let Some(result) = this.try_now() {
            return Poll::Ready(result);
        }
        this.stage = Stage::Done;
        match line.enqueue_release(cx.waker()) {
            Ok(Some(place)) => {
                this.stage = Stage::Queued(place);
                Poll::Pending
            }
            Ok(None) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(this.bucket.closed().into())),
        }
    }
}

impl FusedFuture for Release<'_> {
    fn is_terminated(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

#[cfg(feature = "std")]
crate::block::waits! {
    Release['a], (), ReleaseError,
    |release| release.try_now()
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Fresh => "new",
            Stage::Queued(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("Release").field("stage", &format_args!("{stage}")).finish_non_exhaustive()
    }
}
