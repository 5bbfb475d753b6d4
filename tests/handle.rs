//! Guards and futures over any handle: whatever points to something that contains a bucket.

mod support;

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use support::{both, bucket, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, Handle, SetCapacityError, TakeError, TakeFuture, Token, TokenBucket, TokenGuard, TryTakeError};

both! {
    a_guard_holds_the_pool,
    a_future_holds_the_pool_and_hands_it_to_the_guard,
    a_refusal_drops_the_handle,
    guards_of_a_pool_split_merge_retire_and_give_back,
    each_handle_takes_with_every_method,
    a_split_clones_the_handle_first,
}

struct Pool {
    bucket: TokenBucket,
    name: &'static str,
}

impl AsRef<TokenBucket> for Pool {
    fn as_ref(&self) -> &TokenBucket {
        &self.bucket
    }
}

fn pool(fairness: Fairness, capacity: usize) -> Arc<Pool> {
    Arc::new(Pool { bucket: bucket(fairness, capacity), name: "pool" })
}

/// A handle that counts its clones, and panics in a clone beyond the limit.
struct Counted {
    pool: Arc<Pool>,
    clones: Arc<AtomicUsize>,
    limit: usize,
}

impl Deref for Counted {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        assert!(self.clones.fetch_add(1, Ordering::SeqCst) < self.limit, "on purpose");
        Self { pool: Arc::clone(&self.pool), clones: Arc::clone(&self.clones), limit: self.limit }
    }
}

fn a_guard_holds_the_pool(fairness: Fairness) {
    let pool = pool(fairness, 2);
    let guard = TokenGuard::try_take(Arc::clone(&pool), 2).unwrap();
    assert_eq!((guard.count(), guard.handle().name, Arc::strong_count(&pool)), (2, "pool", 2));
    assert!(Arc::ptr_eq(guard.handle(), &pool));
    assert!(std::ptr::eq(guard.handle().to_bucket(), &raw const pool.bucket));
    assert_eq!(numbers(&pool.bucket), [0, 2, 0, 0]);
    drop(guard);
    assert_eq!((numbers(&pool.bucket), Arc::strong_count(&pool)), ([2, 0, 0, 0], 1));
    // The last guard keeps the pool alive.
    let guard = TokenGuard::try_take(Arc::clone(&pool), 1).unwrap();
    let weak = Arc::downgrade(&pool);
    drop(pool);
    assert_eq!(numbers(guard.handle().to_bucket()), [1, 1, 0, 0]);
    drop(guard);
    assert!(weak.upgrade().is_none());
}

fn a_future_holds_the_pool_and_hands_it_to_the_guard(fairness: Fairness) {
    let pool = pool(fairness, 1);
    let held = TokenGuard::try_take(Arc::clone(&pool), 1).unwrap();
    let take: TakeFuture<Arc<Pool>> = TokenGuard::take(Arc::clone(&pool), 1);
    let (mut take, mut up_to) = (waiting(take), waiting(TokenGuard::take_up_to(Arc::clone(&pool), 9)));
    assert_eq!((Arc::strong_count(&pool), pool.bucket.waiting()), (4, 2));
    drop(held);
    let guard = take.done().unwrap();
    assert!(Arc::ptr_eq(guard.handle(), &pool));
    drop(take);
    assert_eq!(Arc::strong_count(&pool), 3);
    drop(guard);
    assert_eq!(up_to.done().unwrap().count(), 1);
    drop(up_to);
    // The handle is dropped with the future, at any stage.
    drop(TokenGuard::take(Arc::clone(&pool), 1));
    let held = TokenGuard::try_take(&*pool, 1).unwrap();
    drop(waiting(TokenGuard::take(Arc::clone(&pool), 1)));
    drop(held);
    assert_eq!((Arc::strong_count(&pool), numbers(&pool.bucket)), (1, [1, 0, 0, 0]));
}

fn a_refusal_drops_the_handle(fairness: Fairness) {
    let pool = pool(fairness, 1);
    let before = pool.bucket.snapshot();
    let wraps = usize::try_from(1_u64 << 32).unwrap_or(usize::MAX);
    for n in [support::MAX + 1, TokenBucket::MAX_CAPACITY + 1, wraps, usize::MAX] {
        let refused = TokenGuard::try_take(Arc::clone(&pool), n).map(drop);
        assert!(matches!(refused, Err(TryTakeError::ExceedsMax { requested, .. }) if requested == n));
        let refused = task(TokenGuard::take(Arc::clone(&pool), n)).done().map(drop);
        assert!(matches!(refused, Err(TakeError::ExceedsMax { requested, .. }) if requested == n));
        assert_eq!(task(TokenGuard::take_up_to(Arc::clone(&pool), n)).done().unwrap().count(), 1);
        assert_eq!(TokenGuard::try_take_up_to(Arc::clone(&pool), n).unwrap().count(), 1);
        let refused = TokenGuard::grow_and_take(Arc::clone(&pool), n).map(drop);
        assert!(matches!(refused, Err(SetCapacityError::OutOfRange { requested, .. }) if requested == n.saturating_add(1)));
    }
    assert!(matches!(TokenGuard::try_take(Arc::clone(&pool), 2).map(drop), Err(TryTakeError::Empty)));
    assert_eq!(TokenGuard::try_take(Arc::clone(&pool), 0).unwrap().count(), 0);
    assert_eq!(pool.bucket.snapshot(), before);
    let mut queued = waiting(TokenGuard::take(Arc::clone(&pool), 2));
    pool.bucket.close();
    assert!(matches!(queued.done().map(drop), Err(TakeError::Closed(_))));
    assert!(matches!(TokenGuard::try_take(Arc::clone(&pool), 0).map(drop), Err(TryTakeError::Closed(_))));
    assert!(matches!(TokenGuard::try_take_up_to(Arc::clone(&pool), 9).map(drop), Err(TryTakeError::Closed(_))));
    assert!(matches!(TokenGuard::grow_and_take(Arc::clone(&pool), 1).map(drop), Err(SetCapacityError::Closed(_))));
    assert!(matches!(task(TokenGuard::take(Arc::clone(&pool), 1)).done().map(drop), Err(TakeError::Closed(_))));
    assert_eq!(Arc::strong_count(&pool), 1);
}

fn guards_of_a_pool_split_merge_retire_and_give_back(fairness: Fairness) {
    let pool = pool(fairness, 5);
    let mut guard = TokenGuard::try_take(Arc::clone(&pool), 5).unwrap();
    assert!(guard.split(6).is_none());
    let mut two = guard.split(2).unwrap();
    two.merge(guard.split(1).unwrap());
    assert_eq!((guard.count(), two.count()), (2, 3));
    guard.split(1).unwrap().retire();
    assert_eq!(pool.bucket.capacity(), 4);
    assert_eq!(guard.give_back().restored, 1);
    two.forget();
    assert_eq!((numbers(&pool.bucket), Arc::strong_count(&pool)), ([1, 3, 0, 0], 1));
}

fn takes_with_every_method<H: Handle + Clone>(handle: &H) {
    let bucket = handle.to_bucket();
    let before = bucket.snapshot();
    drop(TokenGuard::try_take(handle.clone(), 1).unwrap());
    assert!(poll_with(&mut TokenGuard::take(handle.clone(), 2), Waker::noop()).is_ready());
    assert!(poll_with(&mut TokenGuard::take_up_to(handle.clone(), 9), Waker::noop()).is_ready());
    let held = TokenGuard::try_take_up_to(handle.clone(), 9).unwrap();
    assert_eq!(held.count(), 2);
    assert!(matches!(TokenGuard::try_take_up_to(handle.clone(), 1).map(drop), Err(TryTakeError::Empty)));
    let grown = TokenGuard::grow_and_take(handle.clone(), 1).unwrap();
    assert_eq!((grown.count(), bucket.capacity(), bucket.available()), (1, 3, 0));
    grown.retire();
    let mut queued = waiting(TokenGuard::take(handle.clone(), 1));
    drop(held);
    assert!(std::ptr::eq(queued.done().unwrap().handle().to_bucket(), bucket));
    assert_eq!((bucket.snapshot(), bucket.waiting()), (before, 0));
    assert_eq!(format!("{:?}", TokenGuard::try_take(handle.clone(), 2).unwrap()), "Token { count: 2, .. }");
    assert_eq!(format!("{:?}", TokenGuard::take(handle.clone(), 3)), "Take { count: 3, stage: new, .. }");
}

static FIFO: TokenBucket = TokenBucket::with_capacity(2);
static BARGING: TokenBucket = TokenBucket::with_capacity(2).with_fairness(Fairness::Barging);

/// Borrowed, shared, static and boxed handles, one confined to a thread, and a user's own.
fn each_handle_takes_with_every_method(fairness: Fairness) {
    let local = bucket(fairness, 2);
    takes_with_every_method(&&local);
    takes_with_every_method(&Arc::new(bucket(fairness, 2)));
    let shared: &'static TokenBucket = if fairness == Fairness::Fifo { &FIFO } else { &BARGING };
    takes_with_every_method(&shared);
    let pool = pool(fairness, 2);
    takes_with_every_method(&&*pool);
    takes_with_every_method(&pool);
    takes_with_every_method(&Rc::new(bucket(fairness, 2)));
    takes_with_every_method(&Counted { pool, clones: Arc::default(), limit: 100 });
    let token: Token<'static> = TokenGuard::try_take(&FIFO, 0).unwrap();
    assert!(std::ptr::eq(token.bucket(), &raw const FIFO));
}

/// A clone that panics leaves all tokens where they were.
fn a_split_clones_the_handle_first(fairness: Fairness) {
    let pool = pool(fairness, 3);
    let clones = Arc::new(AtomicUsize::new(0));
    let handle = Counted { pool: Arc::clone(&pool), clones: Arc::clone(&clones), limit: 1 };
    let mut guard = TokenGuard::try_take(handle, 3).unwrap();
    assert!(guard.split(4).is_none());
    assert_eq!(clones.load(Ordering::SeqCst), 0, "no clone without a split");
    let one = guard.split(1).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard.split(1).map(drop))).is_err());
    assert_eq!((one.count(), guard.count(), numbers(&pool.bucket)), (1, 2, [0, 3, 0, 0]));
    drop((one, guard));
    assert_eq!(numbers(&pool.bucket), [3, 0, 0, 0]);
}
