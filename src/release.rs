//! The future that waits for room.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use futures_core::future::FusedFuture;

use crate::stage::Stage;
use crate::state::Kind;
use crate::sync::coop;
use crate::waiter::WakeList;
use crate::{ReleaseError, TokenBucket, TryReleaseError};

/// A future that puts one token into a bucket, returned by [`TokenBucket::release`].
///
/// ```
/// # use token_bucket::TokenBucket;
/// let bucket = TokenBucket::new(1, 1)?; // full
/// std::thread::scope(|scope| {
///     let release = scope.spawn(|| bucket.release().wait()); // waits for room
///     bucket.take().wait()?.forget();
///     release.join().unwrap()?;
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(bucket.available(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It waits while the bucket is full. Await it, or block a thread with [`wait`](Self::wait).
///
/// # Fairness
///
/// Releasers wait in a queue of their own, and are woken in the order of their arrival, as many as there is room for. A caller that
/// comes when there is room need not queue. A releaser that finds the bucket full again keeps its place.
///
/// # Errors
///
/// Ready with [`ReleaseError::Closed`] when the bucket is closed.
///
/// # Panics
///
/// If it is polled again after it has completed.
///
/// # Cancel safety
///
/// If it is dropped before it was ready, nothing has been put into the bucket.
#[must_use = "futures do nothing unless polled, awaited or waited for"]
pub struct Release<'a> {
    bucket: &'a TokenBucket,
    stage: Stage,
}

impl<'a> Release<'a> {
    pub(crate) fn new(bucket: &'a TokenBucket) -> Self {
        Self { bucket, stage: Stage::Fresh }
    }

    const QUEUED_AS: (Kind, u32, u32) = (Kind::Release, 1, 1);

    /// If the future is new, puts the token in without waiting, or fails for good.
    fn release_now(&mut self) -> Option<Result<(), ReleaseError>> {
        let Stage::Fresh = self.stage else { return None };
        // Set before wakers run, which may panic.
        self.stage = Stage::Done;
        match self.bucket.try_release() {
            Ok(()) => Some(Ok(())),
            Err(TryReleaseError::Closed(closed)) => Some(Err(closed.into())),
            Err(_) => {
                self.stage = Stage::Fresh;
                None
            }
        }
    }

    #[track_caller]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReleaseError>> {
        if let Some(result) = self.release_now() {
            return Poll::Ready(result);
        }
        assert!(!self.is_terminated(), "`Release` polled after it completed");
        let mut wakes = WakeList::new();
        let released = ready!(self.stage.poll_queued(self.bucket, cx, &mut wakes, Self::QUEUED_AS));
        self.stage.finish();
        drop(wakes);
        Poll::Ready(released.map(drop).map_err(|_| self.bucket.closed().into()))
    }
}

impl Future for Release<'_> {
    type Output = Result<(), ReleaseError>;

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(budget) = coop::poll_proceed(cx) else {
            this.stage.join(this.bucket, cx.waker(), &mut WakeList::new(), Self::QUEUED_AS);
            return Poll::Pending;
        };
        budget.spend_if_ready(this.poll_slow(cx))
    }
}

impl FusedFuture for Release<'_> {
    fn is_terminated(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.stage.cancel(self.bucket);
    }
}

impl fmt::Debug for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").field("stage", &format_args!("{}", self.stage.name())).finish_non_exhaustive()
    }
}

#[cfg(feature = "std")]
mod blocking {
    use core::time::Duration;
    use std::time::Instant;

    use super::Release;
    use crate::{ReleaseError, WaitError, block};

    impl Release<'_> {
        /// Blocks this thread until the token is in the bucket.
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::with_capacity(2);
        /// bucket.try_take()?.forget();
        /// bucket.release().wait()?; // replaces the forgotten token
        /// assert_eq!(bucket.available(), 2);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        ///
        /// The errors of the future.
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        pub fn wait(mut self) -> Result<(), ReleaseError> {
            match self.release_now() {
                Some(result) => result,
                None => block::block_on(self),
            }
        }

        /// Blocks this thread until the token is in the bucket, but no longer than `timeout`. A timeout too large to represent is
        /// treated as infinite.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use token_bucket::{TokenBucket, WaitError};
        /// let bucket = TokenBucket::new(1, 1)?; // full
        /// let result = bucket.release().wait_timeout(Duration::from_millis(1));
        /// assert!(matches!(result, Err(WaitError::TimedOut)));
        /// # Ok::<(), token_bucket::CapacityError>(())
        /// ```
        ///
        /// # Errors
        ///
        /// [`WaitError::TimedOut`], and the errors of the future as [`WaitError::Failed`].
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        pub fn wait_timeout(self, timeout: Duration) -> Result<(), WaitError<ReleaseError>> {
            self.wait_until(Instant::now().checked_add(timeout))
        }

        /// Blocks this thread until the token is in the bucket, but only until `deadline`.
        ///
        /// ```
        /// # use std::time::Instant;
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::new(2, 1)?; // room for one
        /// let deadline = Instant::now();
        /// assert!(bucket.release().wait_deadline(deadline).is_ok());
        /// assert!(bucket.release().wait_deadline(deadline).is_err());
        /// # Ok::<(), token_bucket::CapacityError>(())
        /// ```
        ///
        /// If there is room, the call succeeds even if the deadline has already passed.
        ///
        /// # Errors
        ///
        /// [`WaitError::TimedOut`], and the errors of the future as [`WaitError::Failed`].
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        pub fn wait_deadline(self, deadline: Instant) -> Result<(), WaitError<ReleaseError>> {
            self.wait_until(Some(deadline))
        }

        fn wait_until(mut self, deadline: Option<Instant>) -> Result<(), WaitError<ReleaseError>> {
            match self.release_now() {
                Some(result) => result.map_err(WaitError::Failed),
                None => block::block_until(self, deadline),
            }
        }
    }
}
