//! The error types.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;

/// Error returned once a bucket or a rate limiter is closed.
///
/// ```
/// # use std::error::Error;
/// # use token_bucket::{TokenBucket, TryTakeError};
/// let bucket = TokenBucket::with_capacity(8);
/// bucket.close_with("the server is shutting down");
/// let Err(TryTakeError::Closed(closed)) = bucket.try_take() else { panic!("not closed") };
/// assert_eq!(closed.source().unwrap().to_string(), "the server is shutting down");
/// ```
///
/// The [`source`](Error::source) is the cause that was passed to [`close_with`](crate::TokenBucket::close_with), if any.
#[derive(Clone, Debug)]
pub struct Closed {
    /// It is only read, so a panic cannot leave it half changed.
    cause: Option<Arc<AssertUnwindSafe<Box<dyn Error + Send + Sync>>>>,
}

impl Closed {
    pub(crate) const fn new() -> Self {
        Self { cause: None }
    }

    #[cfg(feature = "std")]
    pub(crate) fn because(cause: Box<dyn Error + Send + Sync>) -> Self {
        Self { cause: Some(Arc::new(AssertUnwindSafe(cause))) }
    }

    fn fmt_as(&self, what: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{what} is closed: {}", cause.0),
            None => write!(f, "{what} is closed"),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("token bucket", f)
    }
}

impl Error for Closed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &*cause.0 as &(dyn Error + 'static))
    }
}

/// Error returned by [`TokenBucket::new`](crate::TokenBucket::new).
///
/// ```
/// # use token_bucket::{CapacityError, TokenBucket};
/// assert_eq!(TokenBucket::new(0, 0).unwrap_err(), CapacityError::MaxIsZero);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacityError {
    /// `max_capacity` is 0: the bucket could never hold a token.
    MaxIsZero,
    /// `max_capacity` is above [`TokenBucket::MAX_CAPACITY`](crate::TokenBucket::MAX_CAPACITY).
    MaxTooLarge {
        /// The requested largest capacity.
        max_capacity: usize,
        /// The upper limit.
        limit: usize,
    },
    /// `initial` is above `max_capacity`.
    InitialExceedsMax {
        /// The requested capacity.
        initial: usize,
        /// The requested largest capacity.
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

/// Error returned for an invalid rate, by [`Refill::new`](crate::Refill::new), [`Refill::set_rate`](crate::Refill::set_rate) and
/// `RateLimiter`.
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::{RateError, Refill};
/// let error = Refill::new(10, Duration::MAX).unwrap_err();
/// assert!(matches!(error, RateError::PeriodTooLong { limit: Refill::MAX_PERIOD, .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// The period is 0.
    PeriodIsZero,
    /// The period has more nanoseconds than a `u64` can hold.
    PeriodTooLong {
        /// The requested period.
        per: Duration,
        /// The longest period: about 584 years.
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

/// Error returned by [`TokenBucket::try_take`](crate::TokenBucket::try_take) and the other methods that take without waiting.
///
/// ```
/// # use token_bucket::{TokenBucket, TryTakeError};
/// fn status(bucket: &TokenBucket) -> u16 {
///     match bucket.try_take() {
///         Ok(_token) => 200, // a real server holds the token until it has responded
///         Err(TryTakeError::Empty) => 429,
///         Err(_) => 503,
///     }
/// }
/// assert_eq!(status(&TokenBucket::with_capacity(0)), 429);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryTakeError {
    /// Too few tokens are available, or waiters are entitled to them, or another thread is handing them out.
    Empty,
    /// The bucket was closed.
    Closed(Closed),
    /// More tokens were requested than the bucket can ever hold.
    ExceedsMax {
        /// The number of tokens requested.
        requested: usize,
        /// The largest capacity of the bucket.
        max_capacity: usize,
    },
}

/// Error returned by [`TokenBucket::take`](crate::TokenBucket::take) and the other methods that wait for tokens.
///
/// ```
/// # use token_bucket::{TakeError, TokenBucket};
/// let bucket = TokenBucket::new(4, 4)?;
/// let error = bucket.take_many(5).wait().unwrap_err();
/// assert!(matches!(error, TakeError::ExceedsMax { requested: 5, max_capacity: 4 }));
/// # Ok::<(), token_bucket::CapacityError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TakeError {
    /// The bucket was closed.
    Closed(Closed),
    /// More tokens were requested than the bucket can ever hold.
    ExceedsMax {
        /// The number of tokens requested.
        requested: usize,
        /// The largest capacity of the bucket.
        max_capacity: usize,
    },
}

/// Error returned by [`RateLimiter::try_take`](crate::RateLimiter::try_take).
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::{NotYet, RateLimiter};
/// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
/// limiter.try_take(1)?;
/// match limiter.try_take(1) {
///     Err(NotYet::RetryAfter(wait)) => assert!(wait <= Duration::from_secs(60)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotYet {
    /// The tokens will be available after this time, if nothing else changes. It is never 0.
    RetryAfter(Duration),
    /// The rate or the burst is 0, so it is unknown when the tokens will be available.
    Paused,
    /// The limiter was closed.
    Closed(Closed),
    /// More tokens were requested than can ever be available at once.
    ExceedsBurst {
        /// The number of tokens requested.
        requested: usize,
        /// The most that can be available at once.
        burst: usize,
    },
}

#[cfg(feature = "std")]
impl NotYet {
    /// Returns how long to wait, if that is known and waiting helps. An HTTP `Retry-After` is a whole number of seconds:
    /// `as_secs() + 1` is never too early. (If the time cannot be represented, it is [`Duration::MAX`], to which nothing can be
    /// added.)
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
    /// limiter.try_take(1)?;
    /// let wait = limiter.try_take(1).unwrap_err().retry_after().expect("it is not paused");
    /// println!("Retry-After: {}", wait.as_secs() + 1);
    /// // Waiting does not help if the request is above the burst:
    /// assert!(limiter.try_take(2).unwrap_err().retry_after().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter(wait) => Some(*wait),
            _ => None,
        }
    }
}

/// Error returned by [`RateLimiter::take`](crate::RateLimiter::take) and the blocking forms.
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::{LimitError, RateLimiter};
/// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
/// let error = limiter.wait(6).unwrap_err();
/// assert!(matches!(error, LimitError::ExceedsBurst { requested: 6, burst: 5 }));
/// # Ok::<(), token_bucket::RateError>(())
/// ```
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LimitError {
    /// The limiter was closed.
    Closed(Closed),
    /// More tokens were requested than can ever be available at once.
    ExceedsBurst {
        /// The number of tokens requested.
        requested: usize,
        /// The most that can be available at once.
        burst: usize,
    },
}

/// Error returned by [`TokenBucket::try_release`](crate::TokenBucket::try_release) and
/// [`TokenBucket::try_release_many`](crate::TokenBucket::try_release_many).
///
/// ```
/// # use token_bucket::{TokenBucket, TryReleaseError};
/// let bucket = TokenBucket::new(4, 4)?;
/// assert!(matches!(bucket.try_release(), Err(TryReleaseError::Full)));
/// # Ok::<(), token_bucket::CapacityError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryReleaseError {
    /// The bucket has no room for that many tokens.
    Full,
    /// The bucket was closed.
    Closed(Closed),
    /// The release is for more tokens than the bucket can ever hold.
    ExceedsMax {
        /// The number of tokens given back.
        requested: usize,
        /// The largest capacity of the bucket.
        max_capacity: usize,
    },
}

/// Error returned by [`TokenBucket::release`](crate::TokenBucket::release).
///
/// ```
/// # use token_bucket::{ReleaseError, TokenBucket};
/// let bucket = TokenBucket::with_capacity(4);
/// bucket.close();
/// assert!(matches!(bucket.release().wait(), Err(ReleaseError::Closed(_))));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The bucket was closed.
    Closed(Closed),
}

/// Error returned by [`TokenBucket::set_capacity`](crate::TokenBucket::set_capacity),
/// [`TokenBucket::update_capacity`](crate::TokenBucket::update_capacity) and
/// [`TokenBucket::grow_and_take`](crate::TokenBucket::grow_and_take).
///
/// ```
/// # use token_bucket::{SetCapacityError, TokenBucket};
/// let bucket = TokenBucket::new(4, 2)?;
/// let error = bucket.set_capacity(5).unwrap_err();
/// assert!(matches!(error, SetCapacityError::OutOfRange { requested: 5, .. }));
/// # Ok::<(), token_bucket::CapacityError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SetCapacityError {
    /// The requested capacity is above `max_capacity`.
    OutOfRange {
        /// The requested capacity. (For `grow_and_take`: the capacity, the deficit and the new tokens together.)
        requested: usize,
        /// The largest capacity of the bucket.
        max_capacity: usize,
    },
    /// The bucket was closed.
    Closed(Closed),
}

/// Error returned by `wait_timeout` and `wait_deadline`.
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::{TokenBucket, WaitError};
/// let bucket = TokenBucket::with_capacity(0); // paused
/// match bucket.take().wait_timeout(Duration::from_millis(1)) {
///     Ok(_token) => println!("granted"),
///     Err(WaitError::TimedOut) => println!("busy"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), WaitError<token_bucket::TakeError>>(())
/// ```
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitError<E> {
    /// The time limit was reached.
    TimedOut,
    /// The error that the wait without a limit would have returned.
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
            Self::Closed(closed) => closed.fmt_as("rate limiter", f),
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

/// `Display` shows the inner error, so `source` returns the source of the inner error.
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
