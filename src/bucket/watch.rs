//! Watching a bucket: its counters, and the futures that wait for a state.

use super::{Fairness, Snapshot, TokenBucket};
use crate::{Idle, Settled};

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
    /// [forgotten](crate::TokenGuard::forget) token is outstanding**, so this waits until another one is released in its place.
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
