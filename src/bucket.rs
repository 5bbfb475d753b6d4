//! [`TokenBucket`], the central type. Its methods are in the files of the directory `bucket`, one group in each.

// In this order, because rustdoc lists the groups of methods in it. The blank lines keep rustfmt from sorting the lines.
mod create;

mod take;

mod give;

mod resize;

mod watch;

mod close;

use core::fmt;

use crate::combiner::Combiner;
use crate::state::{Refused, State};
use crate::take::Request;
use crate::{Closed, TryTakeError};

/// A resizable semaphore: a bucket of tokens whose capacity can be changed while it is used.
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
/// Taking a token returns a [`Token`] guard and reduces [`available`](Self::available) by one; dropping the guard returns the
/// token. The *capacity* is the configured total: available plus outstanding tokens, unless there is a deficit, or the bucket is
/// *overfilled* (see [`release`](Self::release)). [`set_capacity`](Self::set_capacity) changes it to anything from 0 to the
/// bucket's largest capacity, in one atomic step. If more tokens are held than a smaller capacity allows, the bucket has a
/// *deficit*: returned tokens pay it off before any waiter gets one.
///
/// A bucket is shared by reference, in a `static`, in an [`Arc`] (with the `_owned` methods), or within another shared type (see
/// [`TokenGuard`]).
///
/// # Fairness
///
/// By default, requests are served in the order of their arrival; see [`Fairness`].
///
/// # Memory ordering
///
/// Returning a token *synchronizes-with* the acquisition that receives it: the new holder sees everything that the previous holder
/// did.
///
/// Exactly: every successful take happens-after each return, release, refill and resize that came before it in the bucket's
/// (single, total) order of changes, and after everything that happened before those in their threads. This gives no mutual
/// exclusion if the capacity is above 1. A refused attempt, and every getter, is ordered after the changes that it shows (an
/// acquire load), and orders nothing for others.
///
/// # Panics and leaks
///
/// A panic while a token is held returns the token, and poisons nothing. If a [`Waker`](core::task::Waker) panics in a call that
/// wakes it, the others are still woken, no token is lost, and the panic continues in that call. (If two of them panic, the process
/// aborts, as after any second panic during unwinding.) A waker may call back into the bucket, but must not block: waiters
/// that were granted tokens in the same call may be woken only after it returns. If a waker drops its own pending future, the
/// hand-off recurses; thousands of such waiters can overflow the stack.
///
/// A future that is leaked ([`mem::forget`](core::mem::forget)) is not cancelled. If it was not polled, that costs nothing. In a
/// [`Fairness::Fifo`] bucket it keeps its place, gets its tokens in turn and keeps them; later waiters still proceed, with that
/// many fewer tokens (a [`refill`](Self::refill) replaces them). In a [`Fairness::Barging`] bucket it is woken once, and claims the
/// tokens it was woken for until it has been bypassed 16 times; then it is granted its tokens and keeps them. A leaked [`Release`]
/// that was woken claims room for one token.
///
/// [`Arc`]: alloc::sync::Arc
/// [`Release`]: crate::Release
/// [`Token`]: crate::Token
/// [`TokenGuard`]: crate::TokenGuard
#[doc(alias = "semaphore")]
pub struct TokenBucket {
    combiner: Combiner,
    #[cfg(feature = "std")]
    closed: std::sync::OnceLock<Closed>,
}

/// The order in which waiters and callers are served when tokens are scarce.
///
/// ```
/// # use token_bucket::{Fairness, TokenBucket};
/// let bucket = TokenBucket::with_capacity(8).with_fairness(Fairness::Barging);
/// assert_eq!(bucket.fairness(), Fairness::Barging);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fairness {
    /// First come, first served: in the order in which requests were first polled (or first blocked), even if they are for
    /// different numbers of tokens.
    ///
    /// No caller, not even [`try_take`](TokenBucket::try_take), can overtake a waiter. There is
    /// one exception: a request for more than the capacity is deferred until the capacity has grown (or that many tokens were
    /// released into the bucket); it blocks no other waiter meanwhile, and then regains its place.
    ///
    /// A returned token is handed to the waiter before the waiter runs. So no waiter runs needlessly, but the token is unused until
    /// then, and threads doing short critical sections form a lock convoy, as with any FIFO semaphore. A waiter may be seen ready
    /// before an earlier one, for as long as the serving thread is suspended between the two.
    #[default]
    Fifo,
    /// A caller may take an available token ahead of the queue, so a running thread need not stop for a sleeping one.
    ///
    /// A returned token stays in the bucket, and the waiter at the head of the queue is woken to take it, if it is still there.
    /// *Bounded bypass*: once the head of the queue has lost 16 times (tokens came back, and a newcomer took some before the head
    /// could use them), newcomers are shut out until it is served. *Work conservation*: waiters are woken, in order, as long as
    /// there are tokens that no waiter woken before needs, even if a woken waiter does not run. A queued waiter that is polled
    /// without having been woken takes nothing.
    Barging,
}

/// A consistent view of a bucket's counters, returned by [`TokenBucket::snapshot`].
///
/// ```
/// # use token_bucket::TokenBucket;
/// let bucket = TokenBucket::with_capacity(10);
/// let held = bucket.try_take_many(4)?;
/// let now = bucket.set_capacity(3)?;
/// assert_eq!((now.available, now.outstanding, now.deficit), (0, 4, 1));
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Snapshot {
    /// The configured total: available plus outstanding tokens, unless there is a deficit or the bucket is overfilled.
    pub capacity: usize,
    /// The largest capacity that can be set.
    pub max_capacity: usize,
    /// The tokens in the bucket.
    pub available: usize,
    /// The tokens that are held or were forgotten, less those that `release` or `refill` has replaced: `capacity − available +
    /// deficit`, or 0 if the bucket is overfilled.
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

    /// Returns the error for a request for `n` tokens that was refused.
    #[cold]
    pub(crate) fn take_error(&self, n: usize, refused: Refused) -> TryTakeError {
        match refused {
            Refused::NotNow => TryTakeError::Empty,
            Refused::Closed => self.closed().into(),
            Refused::ExceedsMax => TryTakeError::ExceedsMax { requested: n, max_capacity: self.max_capacity() },
        }
    }

    /// Converts a number that is not above the maximum.
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
        return self.closed.get().cloned().unwrap_or(Closed::new());
        #[cfg(not(feature = "std"))]
        return Closed::new();
    }
}

/// Makes every pointer to a bucket a [`Handle`](crate::Handle).
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
