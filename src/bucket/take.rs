//! Taking tokens, without waiting or with a future.

use alloc::sync::Arc;

use super::TokenBucket;
use crate::take::Request;
use crate::{OwnedToken, Take, TakeOwned, Token, TokenGuard, TryTakeError};

/// # Taking without waiting
impl TokenBucket {
    /// Takes one token if one is available and no waiter is entitled to it.
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryTakeError};
    /// let bucket = TokenBucket::with_capacity(1);
    /// let token = bucket.try_take()?;
    /// assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    /// drop(token);
    /// assert!(bucket.try_take().is_ok());
    /// # Ok::<(), TryTakeError>(())
    /// ```
    ///
    /// Never blocks. [`Empty`](TryTakeError::Empty) does not mean that [`available`](Self::available) is 0: the tokens may be for a
    /// waiter that needs more of them. May spuriously return `Empty` while another thread returns tokens or
    /// resizes the bucket and something waits for it: a queued request, or [`idle`](Self::idle).
    ///
    /// # Errors
    ///
    /// [`TryTakeError::Empty`] and [`TryTakeError::Closed`]; the bucket is unchanged then.
    #[doc(alias = "try_acquire")]
    #[inline]
    pub fn try_take(&self) -> Result<Token<'_>, TryTakeError> {
        // Every bucket can hold one.
        match self.combiner.try_take(1) {
            Ok(()) => Ok(Token::new(self, 1)),
            Err(refused) => Err(self.take_error(1, refused)),
        }
    }

    /// Takes `n` tokens if that many are available and no waiter is entitled to them.
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryTakeError};
    /// let bucket = TokenBucket::new(8, 4)?;
    /// assert_eq!(bucket.try_take_many(3)?.count(), 3);
    /// assert!(matches!(bucket.try_take_many(5), Err(TryTakeError::Empty)));
    /// assert!(matches!(bucket.try_take_many(9), Err(TryTakeError::ExceedsMax { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TryTakeError::Empty`], [`TryTakeError::Closed`], and [`TryTakeError::ExceedsMax`] if `n` is above
    /// [`max_capacity`](Self::max_capacity); the bucket is unchanged then.
    #[doc(alias = "try_acquire_many")]
    #[inline]
    pub fn try_take_many(&self, n: usize) -> Result<Token<'_>, TryTakeError> {
        TokenGuard::try_take(self, n)
    }

    /// Takes the available tokens, but no more than `n`: at least one, unless `n` is 0. `n` may be any number.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(3);
    /// assert_eq!(bucket.try_take_up_to(usize::MAX)?.count(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`try_take`](Self::try_take). A deficit stays as it is, because no token is available then.
    pub fn try_take_up_to(&self, n: usize) -> Result<Token<'_>, TryTakeError> {
        TokenGuard::try_take_up_to(self, n)
    }

    /// Like [`try_take`](Self::try_take), but returns a token that keeps the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::{OwnedToken, TokenBucket};
    /// let bucket = Arc::new(TokenBucket::with_capacity(1));
    /// let token: OwnedToken = bucket.try_take_owned()?;
    /// # drop(token);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`try_take`](Self::try_take).
    #[doc(alias = "try_acquire_owned")]
    #[inline]
    pub fn try_take_owned(self: &Arc<Self>) -> Result<OwnedToken, TryTakeError> {
        match self.combiner.try_take(1) {
            Ok(()) => Ok(OwnedToken::new(Arc::clone(self), 1)),
            Err(refused) => Err(self.take_error(1, refused)),
        }
    }

    /// Like [`try_take_many`](Self::try_take_many), but returns a guard that keeps the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::with_capacity(5));
    /// assert_eq!(bucket.try_take_many_owned(3)?.count(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`try_take_many`](Self::try_take_many).
    #[doc(alias = "try_acquire_many_owned")]
    #[inline]
    pub fn try_take_many_owned(self: &Arc<Self>, n: usize) -> Result<OwnedToken, TryTakeError> {
        match self.try_take_n(n) {
            Ok(()) => Ok(OwnedToken::new(Arc::clone(self), n)),
            Err(refused) => Err(self.take_error(n, refused)),
        }
    }

    /// Like [`try_take_up_to`](Self::try_take_up_to), but returns a guard that keeps the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::with_capacity(3));
    /// assert_eq!(bucket.try_take_up_to_owned(10)?.count(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`try_take_up_to`](Self::try_take_up_to).
    pub fn try_take_up_to_owned(self: &Arc<Self>, n: usize) -> Result<OwnedToken, TryTakeError> {
        TokenGuard::try_take_up_to(Arc::clone(self), n)
    }
}

/// # Waiting for tokens
impl TokenBucket {
    /// Waits for one token: a future, which can also block a thread ([`TakeFuture::wait`](crate::TakeFuture::wait)).
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::with_capacity(1);
    /// let token = bucket.take().await?;
    /// assert_eq!(bucket.available(), 0);
    /// # drop(token);
    /// # Ok::<(), token_bucket::TakeError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// A task that takes tokens in a loop without ever waiting does not yield to other tasks of tokio, unless the feature `tokio`
    /// is on. (Without it, call `tokio::task::coop::consume_budget().await` in the loop.)
    #[doc(alias = "acquire")]
    #[inline]
    pub fn take(&self) -> Take<'_> {
        self.take_many(1)
    }

    /// Waits for `n` tokens, and takes them at once.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let kibibytes = TokenBucket::with_capacity(64);
    /// let budget = kibibytes.take_many(48).await?;
    /// assert_eq!(kibibytes.available(), 16);
    /// # drop(budget);
    /// # Ok::<(), token_bucket::TakeError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// If `n` is above the capacity, but not above [`max_capacity`](Self::max_capacity), the request is *deferred*: it waits for
    /// the capacity to grow, without blocking other waiters. If `n` is 0, the future is ready at once with an empty guard, unless
    /// the bucket is closed.
    #[doc(alias = "acquire_many")]
    #[inline]
    pub fn take_many(&self, n: usize) -> Take<'_> {
        Take::new(self, Request::exactly(n))
    }

    /// Waits for at least one token, and takes up to `n` of those that are available when it is served.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let slots = TokenBucket::with_capacity(3);
    /// let batch = slots.take_up_to(10).await?;
    /// assert_eq!(batch.count(), 3);
    /// # Ok::<(), token_bucket::TakeError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// `n` may be any number. If it is 0, the future is ready at once with an empty guard, unless the bucket is closed.
    #[inline]
    pub fn take_up_to(&self, n: usize) -> Take<'_> {
        Take::new(self, Request::up_to(n))
    }

    /// Like [`take`](Self::take), but the future and its token keep the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::{TakeError, TokenBucket};
    /// # futures::executor::block_on(async {
    /// let bucket = Arc::new(TokenBucket::with_capacity(1));
    /// let token = bucket.take_owned().await?;
    /// let worker = std::thread::spawn(move || drop(token)); // returned by another thread
    /// # worker.join().unwrap();
    /// # Ok::<(), TakeError>(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "acquire_owned")]
    #[inline]
    pub fn take_owned(self: &Arc<Self>) -> TakeOwned {
        self.take_many_owned(1)
    }

    /// Like [`take_many`](Self::take_many), but the future and its guard keep the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = Arc::new(TokenBucket::with_capacity(8));
    /// assert_eq!(bucket.take_many_owned(5).await?.count(), 5);
    /// # Ok::<(), token_bucket::TakeError>(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "acquire_many_owned")]
    #[inline]
    pub fn take_many_owned(self: &Arc<Self>, n: usize) -> TakeOwned {
        TakeOwned::new(Arc::clone(self), Request::exactly(n))
    }

    /// Like [`take_up_to`](Self::take_up_to), but the future and its guard keep the bucket alive.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = Arc::new(TokenBucket::with_capacity(3));
    /// assert_eq!(bucket.take_up_to_owned(5).await?.count(), 3);
    /// # Ok::<(), token_bucket::TakeError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub fn take_up_to_owned(self: &Arc<Self>, n: usize) -> TakeOwned {
        TakeOwned::new(Arc::clone(self), Request::up_to(n))
    }
}
