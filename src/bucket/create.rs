//! Creating a bucket.

use super::{Fairness, TokenBucket};
use crate::CapacityError;
use crate::combiner::Combiner;
use crate::state;
use crate::sync::const_fn;

/// # Creating a bucket
impl TokenBucket {
    /// The largest value of [`max_capacity`](Self::max_capacity): **2²⁸ − 1 on every target**, because capacity and available
    /// tokens share one atomic word. To limit bytes, count in KiB.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let too_many = TokenBucket::MAX_CAPACITY + 1;
    /// assert!(TokenBucket::new(too_many, 10).is_err());
    /// ```
    pub const MAX_CAPACITY: usize = state::MAX_CAPACITY as usize;

    const_fn! {
        /// Creates a full bucket of `n` tokens that can be resized up to [`MAX_CAPACITY`](Self::MAX_CAPACITY).
        ///
        /// ```
        /// # use token_bucket::TokenBucket;
        /// static CONNECTIONS: TokenBucket = TokenBucket::with_capacity(20);
        /// assert_eq!(CONNECTIONS.capacity(), 20);
        /// ```
        ///
        /// If `n` is 0, the bucket is paused until its capacity is set. A request for more than `n` waits for the capacity to grow;
        /// a limit above which requests and capacities are errors is set by [`new`](Self::new).
        ///
        /// # Panics
        ///
        /// If `n` is above [`MAX_CAPACITY`](Self::MAX_CAPACITY); in a `static` or a `const`, that is a compile error. Use
        /// [`new`](Self::new) for a number that is not known at compile time.
        #[track_caller]
        pub const fn with_capacity(n: usize) -> Self {
            assert!(n <= Self::MAX_CAPACITY, "the capacity is above TokenBucket::MAX_CAPACITY");
            Self::const_new(Self::MAX_CAPACITY, n)
        }
    }

    /// Creates a full bucket of `initial` tokens, whose capacity can later be set to anything up to `max_capacity`.
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
        /// If [`new`](Self::new) would return an error; in a `static` or a `const`, that is a compile error.
        #[track_caller]
        pub const fn const_new(max_capacity: usize, initial: usize) -> Self {
            assert!(max_capacity > 0, "max_capacity is 0, but a bucket must be able to hold a token");
            assert!(max_capacity <= Self::MAX_CAPACITY, "max_capacity is above TokenBucket::MAX_CAPACITY");
            assert!(initial <= max_capacity, "initial capacity is above max_capacity");
            #[allow(clippy::cast_possible_truncation, reason = "both are at most MAX_CAPACITY")]
            Self {
                combiner: Combiner::new(max_capacity as u32, initial as u32),
                #[cfg(feature = "std")]
                closed: std::sync::OnceLock::new(),
            }
        }
    }

    /// Returns the same bucket with another [`Fairness`].
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
