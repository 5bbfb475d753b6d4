//! Closing a bucket.

use super::TokenBucket;
use crate::Closed;

/// # Closing
impl TokenBucket {
    /// Closes the bucket for good: no take, release or resize succeeds afterwards, and every waiter for tokens or room is woken
    /// with an error ([`Closed`]). Held tokens can still be returned, and are counted.
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryTakeError};
    /// let bucket = TokenBucket::with_capacity(8);
    /// assert!(bucket.close());
    /// assert!(!bucket.close());
    /// assert!(matches!(bucket.try_take(), Err(TryTakeError::Closed(_))));
    /// ```
    ///
    /// Returns true for the call that closed it. A waiter that was granted its tokens before, and was not polled yet, still gets
    /// them.
    #[allow(clippy::must_use_candidate, reason = "the call is for its effect")]
    pub fn close(&self) -> bool {
        self.close_for(Closed::new())
    }

    /// Closes the bucket like [`close`](Self::close), with a cause that every waiter and every later caller gets as the
    /// [`source`](core::error::Error::source) of [`Closed`].
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// assert!(bucket.close_with("the server is shutting down"));
    /// assert_eq!(
    ///     bucket.try_take().unwrap_err().to_string(),
    ///     "token bucket is closed: the server is shutting down",
    /// );
    /// ```
    ///
    /// If several calls close a bucket, the first one sets the cause.
    #[cfg(feature = "std")]
    #[allow(clippy::must_use_candidate, reason = "the call is for its effect")]
    pub fn close_with(&self, cause: impl Into<alloc::boxed::Box<dyn core::error::Error + Send + Sync>>) -> bool {
        self.close_for(Closed::because(cause.into()))
    }

    /// Returns whether the bucket was closed.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// bucket.close();
    /// assert!(bucket.is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.combiner.state().is_closed()
    }

    /// The call that sets the error is the one that closed the bucket. Every call closes the word, so that the bucket is closed
    /// when it returns.
    #[cfg(feature = "std")]
    fn close_for(&self, closed: Closed) -> bool {
        let is_first = self.closed.set(closed).is_ok();
        self.combiner.close();
        is_first
    }

    #[cfg(not(feature = "std"))]
    fn close_for(&self, _: Closed) -> bool {
        self.combiner.close()
    }
}
