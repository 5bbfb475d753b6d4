//! What one permitted request costs under a rate limit that is not reached: a take from a bucket that is filled up by time, against
//! rate limiters of others. One thread.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use token_bucket::{Refill, TokenBucket};

const SECOND: Duration = Duration::from_secs(1);
/// More than can be taken in that time.
const PER_SECOND: u32 = 1_000_000_000;
const BURST: usize = 100_000_000;
/// A driver that ticks every 10 µs or so.
const TAKES_PER_TICK: u32 = 1000;

fn permitted(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate/permitted");
    group.throughput(Throughput::Elements(1));

    let bucket = TokenBucket::new(BURST, BURST).expect("a capacity in range");
    let mut refill = Refill::new(PER_SECOND as usize, SECOND).expect("a rate");
    group.bench_function("token-bucket, a tick for each", |b| {
        b.iter(|| {
            refill.tick_now(black_box(&bucket));
            black_box(&bucket).try_take().expect("plenty").forget();
        });
    });
    let mut takes = 0;
    group.bench_function("token-bucket, a tick for a thousand", |b| {
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

    let leaky = leaky_bucket::RateLimiter::builder()
        .max(BURST)
        .initial(BURST)
        .refill(PER_SECOND as usize / 1000)
        .interval(Duration::from_millis(1))
        .build();
    group.bench_function("leaky-bucket", |b| b.iter(|| assert!(black_box(&leaky).try_acquire(1), "plenty")));
    group.finish();
}

criterion_group!(benches, permitted);
criterion_main!(benches);
