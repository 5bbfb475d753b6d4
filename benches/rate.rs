//! Rate limiters: what a permitted and a refused request cost on one thread, and how often tasks that wait are polled.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use governor::clock::Clock as _;
use token_bucket::{RateLimiter, Refill, TokenBucket};

const SECOND: Duration = Duration::from_secs(1);
/// More than can be taken in that time.
const PER_SECOND: u32 = 1_000_000_000;
const BURST: usize = 100_000_000;
/// A driver that ticks every 10 µs or so.
const TAKES_PER_TICK: u32 = 1000;

fn leaky(per_ms: usize, burst: usize, initial: usize) -> leaky_bucket::RateLimiter {
    leaky_bucket::RateLimiter::builder().max(burst).initial(initial).refill(per_ms).interval(Duration::from_millis(1)).build()
}

fn permitted(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate/permitted");
    group.throughput(Throughput::Elements(1));

    let limiter = RateLimiter::new(PER_SECOND as usize, SECOND, BURST).expect("a rate");
    group.bench_function("RateLimiter", |b| b.iter(|| black_box(&limiter).try_take(1).expect("plenty")));
    // No token is due between one take and the next.
    let limiter = RateLimiter::new(1, SECOND, usize::MAX).expect("a rate");
    group.bench_function("RateLimiter, slow", |b| b.iter(|| black_box(&limiter).try_take(1).expect("plenty")));

    let bucket = TokenBucket::new(BURST, BURST).expect("a capacity in range");
    let mut refill = Refill::new(PER_SECOND as usize, SECOND).expect("a rate");
    group.bench_function("Refill, a tick for each", |b| {
        b.iter(|| {
            refill.tick_now(black_box(&bucket));
            black_box(&bucket).try_take().expect("plenty").forget();
        });
    });
    let mut takes = 0;
    group.bench_function("Refill, a tick for a thousand", |b| {
        b.iter(|| {
            takes += 1;
            if takes % TAKES_PER_TICK == 0 {
                refill.tick_now(black_box(&bucket));
            }
            black_box(&bucket).try_take().expect("plenty").forget();
        });
    });

    let plenty = NonZeroU32::new(PER_SECOND).expect("not 0");
    let governor = governor::RateLimiter::direct(governor::Quota::per_second(plenty));
    group.bench_function("governor", |b| b.iter(|| black_box(&governor).check().expect("plenty")));

    let leaky = leaky(PER_SECOND as usize / 1000, BURST, BURST);
    group.bench_function("leaky-bucket", |b| b.iter(|| assert!(black_box(&leaky).try_acquire(1), "plenty")));

    // What the limiters above cannot do without.
    let origin = Instant::now();
    group.bench_function("baseline: Instant::now", |b| b.iter(Instant::now));
    group.bench_function("baseline: elapsed", |b| b.iter(|| black_box(origin).elapsed()));
    group.finish();
}

fn refused(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate/refused");
    group.throughput(Throughput::Elements(1));

    let limiter = RateLimiter::new(1, SECOND * 3600, 1).expect("a rate");
    limiter.try_take(1).expect("it is full");
    group.bench_function("RateLimiter", |b| b.iter(|| black_box(&limiter).try_take(1).expect_err("nothing is left")));

    let quota = governor::Quota::with_period(SECOND * 3600).expect("not 0");
    let governor = governor::RateLimiter::direct(quota);
    governor.check().expect("it is full");
    // As the limiter does, it says how long to wait.
    group.bench_function("governor", |b| {
        b.iter(|| black_box(&governor).check().expect_err("nothing is left").wait_time_from(governor.clock().now()));
    });

    let leaky = leaky_bucket::RateLimiter::builder().max(1).initial(0).refill(1).interval(SECOND * 3600).build();
    group.bench_function("leaky-bucket", |b| b.iter(|| assert!(!black_box(&leaky).try_acquire(1), "nothing is left")));
    group.finish();
}

const TASKS: usize = 64;
const TAKES: usize = 200;
const PER_MS: usize = 100;

/// Runs the tasks, and tells how long it took and how often they were polled.
fn run<F: Future>(take: impl Fn() -> F) -> (Duration, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let polls = Cell::new(0);
    let task = || async {
        for _ in 0..TAKES {
            let mut take = pin!(take());
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                take.as_mut().poll(cx)
            })
            .await;
        }
    };
    let start = Instant::now();
    runtime.block_on(tokio::task::unconstrained(futures::future::join_all((0..TASKS).map(|_| task()))));
    (start.elapsed(), polls.get())
}

/// 64 tasks that wait at 100 000 a second, with a burst of what is due in a millisecond and of a tenth of it: the time is given, so this
/// counts polls. Each take needs one, and one more if it has to wait.
fn waiting(_: &mut Criterion) {
    let report = |name, burst, (took, polls): (Duration, usize)| {
        println!("rate/64 waiting/{name}, burst {burst}: {} takes in {took:?}, {polls} polls", TASKS * TAKES);
    };
    for burst in [PER_MS, PER_MS / 10] {
        let limiter = RateLimiter::new(PER_MS * 1000, SECOND, burst).expect("a rate");
        limiter.try_take(burst).expect("it is full");
        report("RateLimiter", burst, run(|| async { limiter.take(1, tokio::time::sleep).await.expect("it is open") }));
        let leaky = leaky(PER_MS, burst, 0);
        report("leaky-bucket", burst, run(|| leaky.acquire_one()));
    }
}

criterion_group!(benches, permitted, refused, waiting);
criterion_main!(benches);
