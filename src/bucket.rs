//! [`TokenBucket`]: what users call.

use alloc::sync::Arc;
use core::fmt;
#[cfg(feature = "std")]
use core::panic::AssertUnwindSafe;

use crate::error::Cause;
use crate::line::Line;
use crate::state::{self, Refused, State};
use crate::sync::const_fn;
use crate::{
    CapacityError, Closed, Idle, OwnedToken, Release, SetCapacityError, Take, TakeOwned, Token, TryReleaseError, TryTakeError,
};

/// A bucket of tokens whose capacity can be changed while it is used.
///
/// A taker gets a [`Token`] and the bucket has one less *available*; when the token is dropped, the bucket has it back.
/// The *capacity* is how many tokens there are meant to be in all, in the bucket and out of it;
/// [`set_capacity`](Self::set_capacity) changes it, to anything from 0 to the bucket's largest capacity, in one atomic
/// step. If more tokens are out than a smaller capacity allows, the bucket has a *deficit*: the next tokens that come back
/// make it up, before any waiter gets one.
///
/// A bucket is shared by reference, in a `static`, or in an [`Arc`] (then with `_owned` forms of the takes).
///
/// # Fairness
///
/// By default, takers are served in the order in which they came, see [`Fairness`].
///
/// # Memory ordering
///
/// Who takes a token sees everything that was done by those who gave it back.
///
/// Exactly: every successful take happens-after each drop of a token, release, refill and resize that came before it
/// in the bucket's (single, total) order of changes, and after all that happened before those in their threads. This
/// makes no mutual exclusion where the capacity is above 1. A refused attempt, and every getter, is ordered after the changes
/// that it shows (an acquire load), and orders nothing for others.
///
/// # Panics and leaks
///
/// A panic while a token is held gives it back, and poisons nothing. If a [`Waker`](core::task::Waker) panics in a call that
/// wakes it, the others are still woken, no token is lost, and the panic goes on in that call. (If two of them do, the process aborts,
/// as always when a panic unwinds into a panic.) A waker may call back into the bucket. One that drops its own
/// waiting future passes its tokens on from within, so a line of thousands of such wakers nests as deep.
///
/// A future that is leaked ([`mem::forget`](core::mem::forget)) is not cancelled. If it was not polled, that costs nothing. In a [`Fairness::Fifo`]
/// bucket it keeps its place, gets its tokens in turn and keeps them; those behind it go on, with so many fewer (a
/// [`refill`](Self::refill) replaces them). In a [`Fairness::Barging`] bucket it is called once, and the next one may wait for 256 more returns of
/// tokens, once; if it is passed over 16 times, it is served and keeps its tokens. A leaked [`Release`] that was called holds up
/// the next one until the next take.
///
/// # Examples
///
/// ```
/// use token_bucket::TokenBucket;
///
/// let bucket = TokenBucket::new(100, 2)?;
/// let one = bucket.try_take()?;
/// let two = bucket.try_take()?;
/// assert!(bucket.try_take().is_err());
///
/// bucket.set_capacity(1)?; // both tokens stay valid
/// assert_eq!(bucket.deficit(), 1);
/// drop(one); // makes up for the deficit
/// assert!(bucket.try_take().is_err());
/// drop(two);
/// assert!(bucket.try_take().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TokenBucket {
    line: Line,
    #[cfg(feature = "std")]
    cause: std::sync::OnceLock<Option<Cause>>,
}

/// Who is served first when tokens are scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fairness {
    /// First come, first served: in the order in which requests were first polled (or first blocked), also when they
    /// want different amounts.
    ///
    /// Nobody who comes later gets a token while somebody waits who could use it, not even by
    /// [`try_take`](TokenBucket::try_take). There is one exception: a request for more than the capacity waits aside until the
    /// capacity has grown (or so many tokens were released into the bucket), holds up nobody meanwhile, and takes its
    /// old place in the order then.
    ///
    /// Tokens that come back are handed to the waiter before it runs. So it never runs in vain; but the token is idle until it runs,
    /// and threads that block for short work go in lockstep (a *convoy*).
    #[default]
    Fifo,
    /// Who finds tokens may take them, past the line; so running threads do not stop for sleeping ones.
    ///
    /// A token that comes back is left in the bucket, and the waiter at the head of the line is called to take it, if
    /// it is still there. Starvation is bounded: a waiter shuts the bucket for newcomers, and is served before anyone else, at the
    /// latest when it was called or passed over in vain 16 times.
    ///
    /// One waiter is called at a time; the next one when that one has run. (If it does not run, although it was
    /// woken, the next one is called after 256 more returns of tokens.)
    Barging,
}

/// What a bucket was at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Snapshot {
    /// The tokens that there are meant to be in all.
    pub capacity: usize,
    /// What the capacity can be at most.
    pub max_capacity: usize,
    /// The tokens in the bucket.
    pub available: usize,
    /// The tokens that are out: `capacity - available`, or 0 if releases have put more into the bucket than its capacity.
    pub outstanding: usize,
    /// The tokens that are out, but that a smaller capacity has asked back.
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

impl TokenBucket {
    /// The most that [`max_capacity`](Self::max_capacity) can be: 2²⁸ − 1, on every target.
    pub const MAX_CAPACITY: usize = state::MAX_CAPACITY as usize;

    /// Makes a full bucket of `initial` tokens, whose capacity can later be set to anything up to `max_capacity`.
    ///
    /// # Errors
    ///
    /// If `max_capacity` is 0 or above [`MAX_CAPACITY`](Self::MAX_CAPACITY), or `initial` is above `max_capacity`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::{CapacityError, TokenBucket};
    /// assert!(TokenBucket::new(10, 0).is_ok()); // everyone waits until the capacity is set
    /// assert_eq!(
    ///     TokenBucket::new(10, 11).unwrap_err(),
    ///     CapacityError::InitialExceedsMax { initial: 11, max_capacity: 10 },
    /// );
    /// ```
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
        /// As [`new`](Self::new), for a `static`.
        ///
        /// # Panics
        ///
        /// Where `new` refuses; in a `static` or a `const` this is an error of the compiler.
        ///
        /// # Examples
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::const_new(1000, 20);
        /// assert_eq!(CONNECTIONS.capacity(), 20);
        /// ```
        ///
        /// ```compile_fail
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::const_new(20, 1000);
        /// # fn main() { CONNECTIONS.capacity(); }
        /// ```
        #[track_caller]
        pub const fn const_new(max_capacity: usize, initial: usize) -> Self {
            assert!(max_capacity > 0, "max_capacity is 0, but a bucket must be able to hold a token");
            assert!(max_capacity <= Self::MAX_CAPACITY, "max_capacity is above TokenBucket::MAX_CAPACITY");
            assert!(initial <= max_capacity, "initial capacity is above max_capacity");
            #[allow(clippy::cast_possible_truncation, reason = "both are at most MAX_CAPACITY")]
            Self {
                line: Line::new(max_capacity as u32, initial as u32),
                #[cfg(feature = "std")]
                cause: std::sync::OnceLock::new(),
            }
        }
    }

    /// The same bucket with another [`Fairness`].
    #[must_use]
    pub const fn with_fairness(mut self, fairness: Fairness) -> Self {
        self.line.set_fairness(fairness);
        self
    }

    /// Takes one token if there is one, and if it is not for somebody who waits.
    ///
    /// Never blocks. While another thread is just handing out tokens, or looks whether those that have come are for somebody who waits, it
    /// may find [`Empty`](TryTakeError::Empty) what will turn out to be left.
    ///
    /// # Errors
    ///
    /// [`TryTakeError::Empty`] and [`TryTakeError::Closed`]; the bucket is unchanged then.
    #[inline]
    pub fn try_take(&self) -> Result<Token<'_>, TryTakeError> {
        // Straight to the line, for every bucket can hold one.
        match self.line.take(1) {
            Ok(()) => Ok(Token::new(self, 1)),
            Err(refused) => Err(self.cannot_take(1, refused)),
        }
    }

    /// Takes `n` tokens if there are so many, as [`try_take`](Self::try_take).
    ///
    /// # Errors
    ///
    /// [`TryTakeError::Empty`], [`TryTakeError::Closed`], and [`TryTakeError::ExceedsMax`] if `n` is above
    /// [`max_capacity`](Self::max_capacity); the bucket is unchanged then.
    #[inline]
    pub fn try_take_many(&self, n: usize) -> Result<Token<'_>, TryTakeError> {
        match self.acquire(n) {
            Ok(()) => Ok(Token::new(self, n)),
            Err(refused) => Err(self.cannot_take(n, refused)),
        }
    }

    /// Takes what is there now, but no more than `n` tokens: at least one, unless `n` is 0. Any `n` will do.
    ///
    /// # Errors
    ///
    /// As for [`try_take`](Self::try_take). A deficit stays what it is: there is nothing to take then.
    pub fn try_take_up_to(&self, n: usize) -> Result<Token<'_>, TryTakeError> {
        let taken = match self.fitting(n.min(self.max_capacity())) {
            0 => self.acquire_odd(0).map(|()| 0),
            n => self.line.take_up_to(n),
        };
        match taken {
            Ok(taken) => Ok(Token::new(self, taken as usize)),
            Err(refused) => Err(self.cannot_take(n, refused)),
        }
    }

    /// As [`try_take`](Self::try_take), with a token that keeps the bucket alive.
    ///
    /// # Errors
    ///
    /// As for [`try_take`](Self::try_take).
    #[inline]
    pub fn try_take_owned(self: &Arc<Self>) -> Result<OwnedToken, TryTakeError> {
        match self.line.take(1) {
            Ok(()) => Ok(OwnedToken::new(Arc::clone(self), 1)),
            Err(refused) => Err(self.cannot_take(1, refused)),
        }
    }

    /// As [`try_take_many`](Self::try_take_many), with a guard that keeps the bucket alive.
    ///
    /// # Errors
    ///
    /// As for [`try_take_many`](Self::try_take_many).
    #[inline]
    pub fn try_take_many_owned(self: &Arc<Self>, n: usize) -> Result<OwnedToken, TryTakeError> {
        match self.acquire(n) {
            Ok(()) => Ok(OwnedToken::new(Arc::clone(self), n)),
            Err(refused) => Err(self.cannot_take(n, refused)),
        }
    }

    /// Takes one token, and waits for it if need be: a future, which can also block a thread ([`Take::wait`]).
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::new(8, 1)?;
    /// let token = bucket.take().await?;
    /// assert_eq!(bucket.available(), 0);
    /// # drop(token);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub fn take(&self) -> Take<'_> {
        self.take_many(1)
    }

    /// Takes `n` tokens at once, and waits for them if need be.
    ///
    /// If `n` is above the capacity, but not above [`max_capacity`](Self::max_capacity), it waits for the capacity to
    /// grow, and holds up nobody else meanwhile. If `n` is 0, it is ready at once with an empty guard.
    #[inline]
    pub fn take_many(&self, n: usize) -> Take<'_> {
        Take::new(self, n)
    }

    /// As [`take`](Self::take), with a future and a token that keep the bucket alive.
    #[inline]
    pub fn take_owned(self: &Arc<Self>) -> TakeOwned {
        self.take_many_owned(1)
    }

    /// As [`take_many`](Self::take_many), with a future and a guard that keep the bucket alive.
    #[inline]
    pub fn take_many_owned(self: &Arc<Self>, n: usize) -> TakeOwned {
        TakeOwned::new(Some(Arc::clone(self)), n)
    }

    /// Puts one token into the bucket, and waits while the bucket is full, that is, has
    /// [`max_capacity`](Self::max_capacity) tokens available.
    ///
    /// It need not have been taken before: this is how a [forgotten](Token::forget) token is replaced. (To limit a rate, see
    /// [`Refill`](crate::Refill).) If tokens were neither taken nor forgotten, the bucket has more
    /// [`available`](Self::available) than its capacity.
    pub fn release(&self) -> Release<'_> {
        Release::new(self)
    }

    /// Puts one token into the bucket if there is room.
    ///
    /// # Errors
    ///
    /// [`TryReleaseError::Full`] and [`TryReleaseError::Closed`]; the bucket is unchanged then.
    pub fn try_release(&self) -> Result<(), TryReleaseError> {
        self.try_release_many(1)
    }

    /// Puts `n` tokens into the bucket if there is room for all of them. (There is no form that waits: it could wait for a
    /// [`take_many`](Self::take_many) that waits for it.)
    ///
    /// # Errors
    ///
    /// [`TryReleaseError::Full`], [`TryReleaseError::Closed`], and [`TryReleaseError::ExceedsMax`] if `n` is above
    /// [`max_capacity`](Self::max_capacity); the bucket is unchanged then.
    pub fn try_release_many(&self, n: usize) -> Result<(), TryReleaseError> {
        let released = if n > self.max_capacity() { Err(Refused::ExceedsMax) } else { self.line.release(n) };
        released.map_err(|refused| match refused {
            Refused::NotNow => TryReleaseError::Full,
            Refused::Closed => self.closed().into(),
            Refused::ExceedsMax => TryReleaseError::ExceedsMax { requested: n, max_capacity: self.max_capacity() },
        })
    }

    /// Puts as many as fit of `n` tokens into the bucket, and returns how many did. Any `n` will do.
    ///
    /// Like the drop of a token, this also works on a closed bucket.
    #[allow(clippy::must_use_candidate, reason = "those who fill a bucket up do not care")]
    pub fn refill(&self, n: usize) -> usize {
        self.give_back(n)
    }

    /// Changes the capacity, in one atomic step, and returns the state right after it.
    ///
    /// The available tokens change by as much as the capacity does (but they are never more than
    /// [`max_capacity`](Self::max_capacity)). When this returns, the new capacity is in force. Those who can go on
    /// because of it have been told, or are told by a thread that is about it already.
    ///
    /// * A shrink never takes a token away from its holder, and never waits. If more tokens are out than the new
    ///   capacity, the rest is a [`deficit`](Self::deficit), which the next tokens that come back make up, before any waiter
    ///   gets one. A growth makes it up as well, so after 10 → 0 → 10 there are 10 again, whatever is out.
    /// * A growth lets as many waiters on as the tokens suffice for, in order, and wakes nobody else. (In a [`Fairness::Barging`] bucket
    ///   each one calls the next, and newcomers may come between.)
    /// * A waiting request for more than the new capacity steps aside until the capacity is large enough again, and
    ///   holds up nobody meanwhile.
    /// * 0 pauses the bucket: everyone waits, in order.
    ///
    /// # Errors
    ///
    /// [`SetCapacityError::OutOfRange`] if `capacity` is above [`max_capacity`](Self::max_capacity), and
    /// [`SetCapacityError::Closed`]; the bucket is unchanged then.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(10, 10)?;
    /// let tokens = bucket.try_take_many(8)?;
    /// let now = bucket.set_capacity(5)?;
    /// assert_eq!((now.available, now.outstanding, now.deficit), (0, 5 + 3, 3));
    /// # drop(tokens);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn set_capacity(&self, capacity: usize) -> Result<Snapshot, SetCapacityError> {
        if capacity > self.max_capacity() {
            return Err(SetCapacityError::OutOfRange { requested: capacity, max_capacity: self.max_capacity() });
        }
        match self.line.set_capacity(self.fitting(capacity)) {
            Ok(state) => Ok(Snapshot::new(state, self.line.max())),
            Err(_) => Err(self.closed().into()),
        }
    }

    /// How many tokens there are meant to be in all.
    pub fn capacity(&self) -> usize {
        self.snapshot().capacity
    }

    /// What the capacity can be at most.
    #[inline]
    pub fn max_capacity(&self) -> usize {
        self.line.max() as usize
    }

    /// How many tokens are in the bucket.
    pub fn available(&self) -> usize {
        self.snapshot().available
    }

    /// How many tokens are out.
    pub fn outstanding(&self) -> usize {
        self.snapshot().outstanding
    }

    /// How many tokens are out that a shrink has asked back.
    pub fn deficit(&self) -> usize {
        self.snapshot().deficit
    }

    /// How many tasks and threads wait for tokens. A hint: it is counted apart from everything else, and one that is just lining
    /// up may be counted a little before it has its place.
    pub fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// All of it at one instant.
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.line.state(), self.line.max())
    }

    /// Who is served first.
    pub fn fairness(&self) -> Fairness {
        self.line.fairness()
    }

    /// Closes the bucket, for good: no take, release or resize succeeds from now on, and everyone who waits is woken and
    /// gets [`Closed`]. Tokens that are out can still come back, and are counted.
    ///
    /// Returns true for the call that closed it.
    #[allow(clippy::must_use_candidate, reason = "that it is closed now is what it is called for")]
    pub fn close(&self) -> bool {
        self.close_for(None)
    }

    /// As [`close`](Self::close), with the cause, which everyone gets as the [`source`](core::error::Error::source) of [`Closed`].
    ///
    /// Of several calls that close a bucket, the first one gives the cause.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(8, 8)?;
    /// assert!(bucket.close_with("the server is shutting down"));
    /// assert_eq!(
    ///     bucket.try_take().unwrap_err().to_string(),
    ///     "token bucket is closed: the server is shutting down",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "std")]
    #[allow(clippy::must_use_candidate, reason = "that it is closed now is what it is called for")]
    pub fn close_with(&self, cause: impl Into<alloc::boxed::Box<dyn core::error::Error + Send + Sync>>) -> bool {
        self.close_for(Some(Cause::new(AssertUnwindSafe(cause.into()))))
    }

    /// Waits until no token is out, that is, [`outstanding`](Self::outstanding) is 0: a future, which can also block a
    /// thread ([`Idle::wait`]). It does not stop anybody from taking more; [close](Self::close) the bucket first for an orderly end.
    ///
    /// It is ready when there was such a moment since it was first polled. (Tokens that go straight on to those who wait for them, or
    /// just come for them, do not make one.) A [forgotten](Token::forget) token stays out until one is released in
    /// its place.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::new(8, 8)?;
    /// let token = bucket.try_take()?;
    ///
    /// bucket.close(); // nobody gets a token any more
    /// let (_, ()) = futures::join!(bucket.idle(), async { drop(token) }); // those who have one are through
    /// assert_eq!(bucket.outstanding(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn idle(&self) -> Idle<'_> {
        Idle::new(self)
    }

    /// Whether the bucket was closed.
    pub fn is_closed(&self) -> bool {
        self.line.state().is_closed()
    }

    /// Who gives the cause has closed the bucket, and all see to it that it is closed when they return.
    #[cfg(feature = "std")]
    fn close_for(&self, cause: Option<Cause>) -> bool {
        let is_first = self.cause.set(cause).is_ok();
        self.line.close();
        is_first
    }

    #[cfg(not(feature = "std"))]
    fn close_for(&self, _: Option<Cause>) -> bool {
        self.line.close()
    }

    // For the futures and the tokens.

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Takes `n` tokens for a guard.
    #[inline]
    pub(crate) fn acquire(&self, n: usize) -> Result<(), Refused> {
        // One comparison for both ends of 1..=max.
        if n.wrapping_sub(1) < self.max_capacity() { self.line.take(self.fitting(n)) } else { self.acquire_odd(n) }
    }

    /// Takes `n` tokens for a guard, if that is all there is to do.
    #[inline]
    pub(crate) fn acquire_plainly(&self, n: usize) -> bool {
        n.wrapping_sub(1) < self.max_capacity() && self.line.take_plainly(self.fitting(n))
    }

    /// None are always there, and more than the maximum are never.
    #[cold]
    fn acquire_odd(&self, n: usize) -> Result<(), Refused> {
        match n {
            0 if self.is_closed() => Err(Refused::Closed),
            0 => Ok(()),
            _ => Err(Refused::ExceedsMax),
        }
    }

    /// Why `n` tokens could not be taken.
    #[cold]
    pub(crate) fn cannot_take(&self, n: usize, refused: Refused) -> TryTakeError {
        match refused {
            Refused::NotNow => TryTakeError::Empty,
            Refused::Closed => self.closed().into(),
            Refused::ExceedsMax => TryTakeError::ExceedsMax { requested: n, max_capacity: self.max_capacity() },
        }
    }

    /// Puts back what fits of `n` tokens, and says how many did.
    #[inline]
    pub(crate) fn give_back(&self, n: usize) -> usize {
        self.line.give(n)
    }

    /// A number that is not above the maximum, as the word has it.
    #[inline]
    pub(crate) fn fitting(&self, n: usize) -> u32 {
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
