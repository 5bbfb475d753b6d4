//! Someone waits, one token comes back, the first in line is served: polled by hand, so that no executor stands between.
//! Against the peers, and against what `event-listener` alone takes to listen, be polled, be notified and be polled.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

mod rivals;

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use event_listener::{Event, IntoNotification};
use rivals::{Barging, Fifo, Rival};

/// A waker with a reference count, like that of a task.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn served<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> F::Output {
    match future.poll(cx) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not served"),
    }
}

/// One more lines up, so that `depth` wait; the token comes back; the first of them takes it. Over and over.
fn hand_over<R: Rival>(group: &mut BenchmarkGroup<'_, WallTime>, depth: usize) {
    let waker = Waker::from(Arc::new(Wakes::default()));
    let mut cx = Context::from_waker(&waker);
    let rival = R::new(1);
    group.bench_function(BenchmarkId::new(R::NAME, depth), |b| {
        let mut guard = rival.try_take();
        assert!(guard.is_some());
        // Futures are made in place, so that no allocation of the bench is measured.
        let mut line: Vec<_> = (0..depth).map(|_| Box::pin(rival.take())).collect();
        for future in &mut line[1..] {
            assert!(future.as_mut().poll(&mut cx).is_pending());
        }
        let mut last = 0;
        b.iter(|| {
            line[last].set(black_box(&rival).take());
            assert!(line[last].as_mut().poll(&mut cx).is_pending());
            last = (last + 1) % depth;
            drop(guard.take());
            guard = Some(served(line[last].as_mut(), &mut cx));
        });
        drop(line);
    });
}

fn event_alone(group: &mut BenchmarkGroup<'_, WallTime>) {
    let waker = Waker::from(Arc::new(Wakes::default()));
    let mut cx = Context::from_waker(&waker);
    let event = Event::new();
    group.bench_function("event-listener", |b| {
        b.iter(|| {
            let mut listener = black_box(&event).listen();
            assert!(Pin::new(&mut listener).poll(&mut cx).is_pending());
            assert_eq!(event.notify(1.additional().relaxed()), 1);
            served(Pin::new(&mut listener), &mut cx);
        });
    });
}

fn hand_overs(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand_over");
    group.throughput(Throughput::Elements(1));
    event_alone(&mut group);
    for depth in [1, 8, 32, 1000] {
        hand_over::<Fifo>(&mut group, depth);
        hand_over::<Barging>(&mut group, depth);
        hand_over::<tokio::sync::Semaphore>(&mut group, depth);
        hand_over::<async_lock::Semaphore>(&mut group, depth);
        hand_over::<mea::semaphore::Semaphore>(&mut group, depth);
        hand_over::<futures_intrusive::sync::Semaphore>(&mut group, depth);
    }
    group.finish();
}

criterion_group!(benches, hand_overs);
criterion_main!(benches);
