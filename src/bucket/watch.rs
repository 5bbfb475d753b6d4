//! Watching a bucket: its counters, and the futures that wait for a state.

use super::{Fairness, Snapshot, TokenBucket};
use crate::state::Kind;
use crate::{Idle, Settled};

/// # Watching
impl TokenBucket {
    /// Returns the configured total: available plus outstanding tokens, unless there is a deficit or the bucket is overfilled.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// let token = bucket.try_take()?;
    /// assert_eq!(bucket.capacity(), 8); // 7 available, 1 outstanding
    /// # drop(token);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    pub fn capacity(&self) -> usize {
        self.snapshot().capacity
    }

    /// Returns the largest capacity that can be set.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::new(100, 8)?;
    /// assert_eq!((bucket.max_capacity(), bucket.capacity()), (100, 8));
    /// assert!(bucket.set_capacity(101).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn max_capacity(&self) -> usize {
        self.combiner.max() as usize
    }

    /// Returns the number of tokens in the bucket.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// let token = bucket.try_take()?;
    /// assert_eq!(bucket.available(), 7);
    /// # drop(token);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    ///
    /// May be above 0 while [`try_take`](Self::try_take) returns `Empty`: a larger request may be waiting for more.
    #[doc(alias = "available_permits")]
    pub fn available(&self) -> usize {
        self.snapshot().available
    }

    /// Returns the number of tokens that are held, or were forgotten.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// let held = bucket.try_take_many(2)?;
    /// bucket.try_take()?.forget();
    /// assert_eq!(bucket.outstanding(), 3);
    /// # drop(held);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    pub fn outstanding(&self) -> usize {
        self.snapshot().outstanding
    }

    /// Returns how many outstanding tokens exceed the capacity; that many are retired when they come back.
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(8);
    /// let held = bucket.try_take_many(8)?;
    /// bucket.set_capacity(5)?;
    /// assert_eq!(bucket.deficit(), 3);
    /// drop(held); // 3 are retired, 5 go back into the bucket
    /// assert_eq!((bucket.deficit(), bucket.available()), (0, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deficit(&self) -> usize {
        self.snapshot().deficit
    }

    /// Returns the number of tasks and threads that are queued for tokens.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{TokenBucket, WaitError};
    /// let bucket = TokenBucket::with_capacity(0); // paused
    /// let result = bucket.take().wait_timeout(Duration::from_millis(1));
    /// assert!(matches!(result, Err(WaitError::TimedOut)));
    /// assert_eq!(bucket.waiting(), 0); // the timed-out request is no longer queued
    /// ```
    ///
    /// **Approximate** while other threads use the bucket: a waiter that finds the queue in use is not counted until it is queued.
    /// A waiter that was woken counts until it has taken its tokens.
    #[doc(alias = "waiters")]
    pub fn waiting(&self) -> usize {
        self.combiner.waiting()
    }

    /// Returns a consistent view of all counters but [`waiting`](Self::waiting).
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// let bucket = TokenBucket::with_capacity(5);
    /// let token = bucket.try_take_many(2)?;
    /// let now = bucket.snapshot();
    /// assert_eq!((now.capacity, now.available, now.outstanding), (5, 3, 2));
    /// assert!(now.deficit == 0 && !now.closed);
    /// # drop(token);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// ```
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.combiner.state(), self.combiner.max())
    }

    /// Returns the order in which waiters are served.
    ///
    /// ```
    /// # use token_bucket::{Fairness, TokenBucket};
    /// assert_eq!(TokenBucket::with_capacity(8).fairness(), Fairness::Fifo); // the default
    /// ```
    pub fn fairness(&self) -> Fairness {
        self.combiner.fairness()
    }

    /// Waits until no token is outstanding: a future, which can also block a thread ([`Watch::wait`](crate::Watch::wait)).
    ///
    /// ```
    /// # use token_bucket::TokenBucket;
    /// # futures::executor::block_on(async {
    /// let bucket = TokenBucket::with_capacity(8);
    /// let token = bucket.try_take()?;
    ///
    /// bucket.close();
    /// let (_, ()) = futures::join!(bucket.idle(), async { drop(token) });
    /// assert_eq!(bucket.outstanding(), 0);
    /// # Ok::<(), token_bucket::TryTakeError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// It does not stop callers from taking more; [close](Self::close) the bucket first for an orderly shutdown. **A
    /// [forgotten](crate::TokenGuard::forget) token is outstanding**, so this waits until another one is released in its place. A
    /// held token that was replaced so is not waited for.
    ///
    /// The future is ready if there was a moment without outstanding tokens since it was first polled. A token that comes back and
    /// is granted to a waiter makes no such moment, although [`snapshot`](Self::snapshot) or the first poll of another `idle` may
    /// see it in the bucket. A moment that [`grow_and_take`](Self::grow_and_take) ends at once may be missed.
    pub fn idle(&self) -> Idle<'_> {
        Idle::new(self, Kind::Idle)
    }

    /// Waits until no [`deficit`](Self::deficit) is left, that is, until a shrink has taken full effect: a future, which can also
    /// block a thread ([`Watch::wait`](crate::Watch::wait)).
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
    ///
    /// The future is ready if there was a moment without deficit since it was first polled. A moment that the next shrink ends at
    /// once may be missed.
    pub fn settled(&self) -> Settled<'_> {
        Settled::new(self, Kind::Settled)
    }
}
