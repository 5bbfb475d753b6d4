//! Changing the capacity.

use alloc::sync::Arc;

use super::{Snapshot, TokenBucket};
use crate::{OwnedToken, SetCapacityError, Token, TokenGuard};

/// # Changing the capacity
impl TokenBucket {
    /// Changes the capacity in one atomic step, and returns the state right after it.
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
    /// The available tokens change by as much as the capacity does. When this returns, the new capacity is in force. Every waiter
    /// that can now proceed has been woken, or is being woken by another thread.
    ///
    /// * A shrink never revokes a held token, and never waits. If more tokens are held than the new capacity allows, the excess is
    ///   a [`deficit`](Self::deficit): returned tokens are retired until it is gone; only then are waiters served. A growth reduces
    ///   the deficit as well, so after 10 → 0 → 10 the capacity is exactly 10 again, however many tokens are held.
    /// * A growth lets exactly as many waiters proceed as can be served, in FIFO order, and wakes no others. (In a
    ///   [`Fairness::Barging`](crate::Fairness::Barging) bucket they are woken to try, and newcomers may take tokens first.)
    /// * A queued request for more than the new capacity is deferred: it is skipped without blocking the waiters behind it, and
    ///   regains its queue position once the capacity suffices.
    /// * 0 pauses the bucket: every request waits, in order.
    /// * The available tokens never exceed [`max_capacity`](Self::max_capacity). In a bucket that was [overfilled](Self::release),
    ///   a growth may therefore add fewer tokens than the shrink that follows removes.
    ///
    /// Two controllers that set absolute capacities overwrite each other; use [`update_capacity`](Self::update_capacity) for
    /// changes that add up.
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

    /// Sets the capacity to `f(capacity)` in one atomic step, and returns the state right after it: for relative and conditional
    /// changes by several controllers.
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
    /// `f` may be called more than once, if other threads change the capacity at the same time. It may call back into the bucket.
    /// If it panics, the bucket is unchanged.
    ///
    /// # Errors
    ///
    /// Same as for [`set_capacity`](Self::set_capacity).
    #[doc(alias = "add_permits")]
    pub fn update_capacity(&self, mut f: impl FnMut(usize) -> usize) -> Result<Snapshot, SetCapacityError> {
        let mut seen = self.combiner.state();
        loop {
            if seen.is_closed() {
                return Err(self.closed().into());
            }
            // Outside the atomic step, because `f` is user code.
            let capacity = self.check_capacity(f(seen.capacity() as usize))?;
            match self.combiner.set_capacity_from(seen.capacity(), capacity) {
                Ok(state) => return Ok(Snapshot::new(state, self.combiner.max())),
                Err(actual) => seen = actual,
            }
        }
    }

    /// Adds `n` to the capacity, and takes the new tokens in the same step, ahead of the queue. The available tokens are untouched.
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
    /// For a caller that brings its own resource, such as a connection that was opened elsewhere. The inverse is
    /// [`TokenGuard::retire`](crate::TokenGuard::retire).
    ///
    /// # Errors
    ///
    /// [`SetCapacityError::OutOfRange`] if the capacity, the deficit and `n` together are above
    /// [`max_capacity`](Self::max_capacity), and
    /// [`SetCapacityError::Closed`]; the bucket is unchanged then.
    pub fn grow_and_take(&self, n: usize) -> Result<Token<'_>, SetCapacityError> {
        TokenGuard::grow_and_take(self, n)
    }

    /// Like [`grow_and_take`](Self::grow_and_take), but returns a guard that keeps the bucket alive.
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
        TokenGuard::grow_and_take(Arc::clone(self), n)
    }

    pub(crate) fn grow_by(&self, n: usize) -> Result<(), SetCapacityError> {
        self.combiner.grow_and_take(n).map_err(|state| {
            if state.is_closed() {
                return self.closed().into();
            }
            let Snapshot { capacity, deficit, max_capacity, .. } = Snapshot::new(state, self.combiner.max());
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
