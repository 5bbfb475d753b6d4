//! What is refused, and why.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;

/// What a bucket was closed for. Nothing is left half done in it by a panic of somebody else.
pub(crate) type Cause = Arc<AssertUnwindSafe<Box<dyn Error + Send + Sync>>>;

/// The bucket was closed.
///
/// The [`source`](Error::source) is the cause that was given to [`close_with`](crate::TokenBucket::close_with), if any.
#[derive(Clone, Debug)]
pub struct Closed {
    cause: Option<Cause>,
}

impl Closed {
    #[cold]
    pub(crate) fn new(cause: Option<Cause>) -> Self {
        Self { cause }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "token bucket is closed: {}", cause.0),
            None => f.write_str("token bucket is closed"),
        }
    }
}

impl Error for Closed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &*cause.0 as &(dyn Error + 'static))
    }
}

/// Why [`TokenBucket::new`](crate::TokenBucket::new) refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacityError {
    /// A bucket that can never hold a token is of no use.
    MaxIsZero,
    /// The largest capacity is above [`TokenBucket::MAX_CAPACITY`](crate::TokenBucket::MAX_CAPACITY).
    MaxTooLarge {
        /// The largest capacity that was asked for.
        max_capacity: usize,
        /// What it can be at most.
        limit: usize,
    },
    /// The initial capacity is above the largest.
    InitialExceedsMax {
        /// The capacity that was asked for.
        initial: usize,
        /// The largest capacity that was asked for.
        max_capacity: usize,
    },
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxIsZero => f.write_str("max_capacity is 0, but a bucket must be able to hold a token"),
            Self::MaxTooLarge { max_capacity, limit } => write!(f, "max_capacity {max_capacity} is above the limit of {limit}"),
            Self::InitialExceedsMax { initial, max_capacity } => {
                write!(f, "initial capacity {initial} is above max_capacity {max_capacity}")
            }
        }
    }
}

impl Error for CapacityError {}

/// Why a [`Refill`](crate::Refill) refused a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// So many tokens in no time at all are no rate.
    PeriodIsZero,
    /// The time in which so many tokens are due is too long to be counted in nanoseconds.
    PeriodTooLong {
        /// The time that was asked for.
        per: Duration,
        /// What it can be at most: about 584 years.
        limit: Duration,
    },
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeriodIsZero => f.write_str("a rate needs a period above 0"),
            Self::PeriodTooLong { per, limit } => write!(f, "period of {per:?} is above the limit of {limit:?}"),
        }
    }
}

impl Error for RateError {}

/// Why no token was taken at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryTakeError {
    /// There are too few tokens, or they are for those who wait, or another thread is just finding that out.
    Empty,
    /// The bucket was closed.
    Closed(Closed),
    /// More tokens were asked for than the bucket can ever hold.
    ExceedsMax {
        /// The tokens that were asked for.
        requested: usize,
        /// The most that the bucket can hold.
        max_capacity: usize,
    },
}

/// Why a take ended without a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TakeError {
    /// The bucket was closed.
    Closed(Closed),
    /// More tokens were asked for than the bucket can ever hold.
    ExceedsMax {
        /// The tokens that were asked for.
        requested: usize,
        /// The most that the bucket can hold.
        max_capacity: usize,
    },
}

/// Error returned by [`RateLimiter::try_take`](crate::RateLimiter::try_take).
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotYet {
    /// The tokens are available after this time, if nothing else changes. It is never 0.
    RetryAfter(Duration),
    /// The rate or the burst is 0, so it cannot be told when the tokens will be available.
    Paused,
    /// The limiter was closed.
    Closed(Closed),
    /// More tokens were asked for than can ever be available at once.
    ExceedsBurst {
        /// The tokens that were asked for.
        requested: usize,
        /// The most that can be available at once.
        burst: usize,
    },
}

#[cfg(feature = "std")]
impl NotYet {
    /// Returns how long to wait, if waiting helps and if it is known. An HTTP `Retry-After` is this in seconds, rounded up.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter(wait) => Some(*wait),
            _ => None,
        }
    }
}

/// Error returned by [`RateLimiter::take`](crate::RateLimiter::take) and the blocking forms.
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LimitError {
    /// The limiter was closed.
    Closed(Closed),
    /// More tokens were asked for than can ever be available at once.
    ExceedsBurst {
        /// The tokens that were asked for.
        requested: usize,
        /// The most that can be available at once.
        burst: usize,
    },
}

/// Why no token was given back at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryReleaseError {
    /// There is too little room.
    Full,
    /// The bucket was closed.
    Closed(Closed),
    /// More tokens were to be given back than the bucket can ever hold.
    ExceedsMax {
        /// The tokens that were to be given back.
        requested: usize,
        /// The most that the bucket can hold.
        max_capacity: usize,
    },
}

/// Why a release ended without having given the token back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The bucket was closed.
    Closed(Closed),
}

/// Why the capacity was not changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SetCapacityError {
    /// The capacity is above the largest.
    OutOfRange {
        /// The capacity that was asked for.
        requested: usize,
        /// The largest capacity of the bucket.
        max_capacity: usize,
    },
    /// The bucket was closed.
    Closed(Closed),
}

/// Why a wait with a time limit ended without what was waited for.
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitError<E> {
    /// The time was up.
    TimedOut,
    /// What the wait without a limit would have ended with.
    Failed(E),
}

const EXCEEDS_MAX: &str = "above the bucket's max_capacity of";

impl fmt::Display for TryTakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("not enough tokens are available"),
            Self::Closed(closed) => closed.fmt(f),
            Self::ExceedsMax { requested, max_capacity } => {
                write!(f, "request for {requested} tokens is {EXCEEDS_MAX} {max_capacity}")
            }
        }
    }
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TryTakeError::from(self.clone()).fmt(f)
    }
}

#[cfg(feature = "std")]
impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetryAfter(wait) => write!(f, "rate limit reached, retry after {wait:?}"),
            Self::Paused => f.write_str("rate limiter is paused"),
            Self::Closed(closed) => closed.fmt(f),
            Self::ExceedsBurst { requested, burst } => {
                write!(f, "request for {requested} tokens is above the rate limiter's burst of {burst}")
            }
        }
    }
}

#[cfg(feature = "std")]
impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NotYet::from(self.clone()).fmt(f)
    }
}

impl fmt::Display for TryReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("not enough room is left"),
            Self::Closed(closed) => closed.fmt(f),
            Self::ExceedsMax { requested, max_capacity } => {
                write!(f, "release of {requested} tokens is {EXCEEDS_MAX} {max_capacity}")
            }
        }
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Closed(closed) = self;
        closed.fmt(f)
    }
}

impl fmt::Display for SetCapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { requested, max_capacity } => write!(f, "capacity {requested} is {EXCEEDS_MAX} {max_capacity}"),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

#[cfg(feature = "std")]
impl<E: fmt::Display> fmt::Display for WaitError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the wait timed out"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// An error shows what it holds, so its source is that of what it holds.
macro_rules! impl_error {
    ($($error:ident),*) => {$(
        impl Error for $error {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Closed(closed) => closed.source(),
                    #[allow(unreachable_patterns, reason = "one of the errors has no other variant yet")]
                    _ => None,
                }
            }
        }

        impl From<Closed> for $error {
            fn from(closed: Closed) -> Self {
                Self::Closed(closed)
            }
        }
    )*};
}
impl_error!(TryTakeError, TakeError, TryReleaseError, ReleaseError, SetCapacityError);
#[cfg(feature = "std")]
impl_error!(NotYet, LimitError);

#[cfg(feature = "std")]
impl<E: Error> Error for WaitError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TimedOut => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl From<TakeError> for TryTakeError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Closed(closed) => Self::Closed(closed),
            TakeError::ExceedsMax { requested, max_capacity } => Self::ExceedsMax { requested, max_capacity },
        }
    }
}

#[cfg(feature = "std")]
impl From<LimitError> for NotYet {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Closed(closed) => Self::Closed(closed),
            LimitError::ExceedsBurst { requested, burst } => Self::ExceedsBurst { requested, burst },
        }
    }
}
