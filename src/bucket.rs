//! [`TokenBucket`]: what users call.

use alloc::sync::Arc;
use core::fmt;
#[cfg(feature = "std")]
use core::panic::AssertUnwindSafe;

use crate::combiner::Combiner;
use crate::error::Cause;
use crate::state::{self, Refused, State};
use crate::sync::const_fn;
use crate::take::Request;
use crate::{
    CapacityError, Closed, Idle, OwnedToken, Release, SetCapacityError, Settled, Take, TakeOwned, Token, TokenGuard,
    TryReleaseError, TryTakeError,
};

/// A resizable semaphore: a bucket of tokens whose capacity can be changed while it is used.
///
/// Taking a token returns a [`Token`] guard and reduces [`available`](Self::available) by one; dropping the guard returns the token. The
/// *capacity* is the configured total: tokens available plus tokens held. [`set_capacity`](Self::set_capacity) changes it to anything from 0 to the bucket's largest capacity, in one atomic
/// step. If more tokens are held than a smaller capacity allows, the bucket has a *deficit*: returned tokens pay it off before any waiter gets one.
///
/// A bucket is shared by reference, in a `static`, in an [`Arc`] (with the `_owned` methods), or within another shared type (see [`TokenGuard`]).
///
/// # Examples
///
/// ```
/// use token_bucket::TokenBucket;
///
/// let bucket = TokenBucket::with_capacity(2);
/// let one = bucket.try_take()?;
/// let two = bucket.try_take()?;
/// assert!(bucket.try_take().is_err());
///
/// bucket.set_capacity(1)?; // both tokens stay valid
/// assert_eq!(bucket.deficit(), 1);
/// drop(one); // pays off the deficit
/// assert!(bucket.try_take().is_err());
/// drop(two);
/// assert!(bucket.try_take().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fairness
///
/// By default, requests are served in the order of their arrival, see [`Fairness`].
///
/// # Memory ordering
///
/// Returning a token *synchronizes-with* the acquisition that receives it: the new holder sees everything that the previous holder did.
///
/// Exactly: every successful take happens-after each return, release, refill and resize that came before it
/// in the bucket's (single, total) order of changes, and after everything that happened before those in their threads. This
/// gives no mutual exclusion if the capacity is above 1. A refused attempt, and every getter, is ordered after the changes
/// that it shows (an acquire load), and orders nothing for others.
///
/// # Panics and leaks
///
/// A panic while a token is held gives it back, and poisons nothing. If a [`Waker`](core::task::Waker) panics in a call that
/// wakes it, the others are still woken, no token is lost, and the panic continues in that call. (If two of them do, the process aborts,
/// as always when a panic unwinds into a panic.) A waker may call back into the bucket. If a waker drops its own pending future, the hand-off
/// recurses; thousands of such waiters can overflow the stack.
///
/// A future that is leaked ([`mem::forget`](core::mem::forget)) is not cancelled. If it was not polled, that costs nothing. In a [`Fairness::Fifo`]
/// bucket it keeps its place, gets its tokens in turn and keeps them; later waiters still proceed, with that many fewer tokens (a
/// [`refill`](Self::refill) replaces them). In a [`Fairness::Barging`] bucket it is woken once, and claims the tokens it was woken for until it has been bypassed 16
/// times; then it is granted its tokens and keeps them. A leaked [`Release`] that was woken claims room for one token.
#[doc(alias = "semaphore")]
pub struct TokenBucket {
    combiner: Combiner,
    #[cfg(feature = "std")]
    cause: std::sync::OnceLock<Option<Cause>>,
}

/// The order in which waiters and callers are served when tokens are scarce.
///
/// # Examples
///
/// ```
/// use token_bucket::{Fairness, TokenBucket};
///
/// static SHARED: TokenBucket = TokenBucket::with_capacity(8).with_fairness(Fairness::Barging);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fairness {
    /// First come, first served: in the order in which requests were first polled (or first blocked), even if they
    /// are for different numbers of tokens.
    ///
    /// No caller, not even [`try_take`](TokenBucket::try_take), can overtake a waiter whose request could be satisfied. There is one exception: a
    /// request for more than the capacity is deferred until the capacity has grown (or that many tokens were released into the bucket); it holds up
    /// no other waiter meanwhile, and regains its place in the order then.
    ///
    /// Tokens that come back are handed to the waiter before it runs. So it never runs in vain; but the token is idle until it runs,
    /// and threads doing short critical sections form a lock convoy, as with any FIFO semaphore. A waiter may be seen ready before an earlier one, for as
    /// long as the serving thread is suspended between the two.
    #[default]
    Fifo,
    /// A caller may take an available token ahead of the queue; so running threads do not stop for sleeping ones.
    ///
    /// A token that comes back stays in the bucket, and the waiter at the head of the queue is woken to take it, if
    /// it is still there. *Bounded bypass*: once the head of the queue has lost 16 times (tokens came back, and a newcomer took some before the
    /// head could use them), newcomers are shut out until it is served. *Work conservation*: waiters are woken, in order, as long as there are tokens
    /// that no waiter woken before needs, even if a woken waiter does not run. A queued waiter that is polled without having been woken takes nothing.
    Barging,
}

/// A consistent view of a bucket's counters, returned by [`TokenBucket::snapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Snapshot {
    /// The configured total.
    pub capacity: usize,
    /// The largest capacity that can be set.
    pub max_capacity: usize,
    /// The tokens in the bucket.
    pub available: usize,
    /// The tokens that are held or were forgotten: `capacity - available`, or 0 if the bucket is overfilled.
    pub outstanding: usize,
    /// How many outstanding tokens exceed the current capacity; that many will be retired when they come back.
    pub deficit: usize,
    /// Whether the bucket was closed.
    pub closed: bool,
}

impl Snapshot {
    #[inline]
    fn new(state: State, max: u32) -> Self {
        let count = |n: i64| usize::try_from(n).unwrap_or(0);
        Self {
            capacity: state.capacity() as usize,
            max_capacity: max as usize,
            available: count(state.available()),
            outstanding: count(i64::from(state.capacity()) - state.available()),
            deficit: count(-state.available()),
            closed: state.is_closed(),
        }
    }
}

/// # Creating a bucket
impl TokenBucket {
    /// The largest value of [`max_capacity`](Self::max_capacity): **2²⁸ − 1 on every target**, because capacity and available tokens
    /// share one atomic word. To limit bytes, count in KiB.
    pub const MAX_CAPACITY: usize = state::MAX_CAPACITY as usize;

    const_fn! {
        /// Creates a full bucket of `n` tokens that can be resized up to [`MAX_CAPACITY`](Self::MAX_CAPACITY).
        ///
        /// If `n` is 0, the bucket is paused until its capacity is set.
        ///
        /// # Examples
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::with_capacity(20);
        /// assert_eq!(CONNECTIONS.capacity(), 20);
        /// ```
        ///
        /// # Panics
        ///
        /// If `n` is above [`MAX_CAPACITY`](Self::MAX_CAPACITY); in a `static` or a `const` that is a compile error. Use
        /// [`new`](Self::new) for a number that is not known at compile time.
        #[track_caller]
        pub const fn with_capacity(n: usize) -> Self {
            Self::const_new(Self::MAX_CAPACITY, n)
        }
    }

    /// Creates a full bucket of `initial` tokens, whose capacity can later be set to anything up to `max_capacity`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::{CapacityError, TokenBucket};
    /// assert!(TokenBucket::new(10, 0).is_ok()); // paused until the capacity is set
    /// assert_eq!(
    ///     TokenBucket::new(10, 11).unwrap_err(),
    ///     CapacityError::InitialExceedsMax { initial: 11, max_capacity: 10 },
    /// );
    /// ```
    ///
    /// # Errors
    ///
    /// If `max_capacity` is 0 or above [`MAX_CAPACITY`](Self::MAX_CAPACITY), or `initial` is above `max_capacity`.
    pub fn new(max_capacity: usize, initial: usize) -> Result<Self, CapacityError> {
        if max_capacity == 0 {
            return Err(CapacityError::MaxIsZero);
        }
        if max_capacity > Self::MAX_CAPACITY {
            return Err(CapacityError::MaxTooLarge { max_capacity, limit: Self::MAX_CAPACITY });
        }
        if initial > max_capacity {
            return Err(CapacityError::InitialExceedsMax { initial, max_capacity });
        }
        Ok(Self::const_new(max_capacity, initial))
    }

    const_fn! {
        /// Creates a bucket like [`new`](Self::new), in a `static` or a `const`.
        ///
        /// # Examples
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::const_new(1000, 20);
        /// assert_eq!(CONNECTIONS.max_capacity(), 1000);
        /// ```
        ///
        /// ```compile_fail
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::const_new(20, 1000);
        /// # fn main() { CONNECTIONS.capacity(); }
        /// ```
        ///
        /// # Panics
        ///
        /// Where `new` returns an error; in a `static` or a `const` that is a compile error.
        #[track_caller]
        pub const fn const_new(max_capacity: usize, initial: usize) -> Self {
            assert!(max_capacity > 0, "max_capacity is 0, but a bucket must be able to hold a token");
            assert!(max_capacity <= Self::MAX_CAPACITY, "max_capacity is above TokenBucket::MAX_CAPACITY");
            assert!(initial <= max_capacity, "initial capacity is above max_capacity");
            #[allow(clippy::cast_possible_truncation, reason = "both are at most MAX_CAPACITY")]
            Self {
                combiner: Combiner::new(max_capacity as u32, initial as u32),
                #[cfg(feature = "std")]
                cause: std::sync::OnceLock::new(),
            }
        }
    }

    /// Returns the same bucket with another [`Fairness`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::{Fairness, TokenBucket};
    /// let bucket = TokenBucket::with_capacity(8).with_fairness(Fairness::Barging);
    /// assert_eq!(bucket.fairness(), Fairness::Barging);
    /// ```
    #[must_use]
    pub const fn with_fairness(mut self, fairness: Fairness) -> Self {
        self.combiner.set_fairness(fairness);
        self
    }
}

/// # Taking without waiting
impl TokenBucket {
    /// Takes one token if one is available and no waiter is entitled to it.
    ///
    /// Never blocks. [`Empty`](TryTakeError::Empty) does not mean that [`available`](Self::available) is 0: the tokens may be for a waiter that needs
    /// more of them. May spuriously return `Empty` while another thread is handing out tokens.
    ///
    /// # Examples
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
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryTakeError};
    /// let bucket = TokenBucket::new(8, 4)?;
    /// assert_eq!(bucket.try_take_many(3)?.count(), 3);
    /// assert!(matches!(bucket.try_take_many(5), Err(TryTakeError::Empty)));
    /// assert!(matches!(bucket.try_take_many(9), Err(TryTakeError::ExceedsMax { max_capacity: 8, .. })));
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
    /// # Examples
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
        match Request::up_to(n).try_take(&self.combiner) {
            Ok(taken) => Ok(Token::new(self, taken)),
            Err(refused) => Err(self.take_error(n, refused)),
        }
    }

    /// Like [`try_take`](Self::try_take), but returns a token that keeps the bucket alive.
    ///
    /// # Examples
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
    /// # Examples
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
    /// # Examples
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
        match Request::up_to(n).try_take(&self.combiner) {
            Ok(taken) => Ok(OwnedToken::new(Arc::clone(self), taken)),
            Err(refused) => Err(self.take_error(n, refused)),
        }
    }
}

/// # Waiting for tokens
impl TokenBucket {
    /// Waits for one token: a future, which can also block a thread ([`TakeFuture::wait`](crate::TakeFuture::wait)).
    ///
    /// A task that takes tokens in a loop without ever waiting does not yield to other tasks of tokio, unless the feature `tokio` is on. (Without it,
    /// call `tokio::task::coop::consume_budget().await` in the loop.)
    ///
    /// # Examples
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
    #[doc(alias = "acquire")]
    #[inline]
    pub fn take(&self) -> Take<'_> {
        self.take_many(1)
    }

    /// Waits for `n` tokens, and takes them at once.
    ///
    /// If `n` is above the capacity, but not above [`max_capacity`](Self::max_capacity), the request is *deferred*: it waits for the capacity to
    /// grow, without holding up other waiters. If `n` is 0, the future is ready at once with an empty guard.
    ///
    /// # Examples
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
    #[doc(alias = "acquire_many")]
    #[inline]
    pub fn take_many(&self, n: usize) -> Take<'_> {
        Take::new(self, Request::exactly(n))
    }

    /// Waits until at least one token can be had, and takes up to `n` of those that are available when it is served.
    ///
    /// `n` may be any number. If it is 0, the future is ready at once with an empty guard.
    ///
    /// # Examples
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
    #[inline]
    pub fn take_up_to(&self, n: usize) -> Take<'_> {
        Take::new(self, Request::up_to(n))
    }

    /// Like [`take`](Self::take), but the future and its token keep the bucket alive.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::{TakeError, TokenBucket};
    /// # futures::executor::block_on(async {
    /// let bucket = Arc::new(TokenBucket::with_capacity(1));
    /// let token = bucket.take_owned().await?;
    /// let worker = std::thread::spawn(move || drop(token)); // moves the token to another thread or task
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
    /// # Examples
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
    /// # Examples
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

/// # Giving back without a guard
impl TokenBucket {
    /// Puts one token into the bucket, and waits while the bucket is full, that is, has
    /// [`max_capacity`](Self::max_capacity) tokens available.
    ///
    /// The token need not have been taken before: this is how a [forgotten](TokenGuard::forget) token is replaced. (To enforce a rate, see
    /// [`RateLimiter`](crate::RateLimiter) and [`Refill`](crate::Refill). To add permits, use [`update_capacity`](Self::update_capacity).)
    ///
    /// A bucket that is given more tokens than are outstanding has more [`available`](Self::available) than its capacity: it is *overfilled*. **A
    /// guard that is dropped into a bucket with `max_capacity` tokens available gives nothing back.**
    ///
    /// # Examples
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
    pub fn release(&self) -> Release<'_> {
        Release::new(self)
    }

    /// Puts one token into the bucket if there is room.
    ///
    /// # Examples
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
    /// There is no waiting variant because it could deadlock with a waiting [`take_many`](Self::take_many).
    ///
    /// # Examples
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

    /// Puts as many of `n` tokens into the bucket as fit below [`max_capacity`](Self::max_capacity), and returns how many that were. `n` may be any
    /// number.
    ///
    /// Like the drop of a guard, this also works on a closed bucket.
    ///
    /// **A refill does not raise the capacity.** A request above the capacity stays deferred until that many tokens are available at once, and requests
    /// behind it may take them first: for ever, if they keep coming. To add permits, use [`update_capacity`](Self::update_capacity).
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(10, 8)?;
    /// assert_eq!(bucket.refill(5), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(clippy::must_use_candidate, reason = "callers that fill a bucket up need not care")]
    pub fn refill(&self, n: usize) -> usize {
        self.combiner.give_and_serve(n).fitted()
    }
}

/// # Changing the capacity
impl TokenBucket {
    /// Changes the capacity in one atomic step, and returns the state right after it.
    ///
    /// The available tokens change by as much as the capacity does. When this returns, the new capacity is in force. Every waiter that can
    /// now proceed has been woken, or is being woken by another thread.
    ///
    /// * A shrink never revokes a held token, and never waits. If more tokens are held than the new
    ///   capacity allows, the excess is a [`deficit`](Self::deficit): returned tokens are retired until it is gone; only then are waiters
    ///   served. A growth reduces the deficit as well, so after 10 → 0 → 10 the capacity is exactly 10 again, however many tokens are held.
    /// * A growth lets exactly as many waiters proceed as can be served, in FIFO order, and wakes no others. (In a [`Fairness::Barging`]
    ///   bucket they are woken to try, and callers may come between.)
    /// * A queued request for more than the new capacity is deferred: it is skipped without blocking the waiters behind it, and regains its queue position
    ///   once the capacity suffices.
    /// * 0 pauses the bucket: every request waits, in order.
    /// * The available tokens never exceed [`max_capacity`](Self::max_capacity). In a bucket that was [overfilled](Self::release), a growth may
    ///   therefore add fewer tokens than the shrink that follows removes.
    ///
    /// Two controllers that set absolute capacities overwrite each other; use [`update_capacity`](Self::update_capacity) for changes that add up.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(10);
    /// let tokens = bucket.try_take_many(8)?;
    /// let now = bucket.set_capacity(5)?;
    /// assert_eq!((now.available, now.outstanding, now.deficit), (0, 8, 3));
    /// # drop(tokens);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SetCapacityError::OutOfRange`] if `capacity` is above [`max_capacity`](Self::max_capacity), and
    /// [`SetCapacityError::Closed`]; the bucket is unchanged then.
    #[doc(alias = "resize")]
    #[doc(alias = "forget_permits")]
    #[inline]
    pub fn set_capacity(&self, capacity: usize) -> Result<Snapshot, SetCapacityError> {
        let capacity = self.check_capacity(capacity)?;
        match self.combiner.set_capacity(capacity) {
            Ok(state) => Ok(Snapshot::new(state, self.combiner.max())),
            Err(_) => Err(self.closed().into()),
        }
    }

    /// Sets the capacity to `f(capacity)` in one atomic step, and returns the state right after it: for relative and conditional changes by
    /// several controllers.
    ///
    /// `f` may be called more than once, if other threads change the capacity at the same time. It may call back into the bucket. If it panics, the bucket is
    /// unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(10);
    /// bucket.update_capacity(|capacity| capacity * 9 / 10)?;
    /// bucket.update_capacity(|capacity| capacity + 1)?;
    /// assert_eq!(bucket.capacity(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`set_capacity`](Self::set_capacity).
    #[doc(alias = "add_permits")]
    pub fn update_capacity(&self, mut f: impl FnMut(usize) -> usize) -> Result<Snapshot, SetCapacityError> {
        let mut from = self.combiner.state().capacity();
        loop {
            if self.is_closed() {
                return Err(self.closed().into());
            }
            // Not within the step, for it is user code.
            let capacity = self.check_capacity(f(from as usize))?;
            match self.combiner.set_capacity_from(from, capacity) {
                Ok(state) => return Ok(Snapshot::new(state, self.combiner.max())),
                Err(Ok(actual)) => from = actual,
                Err(Err(_)) => return Err(self.closed().into()),
            }
        }
    }

    /// Adds `n` to the capacity, and takes the new tokens in the same step, ahead of the queue. The available tokens are untouched.
    ///
    /// For a caller that brings its own resource, such as a connection that was opened elsewhere. The inverse is [`TokenGuard::retire`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(2);
    /// let token = bucket.grow_and_take(1)?;
    /// assert_eq!((bucket.capacity(), bucket.available()), (3, 2));
    /// drop(token);
    /// assert_eq!((bucket.capacity(), bucket.available()), (3, 3));
    /// # Ok::<(), token_bucket::SetCapacityError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SetCapacityError::OutOfRange`] if the capacity plus the deficit would be above [`max_capacity`](Self::max_capacity), and
    /// [`SetCapacityError::Closed`]; the bucket is unchanged then.
    pub fn grow_and_take(&self, n: usize) -> Result<Token<'_>, SetCapacityError> {
        self.grow_by(n).map(|()| Token::new(self, n))
    }

    /// Like [`grow_and_take`](Self::grow_and_take), but returns a guard that keeps the bucket alive.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::with_capacity(2));
    /// let token = bucket.grow_and_take_owned(1)?;
    /// assert_eq!((bucket.capacity(), bucket.outstanding()), (3, 1));
    /// # drop(token);
    /// # Ok::<(), token_bucket::SetCapacityError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Same as for [`grow_and_take`](Self::grow_and_take).
    pub fn grow_and_take_owned(self: &Arc<Self>, n: usize) -> Result<OwnedToken, SetCapacityError> {
        self.grow_by(n).map(|()| OwnedToken::new(Arc::clone(self), n))
    }

    fn grow_by(&self, n: usize) -> Result<(), SetCapacityError> {
        self.combiner.grow_and_take(n).map_err(|refused| {
            if refused == Refused::Closed {
                return self.closed().into();
            }
            let Snapshot { capacity, deficit, max_capacity, .. } = self.snapshot();
            SetCapacityError::OutOfRange { requested: (capacity + deficit).saturating_add(n), max_capacity }
        })
    }

    #[inline]
    fn check_capacity(&self, capacity: usize) -> Result<u32, SetCapacityError> {
        let max_capacity = self.max_capacity();
        if capacity > max_capacity {
            return Err(SetCapacityError::OutOfRange { requested: capacity, max_capacity });
        }
        Ok(self.to_u32(capacity))
    }
}

/// # Watching
impl TokenBucket {
    /// Returns the configured total: tokens available plus tokens outstanding.
    pub fn capacity(&self) -> usize {
        self.snapshot().capacity
    }

    /// Returns the largest capacity that can be set.
    #[inline]
    pub fn max_capacity(&self) -> usize {
        self.combiner.max() as usize
    }

    /// Returns the number of tokens in the bucket.
    ///
    /// May be above 0 while [`try_take`](Self::try_take) returns `Empty`: a larger request may be waiting for more.
    #[doc(alias = "available_permits")]
    pub fn available(&self) -> usize {
        self.snapshot().available
    }

    /// Returns the number of tokens that are held, or were forgotten.
    pub fn outstanding(&self) -> usize {
        self.snapshot().outstanding
    }

    /// Returns how many outstanding tokens exceed the capacity; that many are retired when they come back.
    pub fn deficit(&self) -> usize {
        self.snapshot().deficit
    }

    /// Returns the number of tasks and threads that are queued for tokens.
    ///
    /// **Approximate** while other threads use the bucket: a waiter that finds the queue in use is not counted until it is queued. A waiter that was woken
    /// counts until it has taken its tokens.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{TokenBucket, WaitError};
    /// let bucket = TokenBucket::with_capacity(0); // paused
    /// let result = bucket.take().wait_timeout(Duration::from_millis(1));
    /// assert!(matches!(result, Err(WaitError::TimedOut)));
    /// assert_eq!(bucket.waiting(), 0); // the timed-out request is no longer queued
    /// ```
    #[doc(alias = "waiters")]
    pub fn waiting(&self) -> usize {
        self.combiner.waiting()
    }

    /// Returns a consistent view of all counters but [`waiting`](Self::waiting).
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(5);
    /// let token = bucket.try_take_many(2)?;
    /// let now = bucket.snapshot();
    /// assert_eq!((now.capacity, now.available, now.outstanding, now.deficit, now.closed), (5, 3, 2, 0, false));
    /// # drop(token);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.combiner.state(), self.combiner.max())
    }

    /// Returns the order in which waiters are served.
    pub fn fairness(&self) -> Fairness {
        self.combiner.fairness()
    }

    /// Waits until no token is outstanding: a future, which can also block a thread ([`Watch::wait`](crate::Watch::wait)).
    ///
    /// It does not stop callers from taking more; [close](Self::close) the bucket first for an orderly shutdown. **A
    /// [forgotten](TokenGuard::forget) token is outstanding**, so this waits until another one is released in its place.
    ///
    /// The future is ready if there was a moment without outstanding tokens since it was first polled. A token that is handed
    /// directly to a waiter makes no such moment, and a moment that [`grow_and_take`](Self::grow_and_take) ends at once may be missed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::with_capacity(8);
    /// let token = bucket.try_take()?;
    ///
    /// bucket.close();
    /// let (_, ()) = futures::join!(bucket.idle(), async { drop(token) }); // all held tokens have been returned
    /// assert_eq!(bucket.outstanding(), 0);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// # }).unwrap();
    /// ```
    pub fn idle(&self) -> Idle<'_> {
        Idle::idle(self)
    }

    /// Waits until no [`deficit`](Self::deficit) is left, that is, until a shrink has taken full effect: a future, which can also block a
    /// thread ([`Watch::wait`](crate::Watch::wait)).
    ///
    /// The future is ready if there was a moment without deficit since it was first polled. A moment that the next shrink ends at once may be missed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::with_capacity(8);
    /// let tokens = bucket.try_take_many(8)?;
    /// bucket.set_capacity(2)?;
    /// futures::join!(bucket.settled(), async { drop(tokens) });
    /// assert_eq!(bucket.deficit(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn settled(&self) -> Settled<'_> {
        Settled::settled(self)
    }
}

/// # Closing
impl TokenBucket {
    /// Closes the bucket for good: no take, release or resize succeeds afterwards, and every waiter is woken with an error
    /// ([`Closed`]). Held tokens can still come back, and are counted.
    ///
    /// Returns true for the call that closed it. A waiter that was granted its tokens before, and was not polled yet, still gets them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::{TokenBucket, TryTakeError};
    /// let bucket = TokenBucket::with_capacity(8);
    /// assert!(bucket.close());
    /// assert!(!bucket.close());
    /// assert!(matches!(bucket.try_take(), Err(TryTakeError::Closed(_))));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "that it is closed now is what it is called for")]
    pub fn close(&self) -> bool {
        self.close_for(None)
    }

    /// Closes the bucket like [`close`](Self::close), with a cause that every waiter gets as the [`source`](core::error::Error::source) of [`Closed`].
    ///
    /// If several calls close a bucket, the first one gives the cause.
    ///
    /// # Examples
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
    #[cfg(feature = "std")]
    #[allow(clippy::must_use_candidate, reason = "that it is closed now is what it is called for")]
    pub fn close_with(&self, cause: impl Into<alloc::boxed::Box<dyn core::error::Error + Send + Sync>>) -> bool {
        self.close_for(Some(Cause::new(AssertUnwindSafe(cause.into()))))
    }

    /// Returns whether the bucket was closed.
    pub fn is_closed(&self) -> bool {
        self.combiner.state().is_closed()
    }

    /// The call that sets the cause has closed the bucket. Each call closes the word itself, so that it is closed when the call returns.
    #[cfg(feature = "std")]
    fn close_for(&self, cause: Option<Cause>) -> bool {
        let is_first = self.cause.set(cause).is_ok();
        self.combiner.close();
        is_first
    }

    #[cfg(not(feature = "std"))]
    fn close_for(&self, _: Option<Cause>) -> bool {
        self.combiner.close()
    }
}

// For the futures and the guards.
impl TokenBucket {
    #[inline]
    pub(crate) const fn combiner(&self) -> &Combiner {
        &self.combiner
    }

    /// Takes `n` tokens for a guard.
    #[inline]
    pub(crate) fn try_take_n(&self, n: usize) -> Result<(), Refused> {
        // One comparison for both ends of 1..=max.
        if n.wrapping_sub(1) < self.max_capacity() {
            self.combiner.try_take(self.to_u32(n))
        } else {
            Request::exactly(n).try_take(&self.combiner).map(drop)
        }
    }

    /// Why `n` tokens could not be taken.
    #[cold]
    pub(crate) fn take_error(&self, n: usize, refused: Refused) -> TryTakeError {
        match refused {
            Refused::NotNow => TryTakeError::Empty,
            Refused::Closed => self.closed().into(),
            Refused::ExceedsMax => TryTakeError::ExceedsMax { requested: n, max_capacity: self.max_capacity() },
        }
    }

    /// A number that is not above the maximum, as the word has it.
    #[inline]
    pub(crate) fn to_u32(&self, n: usize) -> u32 {
        debug_assert!(n <= self.max_capacity());
        #[allow(clippy::cast_possible_truncation, reason = "the maximum fits")]
        let n = n as u32;
        n
    }

    #[cold]
    #[cfg_attr(not(feature = "std"), allow(clippy::unused_self, reason = "there are no causes without std"))]
    pub(crate) fn closed(&self) -> Closed {
        #[cfg(feature = "std")]
        return Closed::new(self.cause.get().cloned().flatten());
        #[cfg(not(feature = "std"))]
        return Closed::new(None);
    }
}

/// For the [`Handle`](crate::Handle)s.
impl AsRef<TokenBucket> for TokenBucket {
    #[inline]
    fn as_ref(&self) -> &TokenBucket {
        self
    }
}

impl fmt::Debug for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Snapshot { capacity, max_capacity, available, outstanding, deficit, closed } = self.snapshot();
        f.debug_struct("TokenBucket")
            .field("capacity", &capacity)
            .field("max_capacity", &max_capacity)
            .field("available", &available)
            .field("outstanding", &outstanding)
            .field("deficit", &deficit)
            .field("closed", &closed)
            .field("waiting", &self.waiting())
            .field("fairness", &self.fairness())
            .finish()
    }
}
