//! Counts the bytes of a bucket, a guard, a future and a waiting task, compared with those of other semaphores.
//!
//! This is a target of its own because the counting allocator would slow down what `compare` measures.

use std::fmt::Write as _;
use std::future::Future;
use std::mem::size_of_val;
use std::path::Path;
use std::task::{Context, Waker};
use std::{env, fs};

use allocation_counter::measure;
use token_bucket::{Fairness, TokenBucket};

/// The number of waiters. There are many, so that memory that grows in steps is counted in proportion.
const CROWD: usize = 1000;

/// A semaphore's sizes.
struct Sizes {
    semaphore: usize,
    guard: usize,
    future: usize,
    /// Heap memory of a waiting future: bytes, and number of allocations.
    heap: f64,
    pieces: f64,
}

/// Polls many takes that all wait.
fn sizes<S, F: Future>(semaphore: &S, guard: usize, take: impl Fn() -> F) -> Sizes {
    let mut cx = Context::from_waker(Waker::noop());
    let future = size_of_val(&take());
    // The futures themselves are on the heap as well, but allocated before.
    let mut line: Vec<_> = (0..CROWD).map(|_| Box::pin(take())).collect();
    let used = measure(|| {
        for future in &mut line {
            assert!(future.as_mut().poll(&mut cx).is_pending());
        }
    });
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let each = |total: i64| total as f64 / CROWD as f64;
    Sizes { semaphore: size_of_val(semaphore), guard, future, heap: each(used.bytes_current), pieces: each(used.count_current) }
}

fn all() -> Vec<(&'static str, Sizes)> {
    let bucket = |fairness| TokenBucket::const_new(1, 1).with_fairness(fairness);
    let [fifo, barging] = [Fairness::Fifo, Fairness::Barging].map(bucket);
    let tokio = tokio::sync::Semaphore::new(1);
    let async_lock = async_lock::Semaphore::new(1);
    let mea = mea::semaphore::Semaphore::new(1);
    let intrusive = futures_intrusive::sync::Semaphore::new(true, 1);

    // There is one token, which is held.
    let guards = (
        fifo.try_take().expect("one"),
        barging.try_take().expect("one"),
        tokio.try_acquire().expect("one"),
        async_lock.try_acquire().expect("one"),
        mea.try_acquire(1).expect("one"),
        intrusive.try_acquire(1).expect("one"),
    );
    vec![
        ("token-bucket-fifo", sizes(&fifo, size_of_val(&guards.0), || fifo.take())),
        ("token-bucket-barging", sizes(&barging, size_of_val(&guards.1), || barging.take())),
        ("tokio", sizes(&tokio, size_of_val(&guards.2), || tokio.acquire())),
        ("async-lock", sizes(&async_lock, size_of_val(&guards.3), || async_lock.acquire())),
        ("mea", sizes(&mea, size_of_val(&guards.4), || mea.acquire(1))),
        ("futures-intrusive", sizes(&intrusive, size_of_val(&guards.5), || intrusive.acquire(1))),
    ]
}

fn main() {
    let mut text =
        String::from("| bytes | semaphore | guard | future | heap memory of a waiting future | total of a waiting task |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|\n");
    for (name, Sizes { semaphore, guard, future, heap, pieces }) in all() {
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let in_all = future as f64 + heap;
        writeln!(text, "| {name} | {semaphore} | {guard} | {future} | {heap:.0} in {pieces:.0} allocations | {in_all:.0} |")
            .expect("a string");
    }
    println!("{text}");
    // Only `cargo bench` updates the report.
    if env::args().any(|argument| argument == "--bench") {
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("bytes.md"), text).expect("the target directory can be written to");
    }
}
