//! One thread, tokens in plenty: what taking a token and giving it back costs, against two bare compare-exchanges and the peers.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

mod rivals;

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use rivals::{Barging, Fifo, Rival, TwoCas};

const TOKENS: usize = 1000;

fn try_take<R: Rival>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let rival = R::new(TOKENS);
    group.bench_function(R::NAME, |b| b.iter(|| drop(black_box(black_box(&rival).try_take()).expect("plenty"))));
}

fn take_await<R: Rival>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let rival = R::new(TOKENS);
    let mut cx = Context::from_waker(Waker::noop());
    group.bench_function(R::NAME, |b| {
        b.iter(|| match pin!(black_box(&rival).take()).poll(&mut cx) {
            Poll::Ready(guard) => drop(black_box(guard)),
            Poll::Pending => unreachable!("plenty"),
        });
    });
}

macro_rules! against_all {
    ($bench:ident, $group:expr) => {
        let mut group = $group;
        group.throughput(Throughput::Elements(1));
        $bench::<TwoCas>(&mut group);
        $bench::<Fifo>(&mut group);
        $bench::<Barging>(&mut group);
        $bench::<tokio::sync::Semaphore>(&mut group);
        $bench::<async_lock::Semaphore>(&mut group);
        $bench::<mea::semaphore::Semaphore>(&mut group);
        $bench::<futures_intrusive::sync::Semaphore>(&mut group);
        group.finish();
    };
}

fn uncontended(c: &mut Criterion) {
    against_all!(try_take, c.benchmark_group("uncontended/try_take"));
    against_all!(take_await, c.benchmark_group("uncontended/take_await"));
}

criterion_group!(benches, uncontended);
criterion_main!(benches);
