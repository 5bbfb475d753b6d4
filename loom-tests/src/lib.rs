//! What the models have in common: how a scenario is run, and what must hold when it is over.
//!
//! `cargo loom` lets loom explore the schedules of every scenario (see `.cargo/config.toml`), `cargo test -p loom-tests` runs
//! the same scenarios with real threads. `LOOM_MAX_PREEMPTIONS=4 cargo loom` goes deeper than the scenarios ask for, and
//! `cargo loom -- --nocapture 2>/dev/null` tells how many schedules there were.
//!
//! Every model finds a fault. They are listed in `faults`, and `.ci/faults` plants them one by one.
//!
//! Two habits of loom shape the scenarios. It keeps one access for each atomic, so a load that another load follows is
//! forgotten, and a change that comes later is not tried before it: hence [`race`] lets each of the racers run first.
//! And it gives up on threads that can hinder each other indefinitely, such as a waiter that is about to listen on the inbox and an
//! owner that empties it too soon. Where that can be, the number of preemptions is bounded.
//!
//! Under loom a waiter does not try again to own the queue (there is no `Backoff`), so two threads suffice to bring it into the
//! inbox. Two losses make a head starve, and an owner yields after two rounds.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use token_bucket::Fairness;
pub use token_bucket::TokenBucket;

#[cfg(loom)]
pub use loom::{future::block_on, sync::atomic, thread};
#[cfg(not(loom))]
pub use pollster::block_on;
#[cfg(not(loom))]
pub use std::{sync::atomic, thread};

// Also under loom: the owned forms take this one, and what happens to its count is nothing to explore.
pub use std::sync::Arc;

std::thread_local! {
    /// Which of the racers runs first, and out of how many.
    static FIRST: Cell<(usize, usize)> = const { Cell::new((0, 1)) };
}

/// Runs `scenario` in every schedule with at most `bound` preemptions. `None` is for all schedules that there are.
///
/// # Panics
///
/// If the scenario does, or if there is nothing to explore.
pub fn check(bound: Option<usize>, scenario: impl Fn() + Sync + Send + 'static) {
    let scenario = Arc::new(scenario);
    FIRST.set((0, 1));
    let mut schedules = 0;
    loop {
        schedules += explore(bound, &scenario);
        let (first, racers) = FIRST.get();
        if first + 1 == racers {
            assert!(schedules > racers, "there is nothing to explore");
            return;
        }
        FIRST.set((first + 1, racers));
    }
}

#[cfg(loom)]
fn explore(bound: Option<usize>, scenario: &Arc<impl Fn() + Sync + Send + 'static>) -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    let begin = Instant::now();
    let schedules = Arc::new(AtomicUsize::new(0));
    let (count, scenario) = (Arc::clone(&schedules), Arc::clone(scenario));
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    let schedules = schedules.load(Ordering::Relaxed);
    println!("{}: {schedules} schedules in {:.1?}", std::thread::current().name().unwrap_or("?"), begin.elapsed());
    schedules
}

/// Runs `scenario` many times over.
#[cfg(not(loom))]
fn explore(_bound: Option<usize>, scenario: &Arc<impl Fn() + Sync + Send + 'static>) -> usize {
    const TIMES: usize = 500;
    assert!(
        std::env::var_os("TOKEN_BUCKET_LOOM").is_none(),
        "loom is wanted, but this was built without `--cfg loom`: is RUSTFLAGS set?"
    );
    for _ in 0..TIMES {
        scenario();
    }
    TIMES
}

/// A bucket that can have `max` tokens, and has `capacity`.
#[must_use]
pub fn fifo(max: usize, capacity: usize) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::const_new(max, capacity))
}

/// As [`fifo`], but newcomers may take tokens ahead of the queue.
#[must_use]
pub fn barging(max: usize, capacity: usize) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::const_new(max, capacity).with_fairness(Fairness::Barging))
}

/// Polls once, with a waker that does nothing.
pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// As [`poll`], with a waker that is a clone of `waker`, so that its count tells where it is.
pub fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Arc<Counted>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// A waker that does nothing, and can be counted.
#[derive(Debug)]
pub struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Queues a future: the first poll, which finds too little.
///
/// # Panics
///
/// If there was enough.
#[must_use]
pub fn queued<F: Future + Unpin>(mut future: F) -> F {
    assert!(poll(&mut future).is_pending(), "nothing to wait for");
    future
}

fn spawn<T: Send + 'static>(
    bucket: &Arc<TokenBucket>,
    f: impl FnOnce(&Arc<TokenBucket>) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let bucket = Arc::clone(bucket);
    thread::spawn(move || f(&bucket))
}

/// Runs both at once. To be called once in a scenario, which is run with each of them in front.
///
/// # Panics
///
/// If one of them did.
pub fn race<A: Send + 'static, B: Send + 'static>(
    bucket: &Arc<TokenBucket>,
    a: impl FnOnce(&Arc<TokenBucket>) -> A + Send + 'static,
    b: impl FnOnce(&Arc<TokenBucket>) -> B + Send + 'static,
) -> (A, B) {
    let (first, _) = FIRST.get();
    FIRST.set((first, 2));
    if first == 0 {
        let b = spawn(bucket, b);
        (a(bucket), b.join().unwrap())
    } else {
        let a = spawn(bucket, a);
        let b = b(bucket);
        (a.join().unwrap(), b)
    }
}

/// As [`race`], with three.
///
/// # Panics
///
/// If one of them did.
pub fn race3<A: Send + 'static, B: Send + 'static, C: Send + 'static>(
    bucket: &Arc<TokenBucket>,
    a: impl FnOnce(&Arc<TokenBucket>) -> A + Send + 'static,
    b: impl FnOnce(&Arc<TokenBucket>) -> B + Send + 'static,
    c: impl FnOnce(&Arc<TokenBucket>) -> C + Send + 'static,
) -> (A, B, C) {
    let (first, _) = FIRST.get();
    FIRST.set((first, 3));
    match first {
        0 => {
            let (b, c) = (spawn(bucket, b), spawn(bucket, c));
            (a(bucket), b.join().unwrap(), c.join().unwrap())
        }
        1 => {
            let (c, a) = (spawn(bucket, c), spawn(bucket, a));
            let b = b(bucket);
            (a.join().unwrap(), b, c.join().unwrap())
        }
        _ => {
            let (a, b) = (spawn(bucket, a), spawn(bucket, b));
            let c = c(bucket);
            (a.join().unwrap(), b.join().unwrap(), c)
        }
    }
}

/// What must hold when all is done: no waiter is left, no token was lost or made, and those in the bucket can be taken.
///
/// `held` tokens are still out, and so many more than were taken have been put in as `deposits` says.
///
/// # Panics
///
/// If it does not hold.
pub fn at_rest(bucket: &TokenBucket, held: usize, deposits: usize) {
    let now = bucket.snapshot();
    assert_eq!(now.available + held, now.capacity + deposits + now.deficit, "{now:?}, {held} held");
    assert_eq!(bucket.waiting(), 0, "{now:?}");
    assert_eq!(bucket.try_take_up_to(usize::MAX).map_or(0, |token| token.count()), if now.closed { 0 } else { now.available });
}
