//! Guards: held tokens, which are returned when the guard is dropped.

use alloc::sync::Arc;
use core::fmt;
use core::mem;
use core::ops::Deref;

use crate::take::Request;
use crate::{SetCapacityError, TakeFuture, TokenBucket, TryTakeError};

/// A way to hold a bucket: any pointer to a type that implements `AsRef<TokenBucket>`.
///
/// ```
/// # use std::sync::Arc;
/// # use token_bucket::{Handle, TokenBucket};
/// fn in_use(handle: &impl Handle) -> usize {
///     handle.to_bucket().outstanding()
/// }
///
/// let bucket = Arc::new(TokenBucket::with_capacity(4));
/// let token = bucket.try_take_owned()?;
/// assert_eq!(in_use(&bucket), 1);
/// # drop(token);
/// # Ok::<(), token_bucket::TryTakeError>(())
/// ```
///
/// Implemented for `&TokenBucket`, `Arc<TokenBucket>`, and for example `Arc<Pool>` where `Pool: AsRef<TokenBucket>`. There is
/// nothing to implement. **A handle must return the same bucket each time**; otherwise tokens are returned to the wrong bucket.
pub trait Handle: Deref<Target: AsRef<TokenBucket>> {
    /// Returns the bucket.
    #[inline]
    fn to_bucket(&self) -> &TokenBucket {
        (**self).as_ref()
    }
}

impl<H: Deref<Target: AsRef<TokenBucket>>> Handle for H {}

/// Tokens taken from a [`TokenBucket`], which go back when this guard is dropped.
///
/// ```
/// # use token_bucket::TokenBucket;
/// let bucket = TokenBucket::with_capacity(8);
/// let mut tokens = bucket.try_take_many(5)?;
/// let two = tokens.split(2).expect("there are five");
/// drop(tokens);
/// assert_eq!(bucket.outstanding(), 2);
/// drop(two);
/// assert_eq!(bucket.outstanding(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A pool whose guards hold the pool:
///
/// ```
/// # use std::sync::Arc;
/// use token_bucket::{TokenBucket, TokenGuard};
///
/// struct Pool {
///     bucket: TokenBucket,
///     // idle: Mutex<Vec<Connection>>, …
/// }
///
/// impl AsRef<TokenBucket> for Pool {
///     fn as_ref(&self) -> &TokenBucket {
///         &self.bucket
///     }
/// }
///
/// let pool = Arc::new(Pool { bucket: TokenBucket::with_capacity(2) });
/// let guard: TokenGuard<Arc<Pool>> = TokenGuard::try_take(Arc::clone(&pool), 1)?;
/// assert!(Arc::ptr_eq(guard.handle(), &pool));
/// assert_eq!(pool.bucket.outstanding(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Generic over the [`Handle`] by which it holds the bucket: a [`Token`] borrows it, an [`OwnedToken`] shares an [`Arc`] of it, and
/// a guard can also hold a pool or another type that contains the bucket.
///
/// A guard that is leaked ([`mem::forget`], or [`forget`](Self::forget)) leaves its tokens outstanding for good. A panic while it
/// is held returns them; nothing is ever poisoned. A guard that is dropped into a bucket that has
/// [`max_capacity`](TokenBucket::max_capacity) tokens available, because it was [overfilled](TokenBucket::release), gives nothing
/// back.
#[doc(alias = "permit")]
#[must_use = "tokens go back to the bucket as soon as their guard is dropped"]
#[clippy::has_significant_drop]
pub struct TokenGuard<H: Handle> {
    handle: H,
    count: usize,
}

/// Tokens taken from a borrowed [`TokenBucket`].
///
/// ```
/// # use token_bucket::{Token, TokenBucket};
/// let bucket = TokenBucket::with_capacity(4);
/// let token: Token<'_> = bucket.try_take()?;
/// assert_eq!(bucket.outstanding(), 1);
/// # drop(token);
/// # Ok::<(), token_bucket::TryTakeError>(())
/// ```
#[doc(alias = "SemaphorePermit")]
pub type Token<'a> = TokenGuard<&'a TokenBucket>;

/// Tokens taken from a [`TokenBucket`] in an [`Arc`]. Can be moved into a task, or stored beside the resource that it guards.
///
/// ```
/// # use std::sync::Arc;
/// # use token_bucket::TokenBucket;
/// let bucket = Arc::new(TokenBucket::with_capacity(1));
/// let token = bucket.try_take_owned()?;
/// std::thread::spawn(move || drop(token)).join().unwrap();
/// assert_eq!(bucket.available(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "OwnedSemaphorePermit")]
pub type OwnedToken = TokenGuard<Arc<TokenBucket>>;

/// The result of [`give_back`](TokenGuard::give_back): what became of the tokens.
///
/// ```
/// # use token_bucket::TokenBucket;
/// let bucket = TokenBucket::with_capacity(4);
/// let tokens = bucket.try_take_many(4)?;
/// bucket.set_capacity(3)?;
/// let returned = tokens.give_back();
/// assert_eq!((returned.restored, returned.retired), (3, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Returned {
    /// Tokens that are in the bucket again, or went to a waiter.
    pub restored: usize,
    /// Tokens that paid off a [deficit](TokenBucket::deficit), and no longer exist.
    pub retired: usize,
}

impl<H: Handle> TokenGuard<H> {
    #[inline]
    pub(crate) fn new(handle: H, count: usize) -> Self {
        Self { handle, count }
    }

    /// Takes `n` tokens from the bucket that `handle` holds, like [`TokenBucket::try_take_many`].
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TokenGuard};
    /// static BUCKET: TokenBucket = TokenBucket::with_capacity(4);
    ///
    /// let tokens = TokenGuard::try_take(&BUCKET, 3)?;
    /// assert_eq!(BUCKET.available(), 1);
    /// # drop(tokens);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`TokenBucket::try_take_many`]; the handle is dropped then.
    #[inline]
    pub fn try_take(handle: H, n: usize) -> Result<Self, TryTakeError> {
        match handle.to_bucket().try_take_n(n) {
            Ok(()) => Ok(Self::new(handle, n)),
            Err(refused) => Err(handle.to_bucket().take_error(n, refused)),
        }
    }

    /// Takes up to `n` tokens from the bucket that `handle` holds, like [`TokenBucket::try_take_up_to`].
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TokenGuard};
    /// static BUCKET: TokenBucket = TokenBucket::with_capacity(3);
    ///
    /// let tokens = TokenGuard::try_take_up_to(&BUCKET, 10)?;
    /// assert_eq!(tokens.count(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`TokenBucket::try_take_up_to`]; the handle is dropped then.
    pub fn try_take_up_to(handle: H, n: usize) -> Result<Self, TryTakeError> {
        match Request::up_to(n).try_take(handle.to_bucket().combiner()) {
            Ok(taken) => Ok(Self::new(handle, taken as usize)),
            Err(refused) => Err(handle.to_bucket().take_error(n, refused)),
        }
    }

    /// Adds `n` to the capacity of the bucket that `handle` holds, and takes the new tokens, like [`TokenBucket::grow_and_take`].
    ///
    /// ```
    /// # use token_bucket::{SetCapacityError, TokenBucket, TokenGuard};
    /// static BUCKET: TokenBucket = TokenBucket::with_capacity(3);
    ///
    /// let token = TokenGuard::grow_and_take(&BUCKET, 1)?;
    /// assert_eq!((BUCKET.capacity(), BUCKET.available()), (4, 3));
    /// # drop(token);
    /// # Ok::<(), SetCapacityError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`TokenBucket::grow_and_take`]; the handle is dropped then.
    pub fn grow_and_take(handle: H, n: usize) -> Result<Self, SetCapacityError> {
        handle.to_bucket().grow_by(n)?;
        Ok(Self::new(handle, n))
    }

    /// Waits for `n` tokens from the bucket that `handle` holds, like [`TokenBucket::take_many`].
    ///
    /// ```
    /// # use token_bucket::{TakeError, TokenBucket, TokenGuard};
    /// static BUCKET: TokenBucket = TokenBucket::with_capacity(8);
    ///
    /// # futures::executor::block_on(async {
    /// let tokens: TokenGuard<&'static TokenBucket> = TokenGuard::take(&BUCKET, 3).await?;
    /// assert_eq!(tokens.count(), 3);
    /// # Ok::<(), TakeError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub fn take(handle: H, n: usize) -> TakeFuture<H> {
        TakeFuture::new(handle, Request::exactly(n))
    }

    /// Waits for up to `n` tokens from the bucket that `handle` holds, like [`TokenBucket::take_up_to`].
    ///
    /// ```
    /// # use token_bucket::{TakeError, TokenBucket, TokenGuard};
    /// static BUCKET: TokenBucket = TokenBucket::with_capacity(3);
    ///
    /// # futures::executor::block_on(async {
    /// let tokens = TokenGuard::take_up_to(&BUCKET, 10).await?;
    /// assert_eq!(tokens.count(), 3);
    /// # Ok::<(), TakeError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub fn take_up_to(handle: H, n: usize) -> TakeFuture<H> {
        TakeFuture::new(handle, Request::up_to(n))
    }

    /// Returns the number of tokens that this guard holds.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(4);
    /// assert_eq!(bucket.try_take_up_to(10)?.count(), 4);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[doc(alias = "num_permits")]
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the handle by which this guard holds the bucket.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::with_capacity(4));
    /// let token = bucket.try_take_owned()?;
    /// assert!(Arc::ptr_eq(token.handle(), &bucket));
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[inline]
    pub fn handle(&self) -> &H {
        &self.handle
    }

    /// Drops the guard without returning the tokens. They stay [outstanding](TokenBucket::outstanding) for good, so
    /// [`idle`](TokenBucket::idle) waits for them, unless a [`try_release`](TokenBucket::try_release) or a
    /// [`refill`](TokenBucket::refill) puts others in their place.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(1);
    /// bucket.try_take()?.forget();
    /// assert_eq!((bucket.capacity(), bucket.outstanding()), (1, 1));
    /// bucket.refill(1);
    /// assert_eq!(bucket.outstanding(), 0);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// **tokio's `forget` is [`retire`](Self::retire)**, which makes the bucket smaller.
    pub fn forget(mut self) {
        self.count = 0;
    }

    /// Gives the tokens back as a drop does, and returns how many of them went back into the bucket, and how many paid off a
    /// deficit.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(2);
    /// let (one, two) = (bucket.try_take()?, bucket.try_take()?);
    /// bucket.set_capacity(1)?;
    /// assert_eq!(one.give_back().retired, 1); // surplus
    /// assert_eq!(two.give_back().restored, 1); // to be used again
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A pool keeps the resource behind a restored token, and closes the one behind a retired token. Tokens that had no room in a
    /// bucket that was [overfilled](TokenBucket::release) are neither restored nor retired.
    #[allow(clippy::must_use_candidate, reason = "the tokens go back anyway")]
    pub fn give_back(mut self) -> Returned {
        let given = self.handle.to_bucket().combiner().give_and_serve(mem::take(&mut self.count));
        Returned { restored: given.restored, retired: given.paid }
    }

    /// Removes the tokens and as much [capacity](TokenBucket::capacity) from the bucket for good, in one atomic step.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(3);
    /// bucket.try_take()?.retire();
    /// assert_eq!((bucket.capacity(), bucket.available(), bucket.outstanding()), (2, 2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The inverse of [`grow_and_take`](TokenBucket::grow_and_take). If there is a [deficit](TokenBucket::deficit), the tokens pay
    /// it off first, and only the rest of them reduces the capacity, which does not go below 0.
    #[doc(alias = "forget_permits")]
    pub fn retire(mut self) {
        self.handle.to_bucket().combiner().retire(mem::take(&mut self.count));
    }

    /// Moves `n` tokens to a guard of their own. Returns `None` if this guard holds fewer; then it keeps them all.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(3);
    /// let mut tokens = bucket.try_take_many(3)?;
    /// drop(tokens.split(1)); // gives one back
    /// assert!(tokens.split(3).is_none());
    /// assert_eq!((tokens.count(), bucket.available()), (2, 1));
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    pub fn split(&mut self, n: usize) -> Option<Self>
    where
        H: Clone,
    {
        let rest = self.count.checked_sub(n)?;
        // The clone comes first, because it may be user code that panics.
        let handle = self.handle.clone();
        self.count = rest;
        Some(Self::new(handle, n))
    }

    /// Takes over the tokens of another guard of the same bucket.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(3);
    /// let mut tokens = bucket.try_take()?;
    /// tokens.merge(bucket.try_take_many(2)?);
    /// assert_eq!(tokens.count(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the other guard is of another bucket. This guard is unchanged then; the other one is dropped, which returns its tokens.
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        assert!(core::ptr::eq(self.handle.to_bucket(), other.handle.to_bucket()), "cannot merge tokens of different buckets");
        self.count = self.count.saturating_add(mem::take(&mut other.count));
    }
}

impl<'a> TokenGuard<&'a TokenBucket> {
    /// Returns the bucket that the tokens go back to.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(4);
    /// let token = bucket.try_take()?;
    /// assert_eq!(token.bucket().available(), 3);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn bucket(&self) -> &'a TokenBucket {
        self.handle
    }
}

impl TokenGuard<Arc<TokenBucket>> {
    /// Returns the bucket that the tokens go back to.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::with_capacity(4));
    /// let token = bucket.try_take_owned()?;
    /// assert!(Arc::ptr_eq(token.bucket(), &bucket));
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn bucket(&self) -> &Arc<TokenBucket> {
        &self.handle
    }
}

impl<H: Handle> Drop for TokenGuard<H> {
    /// Returns the tokens. Never waits and never fails.
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 {
            self.handle.to_bucket().combiner().give(self.count);
        }
    }
}

impl<H: Handle> fmt::Debug for TokenGuard<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("count", &self.count).finish_non_exhaustive()
    }
}
