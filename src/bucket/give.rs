//! Returning tokens without a guard.

use super::TokenBucket;
use crate::state::Refused;
use crate::{Release, TryReleaseError};

/// # Returning tokens without a guard
impl TokenBucket {
    /// Puts one token into the bucket, and waits while the bucket is full, that is, has [`max_capacity`](Self::max_capacity) tokens
    /// available.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::with_capacity(1);
    /// bucket.take().await?.forget();
    /// bucket.release().await?;
    /// assert_eq!(bucket.available(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// The token need not have been taken before: this is how a [forgotten](crate::TokenGuard::forget) token is replaced. (To
    /// enforce a rate, see [`RateLimiter`](crate::RateLimiter) and [`Refill`](crate::Refill). To add permits, use
    /// [`update_capacity`](Self::update_capacity).)
    ///
    /// A bucket that is given more tokens than are outstanding has more [`available`](Self::available) than its capacity: it is
    /// *overfilled*. **A guard that is dropped into a bucket with `max_capacity` tokens available gives nothing back.**
    pub fn release(&self) -> Release<'_> {
        Release::new(self)
    }

    /// Puts one token into the bucket if there is room.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(1, 1)?;
    /// assert!(bucket.try_release().is_err()); // full
    /// bucket.try_take()?.forget();
    /// assert!(bucket.try_release().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TryReleaseError::Full`] and [`TryReleaseError::Closed`]; the bucket is unchanged then.
    pub fn try_release(&self) -> Result<(), TryReleaseError> {
        self.try_release_many(1)
    }

    /// Puts `n` tokens into the bucket if there is room for all of them.
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryReleaseError};
    /// let bucket = TokenBucket::new(10, 8)?;
    /// assert!(matches!(bucket.try_release_many(3), Err(TryReleaseError::Full)));
    /// bucket.try_release_many(2)?;
    /// assert_eq!((bucket.available(), bucket.capacity()), (10, 8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// There is no waiting variant because it could deadlock with a waiting [`take_many`](Self::take_many).
    ///
    /// # Errors
    ///
    /// [`TryReleaseError::Full`], [`TryReleaseError::Closed`], and [`TryReleaseError::ExceedsMax`] if `n` is above
    /// [`max_capacity`](Self::max_capacity); the bucket is unchanged then.
    #[doc(alias = "add_permits")]
    pub fn try_release_many(&self, n: usize) -> Result<(), TryReleaseError> {
        let released = if n > self.max_capacity() { Err(Refused::ExceedsMax) } else { self.combiner.release(n) };
        released.map_err(|refused| match refused {
            Refused::NotNow => TryReleaseError::Full,
            Refused::Closed => self.closed().into(),
            Refused::ExceedsMax => TryReleaseError::ExceedsMax { requested: n, max_capacity: self.max_capacity() },
        })
    }

    /// Puts as many of `n` tokens into the bucket as fit below [`max_capacity`](Self::max_capacity), and returns that number. `n`
    /// may be any number.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(10, 8)?;
    /// assert_eq!(bucket.refill(5), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Like the drop of a guard, this also works on a closed bucket.
    ///
    /// **A refill does not raise the capacity.** A request above the capacity stays deferred until that many tokens are available
    /// at once, and requests behind it may take them first, indefinitely if they keep coming. To add permits, use
    /// [`update_capacity`](Self::update_capacity).
    #[allow(clippy::must_use_candidate, reason = "callers that fill a bucket up need not care")]
    pub fn refill(&self, n: usize) -> usize {
        self.combiner.give_and_serve(n).fitted()
    }
}
