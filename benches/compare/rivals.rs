//! The candidates: semaphores behind one trait, and the baseline, which is the minimum any implementation needs.

use std::future::Future;
use std::hint::black_box;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_intrusive::sync::{Semaphore as IntrusiveSemaphore, SharedSemaphore as IntrusiveShared};
use token_bucket::{Fairness, OwnedToken, Token, TokenBucket};

pub(crate) type Fifo = Bucket<false>;
pub(crate) type Barging = Bucket<true>;
pub(crate) type Tokio = tokio::sync::Semaphore;
pub(crate) type AsyncLock = async_lock::Semaphore;
pub(crate) type Mea = mea::semaphore::Semaphore;
pub(crate) type IntrusiveFair = Intrusive<true>;
pub(crate) type IntrusiveUnfair = Intrusive<false>;

/// In which order waiters are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Fifo,
    Barging,
    /// In none: the baseline has no waiters.
    Baseline,
}

/// A semaphore with guards.
pub(crate) trait Rival: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    const ORDER: Order;
    type Guard<'a>: Send;

    fn new(tokens: usize) -> Self;
    fn try_take(&self) -> Option<Self::Guard<'_>>;
    fn take(&self) -> impl Future<Output = Self::Guard<'_>> + Send;
    /// Waits for a token without unwrapping the result, so that the caller can inspect it.
    fn plain_take(&self) -> impl Future + Send;
    /// Blocks the thread: with the candidate's own method, or else with `pollster`.
    fn wait(&self) -> Self::Guard<'_> {
        pollster::block_on(self.take())
    }
    /// Reads how many tokens are available.
    fn look(&self);
    /// Adds tokens, and wakes waiters.
    fn grow(&self, by: usize);
    /// Drops the guard without returning its token.
    fn forget(guard: Self::Guard<'_>);
}

/// Can take several tokens at once.
pub(crate) trait Weighted: Rival {
    fn try_take_many(&self, n: usize) -> Option<Self::Guard<'_>>;
    fn take_many(&self, n: usize) -> impl Future<Output = Self::Guard<'_>> + Send;
}

/// Has guards that share ownership of it.
pub(crate) trait Owned: Rival {
    type Shared;
    type OwnedGuard;

    fn shared(tokens: usize) -> Self::Shared;
    fn try_take_owned(shared: &Self::Shared) -> Option<Self::OwnedGuard>;
    fn take_owned(shared: &Self::Shared) -> impl Future<Output = Self::OwnedGuard>;
}

/// Can be resized.
pub(crate) trait Resize: Rival {
    /// Resizes from one number of tokens to another. Returns the resulting number.
    fn resize(&self, from: usize, to: usize) -> usize;
}

/// Can be closed.
pub(crate) trait Close: Rival {
    /// Waits for a token. Returns whether it was closed before.
    fn take_or_closed(&self) -> impl Future<Output = bool> + Send;
    fn close(&self);
}

pub(crate) struct Bucket<const BARGING: bool>(TokenBucket);

impl<const BARGING: bool> Bucket<BARGING> {
    fn bucket(tokens: usize) -> TokenBucket {
        let fairness = if BARGING { Fairness::Barging } else { Fairness::Fifo };
        TokenBucket::const_new(TokenBucket::MAX_CAPACITY, tokens).with_fairness(fairness)
    }
}

impl<const BARGING: bool> Rival for Bucket<BARGING> {
    const NAME: &'static str = if BARGING { "token-bucket-barging" } else { "token-bucket-fifo" };
    const ORDER: Order = if BARGING { Order::Barging } else { Order::Fifo };
    type Guard<'a> = Token<'a>;

    fn new(tokens: usize) -> Self {
        Self(Self::bucket(tokens))
    }
    #[inline]
    fn try_take(&self) -> Option<Token<'_>> {
        self.0.try_take().ok()
    }
    #[inline]
    async fn take(&self) -> Token<'_> {
        self.0.take().await.expect(OPEN)
    }
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.0.take()
    }
    #[inline]
    fn wait(&self) -> Token<'_> {
        self.0.take().wait().expect(OPEN)
    }
    #[inline]
    fn look(&self) {
        black_box(self.0.snapshot());
    }
    fn grow(&self, by: usize) {
        self.0.set_capacity(self.0.capacity() + by).expect("room");
    }
    fn forget(guard: Token<'_>) {
        guard.forget();
    }
}

impl<const BARGING: bool> Weighted for Bucket<BARGING> {
    #[inline]
    fn try_take_many(&self, n: usize) -> Option<Token<'_>> {
        self.0.try_take_many(n).ok()
    }
    #[inline]
    async fn take_many(&self, n: usize) -> Token<'_> {
        self.0.take_many(n).await.expect(OPEN)
    }
}

impl<const BARGING: bool> Owned for Bucket<BARGING> {
    type Shared = Arc<TokenBucket>;
    type OwnedGuard = OwnedToken;

    fn shared(tokens: usize) -> Arc<TokenBucket> {
        Arc::new(Self::bucket(tokens))
    }
    #[inline]
    fn try_take_owned(shared: &Arc<TokenBucket>) -> Option<OwnedToken> {
        shared.try_take_owned().ok()
    }
    #[inline]
    async fn take_owned(shared: &Arc<TokenBucket>) -> OwnedToken {
        shared.take_owned().await.expect(OPEN)
    }
}

impl<const BARGING: bool> Resize for Bucket<BARGING> {
    #[inline]
    fn resize(&self, _: usize, to: usize) -> usize {
        self.0.set_capacity(to).expect("in range").capacity
    }
}

impl<const BARGING: bool> Close for Bucket<BARGING> {
    async fn take_or_closed(&self) -> bool {
        self.0.take().await.is_err()
    }
    fn close(&self) {
        self.0.close();
    }
}

const OPEN: &str = "it is not closed";

impl Rival for Tokio {
    const NAME: &'static str = "tokio";
    const ORDER: Order = Order::Fifo;
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
        self.acquire().await.expect(OPEN)
    }
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.acquire()
    }
    #[inline]
    fn wait(&self) -> Self::Guard<'_> {
        self.blocking_acquire().expect(OPEN)
    }
    #[inline]
    fn look(&self) {
        black_box(self.available_permits());
    }
    fn grow(&self, by: usize) {
        self.add_permits(by);
    }
    fn forget(guard: Self::Guard<'_>) {
        guard.forget();
    }
}

impl Weighted for Tokio {
    #[inline]
    fn try_take_many(&self, n: usize) -> Option<Self::Guard<'_>> {
        self.try_acquire_many(u32::try_from(n).ok()?).ok()
    }
    #[inline]
    async fn take_many(&self, n: usize) -> Self::Guard<'_> {
        self.acquire_many(u32::try_from(n).expect("few")).await.expect(OPEN)
    }
}

impl Owned for Tokio {
    type Shared = Arc<Self>;
    type OwnedGuard = tokio::sync::OwnedSemaphorePermit;

    fn shared(tokens: usize) -> Arc<Self> {
        Arc::new(Self::new(tokens))
    }
    #[inline]
    fn try_take_owned(shared: &Arc<Self>) -> Option<Self::OwnedGuard> {
        Arc::clone(shared).try_acquire_owned().ok()
    }
    #[inline]
    async fn take_owned(shared: &Arc<Self>) -> Self::OwnedGuard {
        Arc::clone(shared).acquire_owned().await.expect(OPEN)
    }
}

impl Resize for Tokio {
    /// A shrink removes only available tokens.
    #[inline]
    fn resize(&self, from: usize, to: usize) -> usize {
        if to < from {
            return from - self.forget_permits(from - to);
        }
        self.add_permits(to - from);
        to
    }
}

impl Close for Tokio {
    async fn take_or_closed(&self) -> bool {
        self.acquire().await.is_err()
    }
    fn close(&self) {
        self.close();
    }
}

impl Rival for AsyncLock {
    const NAME: &'static str = "async-lock";
    const ORDER: Order = Order::Barging;
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
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.acquire()
    }
    #[inline]
    fn wait(&self) -> Self::Guard<'_> {
        self.acquire_blocking()
    }
    #[inline]
    fn look(&self) {
        black_box(self.available_permits());
    }
    fn grow(&self, by: usize) {
        self.add_permits(by);
    }
    fn forget(guard: Self::Guard<'_>) {
        guard.forget();
    }
}

impl Owned for AsyncLock {
    type Shared = Arc<Self>;
    type OwnedGuard = async_lock::SemaphoreGuardArc;

    fn shared(tokens: usize) -> Arc<Self> {
        Arc::new(Self::new(tokens))
    }
    #[inline]
    fn try_take_owned(shared: &Arc<Self>) -> Option<Self::OwnedGuard> {
        shared.try_acquire_arc()
    }
    #[inline]
    async fn take_owned(shared: &Arc<Self>) -> Self::OwnedGuard {
        shared.acquire_arc().await
    }
}

impl Rival for Mea {
    const NAME: &'static str = "mea";
    const ORDER: Order = Order::Fifo;
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
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.acquire(1)
    }
    #[inline]
    fn look(&self) {
        black_box(self.available_permits());
    }
    fn grow(&self, by: usize) {
        self.release(by);
    }
    fn forget(guard: Self::Guard<'_>) {
        guard.forget();
    }
}

impl Weighted for Mea {
    #[inline]
    fn try_take_many(&self, n: usize) -> Option<Self::Guard<'_>> {
        self.try_acquire(n)
    }
    #[inline]
    async fn take_many(&self, n: usize) -> Self::Guard<'_> {
        self.acquire(n).await
    }
}

impl Owned for Mea {
    type Shared = Arc<Self>;
    type OwnedGuard = mea::semaphore::OwnedSemaphorePermit;

    fn shared(tokens: usize) -> Arc<Self> {
        Arc::new(Self::new(tokens))
    }
    #[inline]
    fn try_take_owned(shared: &Arc<Self>) -> Option<Self::OwnedGuard> {
        Arc::clone(shared).try_acquire_owned(1)
    }
    #[inline]
    async fn take_owned(shared: &Arc<Self>) -> Self::OwnedGuard {
        Arc::clone(shared).acquire_owned(1).await
    }
}

impl Resize for Mea {
    #[inline]
    fn resize(&self, from: usize, to: usize) -> usize {
        if to < from {
            self.forget_exact(from - to);
        } else {
            self.release(to - from);
        }
        to
    }
}

pub(crate) struct Intrusive<const FAIR: bool>(IntrusiveSemaphore);

impl<const FAIR: bool> Rival for Intrusive<FAIR> {
    const NAME: &'static str = if FAIR { "futures-intrusive-fair" } else { "futures-intrusive-unfair" };
    const ORDER: Order = if FAIR { Order::Fifo } else { Order::Barging };
    type Guard<'a> = futures_intrusive::sync::SemaphoreReleaser<'a>;

    fn new(tokens: usize) -> Self {
        Self(IntrusiveSemaphore::new(FAIR, tokens))
    }
    #[inline]
    fn try_take(&self) -> Option<Self::Guard<'_>> {
        self.0.try_acquire(1)
    }
    #[inline]
    async fn take(&self) -> Self::Guard<'_> {
        self.0.acquire(1).await
    }
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.0.acquire(1)
    }
    #[inline]
    fn look(&self) {
        black_box(self.0.permits());
    }
    fn grow(&self, by: usize) {
        self.0.release(by);
    }
    fn forget(mut guard: Self::Guard<'_>) {
        guard.disarm();
    }
}

impl<const FAIR: bool> Weighted for Intrusive<FAIR> {
    #[inline]
    fn try_take_many(&self, n: usize) -> Option<Self::Guard<'_>> {
        self.0.try_acquire(n)
    }
    #[inline]
    async fn take_many(&self, n: usize) -> Self::Guard<'_> {
        self.0.acquire(n).await
    }
}

impl<const FAIR: bool> Owned for Intrusive<FAIR> {
    type Shared = IntrusiveShared;
    type OwnedGuard = futures_intrusive::sync::SharedSemaphoreReleaser;

    fn shared(tokens: usize) -> IntrusiveShared {
        IntrusiveShared::new(FAIR, tokens)
    }
    #[inline]
    fn try_take_owned(shared: &IntrusiveShared) -> Option<Self::OwnedGuard> {
        shared.try_acquire(1)
    }
    #[inline]
    async fn take_owned(shared: &IntrusiveShared) -> Self::OwnedGuard {
        shared.acquire(1).await
    }
}

/// The baseline: one compare-exchange to take, one to return, and nothing else.
pub(crate) struct Baseline(AtomicU64);

pub(crate) struct BaselineGuard<'a>(&'a AtomicU64, u64);

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

impl Drop for BaselineGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        cas(self.0, |n| Some(n + self.1));
    }
}

impl Rival for Baseline {
    const NAME: &'static str = "baseline";
    const ORDER: Order = Order::Baseline;
    type Guard<'a> = BaselineGuard<'a>;

    fn new(tokens: usize) -> Self {
        Self(AtomicU64::new(tokens as u64))
    }
    #[inline]
    fn try_take(&self) -> Option<BaselineGuard<'_>> {
        self.try_take_many(1)
    }
    #[inline]
    async fn take(&self) -> BaselineGuard<'_> {
        self.take_many(1).await
    }
    #[inline]
    fn plain_take(&self) -> impl Future + Send {
        self.take_many(1)
    }
    #[inline]
    fn wait(&self) -> BaselineGuard<'_> {
        self.try_take().expect(PLENTY)
    }
    #[inline]
    fn look(&self) {
        black_box(self.0.load(Ordering::Acquire));
    }
    fn grow(&self, by: usize) {
        self.resize(0, by);
    }
    fn forget(guard: BaselineGuard<'_>) {
        mem::forget(guard);
    }
}

impl Weighted for Baseline {
    #[inline]
    fn try_take_many(&self, n: usize) -> Option<BaselineGuard<'_>> {
        let n = n as u64;
        cas(&self.0, |there| there.checked_sub(n)).then(|| BaselineGuard(&self.0, n))
    }
    #[inline]
    async fn take_many(&self, n: usize) -> BaselineGuard<'_> {
        self.try_take_many(n).expect(PLENTY)
    }
}

impl Owned for Baseline {
    type Shared = Arc<Self>;
    type OwnedGuard = BaselineOwned;

    fn shared(tokens: usize) -> Arc<Self> {
        Arc::new(Self::new(tokens))
    }
    #[inline]
    fn try_take_owned(shared: &Arc<Self>) -> Option<BaselineOwned> {
        cas(&shared.0, |n| n.checked_sub(1)).then(|| BaselineOwned(Arc::clone(shared)))
    }
    #[inline]
    async fn take_owned(shared: &Arc<Self>) -> BaselineOwned {
        Self::try_take_owned(shared).expect(PLENTY)
    }
}

pub(crate) struct BaselineOwned(Arc<Baseline>);

impl Drop for BaselineOwned {
    #[inline]
    fn drop(&mut self) {
        cas(&self.0.0, |n| Some(n + 1));
    }
}

impl Resize for Baseline {
    /// One compare-exchange.
    #[inline]
    fn resize(&self, from: usize, to: usize) -> usize {
        cas(&self.0, |n| Some((n + to as u64).wrapping_sub(from as u64)));
        to
    }
}

const PLENTY: &str = "the baseline never waits";
