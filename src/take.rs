//! The future that waits for tokens.

use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use futures_core::future::FusedFuture;

use crate::combiner::{Combiner, on_unwind};
use crate::stage::Stage;
use crate::state::{Kind, MAX_CAPACITY, Refused, State};
use crate::sync::coop;
use crate::token::{Handle, TokenGuard};
use crate::waiter::WakeList;
use crate::{TakeError, TokenBucket};

/// A future that waits for tokens, returned by [`TokenBucket::take`] and the other methods that wait.
///
/// ```
/// # use token_bucket::TokenBucket;
/// # futures::executor::block_on(async {
/// let bucket = TokenBucket::with_capacity(4);
/// let request = bucket.take_many(3);
/// assert_eq!(bucket.available(), 4); // nothing is taken before the first poll
/// let tokens = request.await?;
/// assert_eq!(tokens.count(), 3);
/// # drop(tokens);
/// # Ok::<(), token_bucket::TakeError>(())
/// # }).unwrap();
/// ```
///
/// Await it, or block a thread with [`wait`](Self::wait). Generic over the [`Handle`] by which it holds the bucket, like its
/// output, the
/// [`TokenGuard`].
///
/// # Fairness
///
/// The request takes its place in the queue when it is first polled (or first blocks), see [`Fairness`](crate::Fairness).
/// It holds tokens from the moment they are granted, even if it is not polled then: **a future that is kept but
/// no longer polled keeps them from others.** Drop it instead. A future that was granted its tokens gets them even if the bucket is
/// closed before it is polled.
///
/// # Errors
///
/// Ready with [`TakeError::Closed`] when the bucket is closed, and with [`TakeError::ExceedsMax`] at once if more
/// than [`max_capacity`](TokenBucket::max_capacity) tokens are requested.
///
/// # Panics
///
/// If it is polled again after it has completed.
///
/// # Cancel safety
///
/// Dropping it gives up its place in the queue and nothing else, at any moment: tokens that it has just been
/// granted go to the next waiter, which is woken if necessary.
#[must_use = "futures do nothing unless polled, awaited or waited for"]
pub struct TakeFuture<H: Handle> {
    /// Moves into the guard: then the future is done.
    handle: Option<H>,
    request: Request,
    stage: Stage,
}

/// Waits for tokens of a borrowed [`TokenBucket`].
///
/// ```
/// # use token_bucket::{Take, TakeError, TokenBucket};
/// let bucket = TokenBucket::with_capacity(4);
/// let request: Take<'_> = bucket.take();
/// let token = request.wait()?;
/// assert_eq!(bucket.available(), 3);
/// # drop(token);
/// # Ok::<(), TakeError>(())
/// ```
pub type Take<'a> = TakeFuture<&'a TokenBucket>;

/// Waits for tokens of a [`TokenBucket`] in an [`Arc`], for tasks that outlive a borrow of the bucket.
///
/// ```
/// # use std::sync::Arc;
/// # use token_bucket::{TakeOwned, TokenBucket};
/// struct Service {
///     reservation: TakeOwned, // `Unpin`, so it needs no box
/// }
///
/// let bucket = Arc::new(TokenBucket::with_capacity(4));
/// let service = Service { reservation: bucket.take_owned() };
/// assert!(service.reservation.wait().is_ok());
/// ```
pub type TakeOwned = TakeFuture<Arc<TokenBucket>>;

/// How many tokens are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// As the caller has it.
    count: usize,
    /// The fewest and the most that will do, as the word has them.
    min: u32,
    up_to: u32,
}

impl Request {
    #[inline]
    pub(crate) const fn exactly(count: usize) -> Self {
        // One more than any bucket can hold stands for all that are more.
        let n = clamp(count, MAX_CAPACITY + 1);
        Self { count, min: n, up_to: n }
    }

    #[inline]
    pub(crate) const fn up_to(count: usize) -> Self {
        Self { count, min: clamp(count, 1), up_to: clamp(count, MAX_CAPACITY) }
    }

    /// Whether it is for one number of tokens, which the bucket can hold, and not for none.
    #[inline]
    const fn is_plain(&self, max: u32) -> bool {
        self.min == self.up_to && self.min.wrapping_sub(1) < max
    }

    /// Takes without waiting.
    pub(crate) fn try_take(&self, combiner: &Combiner) -> Result<u32, Refused> {
        match (self.min, self.up_to) {
            (_, 0) if combiner.state().is_closed() => Err(Refused::Closed),
            (_, 0) => Ok(0),
            (min, _) if min > combiner.max() => Err(Refused::ExceedsMax),
            (min, up_to) if min == up_to => combiner.try_take(min).map(|()| min),
            (min, up_to) => combiner.try_take_up_to(min, up_to),
        }
    }
}

#[inline]
const fn clamp(count: usize, limit: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the smaller one fits")]
    if count < limit as usize { count as u32 } else { limit }
}

impl<H: Handle> TakeFuture<H> {
    #[inline]
    pub(crate) fn new(handle: H, request: Request) -> Self {
        Self { handle: Some(handle), request, stage: Stage::Fresh }
    }

    /// Makes the guard or the error of the output.
    ///
    /// They take three words. If a function that is called returned them, the caller would copy what was just written in memory,
    /// which stalls the processor. Hence this and `poll` are always inlined, and what they call returns numbers.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see above")]
    fn complete(&mut self, polled: Poll<Result<u32, Refused>>) -> Poll<Result<TokenGuard<H>, TakeError>> {
        match polled {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(self.guard(count))),
            Poll::Ready(Err(refused)) => Poll::Ready(Err(self.fail(refused))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Done, with that many tokens.
    #[inline]
    fn guard(&mut self, count: u32) -> TokenGuard<H> {
        TokenGuard::new(self.handle.take().expect("it is not done"), count as usize)
    }

    /// Done, without tokens.
    #[cold]
    fn fail(&mut self, refused: Refused) -> TakeError {
        self.stage.finish();
        let handle = self.handle.take().expect("it is not done");
        let bucket = handle.to_bucket();
        match refused {
            Refused::ExceedsMax => TakeError::ExceedsMax { requested: self.request.count, max_capacity: bucket.max_capacity() },
            Refused::NotNow | Refused::Closed => bucket.closed().into(),
        }
    }

    /// How the request is queued.
    const fn queued_as(&self) -> (Kind, u32, u32) {
        (Kind::Take, self.request.min, self.request.up_to)
    }

    /// The poll of a task without budget: if the request is new and can wait, it takes its place in the queue.
    #[cold]
    fn join(&mut self, cx: &mut Context<'_>) {
        if let Some(handle) = &self.handle {
            let bucket = handle.to_bucket();
            if self.request.up_to > 0 && self.request.min <= bucket.combiner().max() {
                self.stage.join(bucket, cx.waker(), &mut WakeList::new(), self.queued_as());
            }
        }
    }

    /// The poll of a request that joins the queue, or is in it.
    #[cold]
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<u32, Refused>> {
        let Some(handle) = &self.handle else { unreachable!("it is not done") };
        let mut wakes = WakeList::new();
        let polled = ready!(self.stage.poll_queued(handle.to_bucket(), cx, &mut wakes, self.queued_as()));
        if let Ok(count) = polled {
            let give_back = || handle.to_bucket().combiner().give(count as usize);
            on_unwind(give_back, || {
                self.stage.finish();
                // If the waker of another waiter panics, the tokens go back, and this begins anew.
                self.stage = Stage::Fresh;
                drop(wakes);
            });
        }
        Poll::Ready(polled)
    }

    /// The poll of a request that cannot be served by one plain step; `seen` is the word in which that failed, if it was tried.
    #[cold]
    #[track_caller]
    fn poll_slow(&mut self, cx: &mut Context<'_>, seen: Option<State>) -> Poll<Result<u32, Refused>> {
        match (&self.stage, &self.handle) {
            (Stage::Fresh, _) if seen.is_some_and(|seen| seen.lacks(self.request.min)) => self.poll_queued(cx),
            // Closed, or there may be tokens. A waiter that is served while it joins the queue would wake itself without need.
            (Stage::Fresh, Some(handle)) => match self.request.try_take(handle.to_bucket().combiner()) {
                Err(Refused::NotNow) => self.poll_queued(cx),
                taken => Poll::Ready(taken),
            },
            (Stage::Queued(registration), _) => match registration.waiter.outcome() {
                Some(outcome) => {
                    self.stage.finish();
                    Poll::Ready(outcome)
                }
                None => self.poll_queued(cx),
            },
            _ => panic!("`Take` polled after it completed"),
        }
    }

    #[cold]
    fn cancel(&mut self) {
        if let Some(handle) = &self.handle {
            self.stage.cancel(handle.to_bucket());
        }
    }

    /// If this is new and plain, takes the tokens if they are there.
    #[inline]
    fn take_fast(&self) -> Result<(), Option<State>> {
        match (&self.stage, &self.handle) {
            (Stage::Fresh, Some(handle)) => {
                let combiner = handle.to_bucket().combiner();
                if self.request.is_plain(combiner.max()) {
                    combiner.try_take_fast(self.request.min).map_err(Some)
                } else {
                    Err(None)
                }
            }
            _ => Err(None),
        }
    }
}

// The handle is never pinned.
impl<H: Handle> Unpin for TakeFuture<H> {}

impl<H: Handle> Future for TakeFuture<H> {
    type Output = Result<TokenGuard<H>, TakeError>;

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see `complete`")]
    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(budget) = coop::poll_proceed(cx) else {
            this.join(cx);
            return Poll::Pending;
        };
        match this.take_fast() {
            Ok(()) => {
                budget.spend();
                Poll::Ready(Ok(this.guard(this.request.min)))
            }
            Err(seen) => {
                let polled = this.poll_slow(cx, seen);
                this.complete(budget.spend_if_ready(polled))
            }
        }
    }
}

impl<H: Handle> FusedFuture for TakeFuture<H> {
    fn is_terminated(&self) -> bool {
        self.handle.is_none()
    }
}

impl<H: Handle> Drop for TakeFuture<H> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Queued(_) = self.stage {
            self.cancel();
        }
    }
}

impl<H: Handle> fmt::Debug for TakeFuture<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Take")
            .field("count", &self.request.count)
            .field("stage", &format_args!("{}", if self.handle.is_some() { self.stage.name() } else { Stage::Done.name() }))
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "std")]
mod blocking {
    use core::task::Poll;
    use core::time::Duration;
    use std::time::Instant;

    use super::{Handle, Refused, Stage, TakeFuture, TokenGuard};
    use crate::{TakeError, WaitError, block};

    impl<H: Handle> TakeFuture<H> {
        /// If this is new, takes without waiting, or fails for good.
        #[inline]
        fn take_now(&mut self) -> Poll<Result<TokenGuard<H>, TakeError>> {
            let (Stage::Fresh, Some(handle)) = (&self.stage, &self.handle) else { return Poll::Pending };
            let taken = self.request.try_take(handle.to_bucket().combiner());
            if taken == Err(Refused::NotNow) { Poll::Pending } else { self.complete(Poll::Ready(taken)) }
        }

        /// Blocks this thread until the tokens are granted.
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// let bucket = TokenBucket::with_capacity(1);
        /// let token = bucket.take().wait()?;
        /// # drop(token);
        /// # Ok::<(), token_bucket::TakeError>(())
        /// ```
        ///
        /// Blocked threads and tasks wait in one queue. **Do not call this from an async task**: the blocked thread may be the
        /// one that must run the task that holds a token.
        ///
        /// No other thread can cancel the wait of this one: it ends with tokens or when the bucket is closed. For a deadline, use
        /// [`wait_timeout`](Self::wait_timeout) or [`wait_deadline`](Self::wait_deadline).
        ///
        /// # Errors
        ///
        /// The errors of the future.
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        #[inline(always)]
        #[allow(clippy::inline_always, reason = "see `complete`")]
        pub fn wait(mut self) -> Result<TokenGuard<H>, TakeError> {
            match self.take_fast() {
                Ok(()) => Ok(self.guard(self.request.min)),
                Err(_) => self.wait_slow(),
            }
        }

        #[cold]
        #[track_caller]
        fn wait_slow(mut self) -> Result<TokenGuard<H>, TakeError> {
            match self.take_now() {
                Poll::Ready(result) => result,
                Poll::Pending => block::block_on(self),
            }
        }

        /// Blocks this thread until the tokens are granted, but no longer than `timeout`. A timeout too large to represent is
        /// treated as infinite.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use token_bucket::{TokenBucket, WaitError};
        /// let bucket = TokenBucket::with_capacity(0); // paused
        /// let result = bucket.take().wait_timeout(Duration::from_millis(1));
        /// assert!(matches!(result, Err(WaitError::TimedOut)));
        /// ```
        ///
        /// If tokens are available, the call succeeds even if the timeout is 0.
        ///
        /// # Errors
        ///
        /// [`WaitError::TimedOut`], and the errors of the future as [`WaitError::Failed`].
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        #[inline]
        pub fn wait_timeout(self, timeout: Duration) -> Result<TokenGuard<H>, WaitError<TakeError>> {
            self.wait_until(|| Instant::now().checked_add(timeout))
        }

        /// Blocks this thread until the tokens are granted, but only until `deadline`.
        ///
        /// ```
        /// # use std::time::{Duration, Instant};
        /// # use token_bucket::TokenBucket;
        /// let deadline = Instant::now() + Duration::from_millis(1);
        /// let bucket = TokenBucket::with_capacity(1);
        /// let token = bucket.take().wait_deadline(deadline)?;
        /// assert!(bucket.take().wait_deadline(deadline).is_err()); // the same deadline for both
        /// # drop(token);
        /// # Ok::<(), token_bucket::WaitError<token_bucket::TakeError>>(())
        /// ```
        ///
        /// If tokens are available, the call succeeds even if the deadline has already passed.
        ///
        /// # Errors
        ///
        /// [`WaitError::TimedOut`], and the errors of the future as [`WaitError::Failed`].
        ///
        /// # Panics
        ///
        /// If the future has completed before.
        #[inline]
        pub fn wait_deadline(self, deadline: Instant) -> Result<TokenGuard<H>, WaitError<TakeError>> {
            self.wait_until(|| Some(deadline))
        }

        #[inline]
        fn wait_until(mut self, deadline: impl FnOnce() -> Option<Instant>) -> Result<TokenGuard<H>, WaitError<TakeError>> {
            match self.take_now() {
                Poll::Ready(result) => result.map_err(WaitError::Failed),
                Poll::Pending => block::block_until(self, deadline()),
            }
        }
    }
}
