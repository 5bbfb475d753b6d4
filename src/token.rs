//! Guards: tokens that are out, and come back when they are dropped.

use alloc::sync::Arc;
use core::fmt;
use core::mem;

use crate::TokenBucket;

macro_rules! token {
    ($(#[$attr:meta])* $token:ident [$($lifetime:lifetime)?], $owner:ty, $bucket:ty, |$borrow:ident| $borrowed:expr, |$clone:ident| $cloned:expr) => {
        $(#[$attr])*
        #[must_use = "tokens go back to the bucket as soon as their guard is dropped"]
        #[clippy::has_significant_drop]
        pub struct $token$(<$lifetime>)? {
            bucket: $owner,
            count: usize,
        }

        impl$(<$lifetime>)? $token$(<$lifetime>)? {
            #[inline]
            pub(crate) fn new(bucket: $owner, count: usize) -> Self {
                Self { bucket, count }
            }

            /// How many tokens this guard holds: as many as were asked for, 0 after they were all split off.
            #[inline]
            pub fn count(&self) -> usize {
                self.count
            }

            /// The bucket that the tokens go back to.
            #[inline]
            pub fn bucket(&self) -> $bucket {
                let $borrow = self;
                $borrowed
            }

            /// Drops the guard without giving the tokens back: they stay outstanding for good, unless a
            /// [`try_release`](TokenBucket::try_release) or a [`refill`](TokenBucket::refill) puts others in their place.
            ///
            /// The reverse is a release without a take. To make the bucket smaller, use
            /// [`set_capacity`](TokenBucket::set_capacity).
            pub fn forget(mut self) {
                self.count = 0;
            }

            /// Moves `n` tokens to a guard of their own. `None` if this one holds fewer; then it keeps them all.
            pub fn split(&mut self, n: usize) -> Option<Self> {
                self.count = self.count.checked_sub(n)?;
                let $clone = self;
                Some(Self::new($cloned, n))
            }

            /// Takes over the tokens of another guard of the same bucket.
            ///
            /// # Panics
            ///
            /// If the other guard is of another bucket. Both keep their tokens then (and, as the call consumes the
            /// other one, it gives them back).
            #[track_caller]
            pub fn merge(&mut self, mut other: Self) {
                assert!(
                    core::ptr::eq::<TokenBucket>(&*self.bucket, &*other.bucket),
                    "cannot merge tokens of different buckets"
                );
                self.count = self.count.saturating_add(mem::take(&mut other.count));
            }
        }

        impl$(<$lifetime>)? Drop for $token$(<$lifetime>)? {
            /// Gives the tokens back. Never waits and never fails.
            #[inline]
            fn drop(&mut self) {
                if self.count > 0 {
                    self.bucket.give_back(self.count);
                }
            }
        }

        impl$(<$lifetime>)? fmt::Debug for $token$(<$lifetime>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($token)).field("count", &self.count).finish_non_exhaustive()
            }
        }
    };
}

token! {
    /// Tokens taken from a [`TokenBucket`], which go back when this is dropped.
    ///
    /// A guard that is leaked ([`mem::forget`], or [`forget`](Token::forget)) leaves its tokens outstanding for good.
    /// A panic while it is held gives them back; nothing is ever poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(8, 8)?;
    /// let mut tokens = bucket.try_take_many(5)?;
    /// let two = tokens.split(2).expect("there are five");
    /// drop(tokens);
    /// assert_eq!(bucket.outstanding(), 2);
    /// drop(two);
    /// assert_eq!(bucket.outstanding(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Token['a], &'a TokenBucket, &'a TokenBucket, |token| token.bucket, |token| token.bucket
}

token! {
    /// Tokens taken from a [`TokenBucket`] that is shared by an [`Arc`], which go back when this is dropped.
    ///
    /// As [`Token`], but it keeps the bucket alive instead of borrowing it, so it can be moved into a task, or stored
    /// beside the resource that it guards.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket::TokenBucket;
    /// let bucket = Arc::new(TokenBucket::new(8, 1)?);
    /// let token = bucket.try_take_owned()?;
    /// std::thread::spawn(move || drop(token)).join().unwrap();
    /// assert_eq!(bucket.available(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    OwnedToken[], Arc<TokenBucket>, &Arc<TokenBucket>, |token| &token.bucket, |token| Arc::clone(&token.bucket)
}
