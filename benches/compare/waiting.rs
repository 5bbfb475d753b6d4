//! Takes that wait, polled by hand, so that no executor is measured.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::Bencher;
use event_listener::{Event, EventListener, IntoNotification};

use crate::queue::{Queue, waker};
use crate::rivals::{Close, Order, Rival};
use crate::runner::{Candidate, Group, Runner, against};
use crate::target::{ASYNC_LOCK, TOKIO, Target};

const CROWD: usize = 1000;

pub(crate) fn run(runner: &mut Runner) {
    for depth in [1, 8, 32, 1000] {
        let targets = vec![Target::both(1.15, TOKIO), Target::both(0.95, ASYNC_LOCK)];
        let mut candidates = against!(all: hand_over(depth));
        candidates.insert(0, Candidate::new("baseline", Order::Baseline, move |b| event_alone(b, depth)));
        runner.compare((Group::Waiting, &format!("hand-over, {depth} waiting")), 1, targets, candidates);
    }
    let crowd = CROWD as u64;
    let name = |situation| (Group::Waiting, situation);
    let target = |limit| vec![Target::both(limit, TOKIO)];
    runner.compare(name("grow by 1000 under 1000 tasks"), crowd, target(1.10), against!(all: grow()));
    runner.compare(name("close under 1000 tasks"), crowd, target(1.30), against!(closing: close()));
    runner.compare(name("cancel one pending take"), 1, target(1.20), against!(all: cancel()));
    runner.compare(name("cancel 1000 pending takes"), crowd, target(1.50), against!(all: cancel_storm()));
}

fn served<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not served"),
    }
}

/// Another future is queued, so that `depth` wait; the token is returned; the first waiter takes it. Repeated.
fn hand_over<R: Rival>(b: &mut Bencher<'_>, depth: usize) {
    let (rival, waker) = (R::new(1), waker());
    let mut cx = Context::from_waker(&waker);
    let mut guard = rival.try_take();
    assert!(guard.is_some());
    let mut queue = Queue::new(depth);
    for place in 1..depth {
        queue.enter(place, rival.take(), &mut cx);
    }
    let mut place = 0;
    b.iter(|| {
        queue.enter(place, black_box(&rival).take(), &mut cx);
        place = (place + 1) % depth;
        drop(guard.take());
        guard = Some(served(queue.poll(place, &mut cx)));
    });
}

/// The baseline of a hand-over: `event-listener` alone listens, is polled, notifies, and is polled.
fn event_alone(b: &mut Bencher<'_>, depth: usize) {
    let (event, waker) = (Event::new(), waker());
    let mut cx = Context::from_waker(&waker);
    let enter = |place: &mut Option<EventListener>, cx: &mut Context<'_>| {
        let listener = place.insert(black_box(&event).listen());
        assert!(Pin::new(listener).poll(cx).is_pending());
    };
    let mut queue: Vec<_> = (0..depth).map(|_| None).collect();
    for place in &mut queue[1..] {
        enter(place, &mut cx);
    }
    let mut place = 0;
    b.iter(|| {
        enter(&mut queue[place], &mut cx);
        place = (place + 1) % depth;
        assert_eq!(event.notify(1.additional().relaxed()), 1);
        served(Pin::new(queue[place].as_mut().expect("it was entered")).poll(&mut cx));
    });
}

/// All wait; then tokens for all are added; each takes one.
fn grow<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut queue = Queue::new(CROWD);
    let mut guards = Vec::with_capacity(CROWD);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            (0..CROWD).for_each(|place| queue.enter(place, rival.take(), &mut cx));
            let start = Instant::now();
            rival.grow(CROWD);
            queue.serve_all(&mut cx, |guard| guards.push(guard));
            time += start.elapsed();
            guards.drain(..).for_each(R::forget);
        }
        time
    });
}

/// All wait; then it is closed; all of them fail.
fn close<R: Close>(b: &mut Bencher<'_>) {
    let waker = waker();
    let mut cx = Context::from_waker(&waker);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            let rival = R::new(0);
            let mut queue = Queue::new(CROWD);
            (0..CROWD).for_each(|place| queue.enter(place, rival.take_or_closed(), &mut cx));
            let start = Instant::now();
            rival.close();
            queue.serve_all(&mut cx, |closed| assert!(closed));
            time += start.elapsed();
        }
        time
    });
}

/// A future is queued and cancelled.
fn cancel<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut queue = Queue::new(1);
    b.iter(|| {
        queue.enter(0, black_box(&rival).take(), &mut cx);
        queue.leave(0);
    });
}

/// All are cancelled, in mixed order. Only the cancellation is measured.
fn cancel_storm<R: Rival>(b: &mut Bencher<'_>) {
    /// Has no factor in common with the size of the crowd, so each place is visited once.
    const STRIDE: usize = 617;

    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut queue = Queue::new(CROWD);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            (0..CROWD).for_each(|place| queue.enter(place, rival.take(), &mut cx));
            let start = Instant::now();
            (0..CROWD).for_each(|i| queue.leave(i * STRIDE % CROWD));
            time += start.elapsed();
        }
        time
    });
}
