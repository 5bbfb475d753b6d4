//! Takes that wait, polled by hand, so that no executor stands between.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::Bencher;
use event_listener::{Event, EventListener, IntoNotification};

use crate::line::{Line, waker};
use crate::rivals::{Close, Order, Rival};
use crate::runner::{Contender, Runner, against};
use crate::target::{ASYNC_LOCK, FLOOR, TOKIO, Target};

const CROWD: usize = 1000;

pub(crate) fn run(runner: &mut Runner) {
    for depth in [1, 8, 32, 1000] {
        let targets = vec![Target::fifo(1.40, FLOOR), Target::fifo(1.35, ASYNC_LOCK)];
        let mut contenders = against!(all: hand_over(depth));
        contenders.insert(0, Contender::new("floor", Order::Floor, move |b| event_alone(b, depth)));
        runner.compare(&format!("hand-over, {depth} in line"), 1, targets, contenders);
    }
    let crowd = CROWD as u64;
    runner.compare("grow by 1000 under 1000 tasks", crowd, vec![Target::both(1.00, TOKIO)], against!(all: grow()));
    runner.compare("close under 1000 tasks", crowd, vec![], against!(closing: close()));
    runner.compare("cancel one pending take", 1, vec![], against!(all: cancel()));
    runner.compare("cancel 1000 pending takes", crowd, vec![], against!(all: cancel_storm()));
}

fn served<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not served"),
    }
}

/// One more lines up, so that `depth` wait; the token comes back; the first of them takes it. Over and over.
fn hand_over<R: Rival>(b: &mut Bencher<'_>, depth: usize) {
    let (rival, waker) = (R::new(1), waker());
    let mut cx = Context::from_waker(&waker);
    let mut guard = rival.try_take();
    assert!(guard.is_some());
    let mut line = Line::new(depth);
    for place in 1..depth {
        line.enter(place, rival.take(), &mut cx);
    }
    let mut place = 0;
    b.iter(|| {
        line.enter(place, black_box(&rival).take(), &mut cx);
        place = (place + 1) % depth;
        drop(guard.take());
        guard = Some(served(line.poll(place, &mut cx)));
    });
}

/// The floor of a hand-over: `event-listener` alone listens, is polled, notifies, and is polled.
fn event_alone(b: &mut Bencher<'_>, depth: usize) {
    let (event, waker) = (Event::new(), waker());
    let mut cx = Context::from_waker(&waker);
    let enter = |place: &mut Option<EventListener>, cx: &mut Context<'_>| {
        let listener = place.insert(black_box(&event).listen());
        assert!(Pin::new(listener).poll(cx).is_pending());
    };
    let mut line: Vec<_> = (0..depth).map(|_| None).collect();
    for place in &mut line[1..] {
        enter(place, &mut cx);
    }
    let mut place = 0;
    b.iter(|| {
        enter(&mut line[place], &mut cx);
        place = (place + 1) % depth;
        assert_eq!(event.notify(1.additional().relaxed()), 1);
        served(Pin::new(line[place].as_mut().expect("it listens")).poll(&mut cx));
    });
}

/// Everyone waits; there are tokens for all at once; everyone takes one.
fn grow<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut line = Line::new(CROWD);
    let mut guards = Vec::with_capacity(CROWD);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            (0..CROWD).for_each(|place| line.enter(place, rival.take(), &mut cx));
            let start = Instant::now();
            rival.grow(CROWD);
            line.serve_all(&mut cx, |guard| guards.push(guard));
            time += start.elapsed();
            guards.drain(..).for_each(R::forget);
        }
        time
    });
}

/// Everyone waits; it is closed; everyone hears of it.
fn close<R: Close>(b: &mut Bencher<'_>) {
    let waker = waker();
    let mut cx = Context::from_waker(&waker);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            let rival = R::new(0);
            let mut line = Line::new(CROWD);
            (0..CROWD).for_each(|place| line.enter(place, rival.take_or_closed(), &mut cx));
            let start = Instant::now();
            rival.close();
            line.serve_all(&mut cx, |closed| assert!(closed));
            time += start.elapsed();
        }
        time
    });
}

/// Somebody lines up and goes away.
fn cancel<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut line = Line::new(1);
    b.iter(|| {
        line.enter(0, black_box(&rival).take(), &mut cx);
        line.leave(0);
    });
}

/// Everyone goes away, in no order. That they lined up is not measured.
fn cancel_storm<R: Rival>(b: &mut Bencher<'_>) {
    /// Has no factor in common with the size of the crowd, so everyone has a turn.
    const STRIDE: usize = 617;

    let (rival, waker) = (R::new(0), waker());
    let mut cx = Context::from_waker(&waker);
    let mut line = Line::new(CROWD);
    b.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            (0..CROWD).for_each(|place| line.enter(place, rival.take(), &mut cx));
            let start = Instant::now();
            (0..CROWD).for_each(|i| line.leave(i * STRIDE % CROWD));
            time += start.elapsed();
        }
        time
    });
}
