//! A pool whose size can change at any time. Copy this file; `T` is a connection, or anything else that is expensive to open.

use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use token_bucket::{CapacityError, SetCapacityError, TokenBucket, TokenGuard};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Lends out at most as many resources at a time as its bucket has tokens, and keeps at most one idle resource for each available token.
pub(crate) struct Pool<T> {
    pub(crate) bucket: TokenBucket,
    idle: Mutex<Vec<T>>,
    open: Box<dyn Fn() -> Result<T> + Send + Sync>,
}

impl<T> Pool<T> {
    /// Creates an empty pool, which opens a resource when it needs one.
    pub(crate) fn new(size: usize, open: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Arc<Self>, CapacityError> {
        let bucket = TokenBucket::new(TokenBucket::MAX_CAPACITY, size)?;
        Ok(Arc::new(Self { bucket, idle: Mutex::default(), open: Box::new(open) }))
    }

    /// Waits in FIFO order until a resource may be used. (For async code, make this an `async fn`, and replace `.wait()` by `.await`.)
    pub(crate) fn get(self: &Arc<Self>) -> Result<Pooled<T>> {
        let token = TokenGuard::take(Arc::clone(self), 1).wait()?;
        let idle = self.idle().pop();
        let resource = idle.map_or_else(|| (self.open)(), Ok)?; // if this fails, `token` goes back
        Ok(Pooled(Some((resource, token))))
    }

    /// Changes the size. Surplus resources are closed: idle ones now, and those in use as they come back. Never waits.
    pub(crate) fn resize(&self, size: usize) -> Result<(), SetCapacityError> {
        self.bucket.set_capacity(size)?;
        let mut idle = self.idle();
        let kept = idle.len().min(self.bucket.available());
        let surplus = idle.split_off(kept);
        drop((idle, surplus)); // in this order, so that no thread waits for the lock while the surplus is closed
        Ok(())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> AsRef<TokenBucket> for Pool<T> {
    fn as_ref(&self) -> &TokenBucket {
        &self.bucket
    }
}

/// A resource in use. When it is dropped, it goes back to its pool, or is closed if it is surplus.
pub(crate) struct Pooled<T>(Option<(T, TokenGuard<Arc<Pool<T>>>)>);

impl<T> Drop for Pooled<T> {
    /// **The resource goes back before the token.** Otherwise a waiter could get the token, find no idle resource, and open another one.
    fn drop(&mut self) {
        let Some((resource, token)) = self.0.take() else { return };
        let pool = Arc::clone(token.handle());
        pool.idle().push(resource);
        let surplus = if token.give_back().retired > 0 { pool.idle().pop() } else { None };
        drop(surplus); // closed without the lock
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.as_ref().expect("present until it is dropped").0
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.as_mut().expect("present until it is dropped").0
    }
}
