//! What is measured against what: semaphores behind one trait.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use token_bucket::{Fairness, TokenBucket};

/// A semaphore with guards.
pub(crate) trait Rival: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    type Guard<'a>: Send;

    fn new(tokens: usize) -> Self;
    fn try_take(&self) -> Option<Self::Guard<'_>>;
    fn take(&self) -> impl Future<Output = Self::Guard<'_>> + Send;
}

pub(crate) struct Fifo(TokenBucket);
pub(crate) struct Barging(TokenBucket);

impl Rival for Fifo {
    const NAME: &'static str = "token-bucket";
    type Guard<'a> = token_bucket::Token<'a>;

    fn new(tokens: usize) -> Self {
        Self(TokenBucket::new(tokens, tokens).expect("a capacity in range"))
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.0.try_take().ok()
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.0.take().await.expect("never closed")
    }
}

impl Rival for Barging {
    const NAME: &'static str = "token-bucket-barging";
    type Guard<'a> = token_bucket::Token<'a>;

    fn new(tokens: usize) -> Self {
        Self(TokenBucket::new(tokens, tokens).expect("a capacity in range").with_fairness(Fairness::Barging))
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.0.try_take().ok()
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.0.take().await.expect("never closed")
    }
}

impl Rival for tokio::sync::Semaphore {
    const NAME: &'static str = "tokio";
    type Guard<'a> = tokio::sync::SemaphorePermit<'a>;

    fn new(tokens: usize) -> Self {
        Self::new(tokens)
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.try_acquire().ok()
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.acquire().await.expect("never closed")
    }
}

impl Rival for async_lock::Semaphore {
    const NAME: &'static str = "async-lock";
    type Guard<'a> = async_lock::SemaphoreGuard<'a>;

    fn new(tokens: usize) -> Self {
        Self::new(tokens)
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.try_acquire()
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.acquire().await
    }
}

impl Rival for mea::semaphore::Semaphore {
    const NAME: &'static str = "mea";
    type Guard<'a> = mea::semaphore::SemaphorePermit<'a>;

    fn new(tokens: usize) -> Self {
        Self::new(tokens)
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.try_acquire(1)
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.acquire(1).await
    }
}

impl Rival for futures_intrusive::sync::Semaphore {
    const NAME: &'static str = "futures-intrusive";
    type Guard<'a> = futures_intrusive::sync::SemaphoreReleaser<'a>;

    fn new(tokens: usize) -> Self {
        Self::new(true, tokens)
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.try_acquire(1)
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.acquire(1).await
    }
}

/// The floor: one compare-exchange to take, one to give back, and nothing else.
pub(crate) struct TwoCas(AtomicU64);

pub(crate) struct CasGuard<'a>(&'a AtomicU64);

#[inline]
fn cas(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> bool {
    let mut seen = word.load(Ordering::Acquire);
    while let Some(next) = change(seen) {
        match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(actual) => seen = actual,
        }
    }
    false
}

impl Drop for CasGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        cas(self.0, |n| Some(n + 1));
    }
}

impl Rival for TwoCas {
    const NAME: &'static str = "floor";
    type Guard<'a> = CasGuard<'a>;

    fn new(tokens: usize) -> Self {
        Self(AtomicU64::new(tokens as u64))
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        cas(&self.0, |n| n.checked_sub(1)).then(|| CasGuard(&self.0))
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.try_take().expect("the floor never waits")
    }
}
