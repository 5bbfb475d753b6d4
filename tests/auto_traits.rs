//! Properties of the types that no signature shows: auto traits, traits of std, sizes, and debug output.

mod support;

use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::future::Ready;
use std::hash::Hash;
use std::mem::size_of;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures::future::FusedFuture;
use support::poll_with;
use token_bucket::{
    CapacityError, Closed, Fairness, Idle, LimitError, NotYet, OwnedToken, RateError, RateLimiter, RateTake, Refill, Release,
    ReleaseError, Returned, SetCapacityError, Settled, Snapshot, Take, TakeError, TakeFuture, TakeOwned, Tick, Token, TokenBucket,
    TokenGuard, TryReleaseError, TryTakeError, WaitError, Watch,
};

const fn shared<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + Debug>() {}
const fn owned<T: 'static>() {}
const fn value<T: Copy + Eq + Hash + Debug + UnwindSafe + RefUnwindSafe + Send + Sync + Unpin + 'static>() {}
const fn error<T: Error + Clone + Debug + Display + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
const fn future<T: Future<Output = O> + FusedFuture + Unpin + Send + Sync + Debug, O: Send + Sync>() {}

/// Does not compile if the type has the trait.
macro_rules! assert_not {
    ($($type:ty: $trait:path;)*) => {$(
        const _: fn() = || {
            trait Ambiguous<A> {
                fn item() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Also;
            impl<T: ?Sized + $trait> Ambiguous<Also> for T {}
            let _ = <$type as Ambiguous<_>>::item;
        };
    )*};
}

const _: () = {
    shared::<TokenBucket>();
    shared::<Arc<TokenBucket>>();
    shared::<Token<'_>>();
    shared::<OwnedToken>();
    shared::<Take<'_>>();
    shared::<TakeOwned>();
    shared::<Release<'_>>();
    shared::<Idle<'_>>();
    shared::<Settled<'_>>();
    shared::<Watch<'_>>();
    shared::<TokenGuard<Arc<Pool>>>();
    shared::<TokenGuard<&'static Pool>>();
    shared::<TakeFuture<Arc<Pool>>>();
    shared::<Refill>();

    owned::<TokenBucket>();
    owned::<OwnedToken>();
    owned::<TakeOwned>();
    owned::<TokenGuard<Arc<Pool>>>();
    owned::<TakeFuture<Arc<Pool>>>();
    owned::<Refill>();

    value::<Fairness>();
    value::<Snapshot>();
    value::<Returned>();
    value::<Tick>();

    error::<CapacityError>();
    error::<RateError>();
    error::<Closed>();
    error::<TryTakeError>();
    error::<TakeError>();
    error::<TryReleaseError>();
    error::<ReleaseError>();
    error::<SetCapacityError>();
    error::<WaitError<TakeError>>();
    error::<WaitError<ReleaseError>>();
};

const _: () = {
    shared::<RateLimiter>();
    owned::<RateLimiter>();
    error::<NotYet>();
    error::<LimitError>();
    error::<WaitError<LimitError>>();
    future::<RateTake<'static, fn(Duration) -> Ready<()>, Ready<()>>, Result<(), LimitError>>();
};

const _: () = {
    future::<Take<'static>, Result<Token<'static>, TakeError>>();
    future::<TakeOwned, Result<OwnedToken, TakeError>>();
    future::<Release<'static>, Result<(), ReleaseError>>();
    future::<Idle<'static>, ()>();
    future::<Settled<'static>, ()>();
    future::<TakeFuture<Arc<Pool>>, Result<TokenGuard<Arc<Pool>>, TakeError>>();
};

// A copy would duplicate its tokens.
assert_not! {
    Token<'static>: Clone;
    OwnedToken: Clone;
    Take<'static>: Clone;
    TakeOwned: Clone;
    Release<'static>: Clone;
    Idle<'static>: Clone;
    TokenBucket: Clone;
    TokenGuard<Arc<Pool>>: Clone;
    TakeFuture<Arc<Pool>>: Clone;
}

// They are as mobile as their handle.
assert_not! {
    TokenGuard<Rc<TokenBucket>>: Send;
    TokenGuard<Rc<TokenBucket>>: Sync;
    TakeFuture<Rc<TokenBucket>>: Send;
    TakeFuture<Rc<TokenBucket>>: Sync;
}

struct Pool(TokenBucket);

impl AsRef<TokenBucket> for Pool {
    fn as_ref(&self) -> &TokenBucket {
        &self.0
    }
}

static BUCKET: TokenBucket = TokenBucket::const_new(10, 3);
static BARGING: TokenBucket = TokenBucket::const_new(TokenBucket::MAX_CAPACITY, 0).with_fairness(Fairness::Barging);

#[test]
fn a_bucket_can_be_a_static() {
    assert_eq!((BUCKET.capacity(), BUCKET.max_capacity(), BUCKET.fairness()), (3, 10, Fairness::Fifo));
    assert_eq!((BARGING.capacity(), BARGING.fairness()), (0, Fairness::Barging));
    // A task that lives for ever can hold a token borrowed from it, too.
    let token: Token<'static> = BUCKET.try_take().unwrap();
    std::thread::spawn(move || drop(token)).join().unwrap();
    assert_eq!(BUCKET.available(), 3);
}

#[test]
fn fifo_is_the_default() {
    assert_eq!(Fairness::default(), Fairness::Fifo);
    assert_eq!(TokenBucket::new(1, 1).unwrap().fairness(), Fairness::Fifo);
    for fairness in [Fairness::Fifo, Fairness::Barging] {
        assert_eq!(TokenBucket::new(1, 1).unwrap().with_fairness(fairness).fairness(), fairness);
    }
}

#[test]
fn guards_and_futures_are_small() {
    let word = size_of::<usize>();
    assert_eq!(size_of::<Token<'_>>(), 2 * word);
    assert_eq!(size_of::<OwnedToken>(), 2 * word);
    assert_eq!(size_of::<Option<OwnedToken>>(), 2 * word);
    assert_eq!(size_of::<Closed>(), word);
    assert_eq!(size_of::<ReleaseError>(), word);
    for (name, size, limit) in [
        ("TokenBucket", size_of::<TokenBucket>(), 16 * word),
        ("Take", size_of::<Take<'_>>(), 6 * word),
        ("TakeOwned", size_of::<TakeOwned>(), 6 * word),
        ("Release", size_of::<Release<'_>>(), 5 * word),
        ("Idle", size_of::<Idle<'_>>(), 5 * word),
        ("TakeError", size_of::<TakeError>(), 3 * word),
        ("WaitError", size_of::<WaitError<TakeError>>(), 4 * word),
    ] {
        println!("{name}: {size} bytes");
        assert!(size <= limit, "{name} has {size} bytes");
    }
}

#[test]
fn debug_output_shows_the_numbers() {
    let bucket = Arc::new(TokenBucket::new(10, 3).unwrap());
    let token = bucket.try_take_many(2).unwrap();
    let owned = bucket.try_take_owned().unwrap();
    bucket.set_capacity(1).unwrap();
    let mut take = bucket.take_many(4);
    let mut take_owned = bucket.take_owned();
    let release = bucket.release();
    assert_eq!(format!("{take:?}"), "Take { count: 4, stage: new, .. }");
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    assert!(poll_with(&mut take_owned, Waker::noop()).is_pending());

    assert_eq!(
        format!("{bucket:?}"),
        "TokenBucket { capacity: 1, max_capacity: 10, available: 0, outstanding: 3, deficit: 2, closed: false, waiting: 2, \
         fairness: Fifo }"
    );
    assert_eq!(
        format!("{:?}", bucket.snapshot()),
        "Snapshot { capacity: 1, max_capacity: 10, available: 0, outstanding: 3, deficit: 2, closed: false }"
    );
    assert_eq!(format!("{token:?}"), "Token { count: 2, .. }");
    assert_eq!(format!("{:?}", bucket.settled()), "Settled { stage: new, .. }");
    assert_eq!(format!("{:?}", bucket.try_take_many(0).unwrap().give_back()), "Returned { restored: 0, retired: 0 }");
    assert_eq!(format!("{owned:?}"), "Token { count: 1, .. }");
    assert_eq!(format!("{take:?}"), "Take { count: 4, stage: waiting, .. }");
    assert_eq!(format!("{take_owned:?}"), "Take { count: 1, stage: waiting, .. }");
    assert_eq!(format!("{release:?}"), "Release { stage: new, .. }");

    bucket.close_with("the end");
    assert!(poll_with(&mut take_owned, Waker::noop()).is_ready());
    assert_eq!(format!("{take_owned:?}"), "Take { count: 1, stage: done, .. }");
    let closed = format!("{:?}", bucket.try_take().unwrap_err());
    assert!(closed.contains("Closed") && closed.contains("the end"), "{closed}");
}

#[test]
fn debug_output_of_a_release_shows_its_stage() {
    let bucket = TokenBucket::new(1, 1).unwrap();
    let mut release = bucket.release();
    assert!(poll_with(&mut release, Waker::noop()).is_pending());
    assert_eq!(format!("{release:?}"), "Release { stage: waiting, .. }");
    bucket.try_take().unwrap().forget();
    assert!(poll_with(&mut release, Waker::noop()).is_ready());
    assert_eq!(format!("{release:?}"), "Release { stage: done, .. }");
}

#[test]
fn futures_are_fused() {
    let bucket = Arc::new(TokenBucket::new(1, 1).unwrap());
    let token = bucket.try_take().unwrap();
    let (mut take, mut owned) = (bucket.take(), bucket.take_owned());
    assert!(!take.is_terminated() && !owned.is_terminated());
    assert!(poll_with(&mut take, Waker::noop()).is_pending());
    assert!(poll_with(&mut owned, Waker::noop()).is_pending());
    assert!(!take.is_terminated() && !owned.is_terminated());
    drop(token);
    assert!(poll_with(&mut take, Waker::noop()).is_ready());
    assert!(poll_with(&mut owned, Waker::noop()).is_ready());
    assert!(take.is_terminated() && owned.is_terminated());
    assert_eq!(bucket.available(), 1);
}
