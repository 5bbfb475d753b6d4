//! The futures that wait for a state of the bucket: no token outstanding, or no deficit left.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use futures_core::future::FusedFuture;

use crate::TokenBucket;
use crate::stage::Stage;
use crate::state::{Kind, State};
use crate::sync::coop;
use crate::waiter::WakeList;

/// A future that waits for a state of a bucket, returned by [`TokenBucket::idle`] and [`TokenBucket::settled`].
///
/// ```
/// # use token_bucket::TokenBucket;
/// let bucket = TokenBucket::with_capacity(2);
/// let token = bucket.try_take()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| drop(token));
///     bucket.idle().wait();
/// });
/// assert_eq!(bucket.outstanding(), 0);
/// # Ok::<(), token_bucket::TryTakeError>(())
/// ```
///
/// Await it, or block a thread with [`wait`](Self::wait). All such waiters are woken together when the state is reached; each is
/// ready even if that state has passed by the time it is polled.
///
/// # Fairness
///
/// It takes no token and blocks no other waiter.
///
/// # Memory ordering
///
/// It happens-after everything that was done before the tokens were returned, as a take of them would.
///
/// # Panics
///
/// If it is polled again after it has completed.
///
/// # Cancel safety
///
/// Dropping it has no effect on other waiters.
#[must_use = "futures do nothing unless polled, awaited or waited for"]
pub struct Watch<'a> {
    bucket: &'a TokenBucket,
    kind: Kind,
    stage: Stage,
}

/// Waits until no token is outstanding.
///
/// ```
/// # use token_bucket::{Idle, TokenBucket};
/// let bucket = TokenBucket::with_capacity(2);
/// let idle: Idle<'_> = bucket.idle();
/// idle.wait(); // returns at once: no token was taken
/// ```
pub type Idle<'a> = Watch<'a>;

/// Waits until no deficit is left.
///
/// ```
/// # use token_bucket::{Settled, TokenBucket};
/// let bucket = TokenBucket::with_capacity(2);
/// let settled: Settled<'_> = bucket.settled();
/// settled.wait(); // returns at once: the capacity was not reduced
/// ```
pub type Settled<'a> = Watch<'a>;

impl<'a> Watch<'a> {
    /// Waits for what this kind of waiter waits for.
    pub(crate) fn new(bucket: &'a TokenBucket, kind: Kind) -> Self {
        Self { bucket, kind, stage: Stage::Fresh }
    }

    fn holds(&self, state: State) -> bool {
        if self.kind == Kind::Idle { state.is_idle() } else { state.is_settled() }
    }

    #[track_caller]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        assert!(!self.is_terminated(), "`{}` polled after it completed", self.name());
        if matches!(self.stage, Stage::Fresh) && self.holds(self.bucket.combiner().state()) {
            self.stage = Stage::Done;
            return Poll::Ready(());
        }
        let mut wakes = WakeList::new();
        // Neither kind is ever refused, not even by a close.
        let _granted = ready!(self.stage.poll_queued(self.bucket, cx, &mut wakes, (self.kind, 0, 0)));
        self.stage.finish();
        Poll::Ready(())
    }

    fn name(&self) -> &'static str {
        if self.kind == Kind::Idle { "Idle" } else { "Settled" }
    }
}

impl Future for Watch<'_> {
    type Output = ();

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Poll::Ready(budget) = coop::poll_proceed(cx) else {
            this.stage.join(this.bucket, cx.waker(), &mut WakeList::new(), (this.kind, 0, 0));
            return Poll::Pending;
        };
        budget.spend_if_ready(this.poll_slow(cx))
    }
}

impl FusedFuture for Watch<'_> {
    fn is_terminated(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.stage.cancel(self.bucket);
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name()).field("stage", &format_args!("{}", self.stage.name())).finish_non_exhaustive()
    }
}

#[cfg(feature = "std")]
mod blocking {
    use core::time::Duration;
    use std::time::Instant;

    use super::Watch;
    use crate::block;

    impl Watch<'_> {
        /// Blocks this thread until the state is reached.
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::with_capacity(2);
        /// let tokens = bucket.try_take_many(2)?;
        /// bucket.set_capacity(1)?;
        /// drop(tokens);
        /// bucket.settled().wait();
        /// assert_eq!(bucket.deficit(), 0);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        pub fn wait(self) {
            block::block_on(self);
        }

        /// Blocks this thread until the state is reached, but no longer than `timeout`. Returns `false` on timeout. A timeout too
        /// large to represent is treated as infinite.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::with_capacity(2);
        /// let token = bucket.try_take()?;
        /// bucket.close();
        /// if !bucket.idle().wait_timeout(Duration::from_millis(1)) {
        ///     println!("{} jobs did not end in time", bucket.outstanding());
        /// }
        /// # drop(token);
        /// # Ok::<(), token_bucket::TryTakeError>(())
        /// ```
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        #[must_use = "the wait may have timed out"]
        pub fn wait_timeout(self, timeout: Duration) -> bool {
            block::poll_until(self, Instant::now().checked_add(timeout)).is_some()
        }

        /// Blocks this thread until the state is reached, but only until `deadline`. Returns `false` on timeout.
        ///
        /// ```
        /// # use std::time::{Duration, Instant};
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::with_capacity(2);
        /// let token = bucket.try_take()?;
        /// let deadline = Instant::now() + Duration::from_millis(1);
        /// assert!(!bucket.idle().wait_deadline(deadline));
        /// # drop(token);
        /// # Ok::<(), token_bucket::TryTakeError>(())
        /// ```
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        #[must_use = "the wait may have timed out"]
        pub fn wait_deadline(self, deadline: Instant) -> bool {
            block::poll_until(self, Some(deadline)).is_some()
        }
    }
}
