//! One thread, and nobody waits: what each call costs, against bare compare-exchanges and the peers.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll};

use criterion::Bencher;

use crate::line::waker;
use crate::rivals::{Owned, Resize, Rival, Weighted};
use crate::runner::{Runner, against};
use crate::target::{ALL, FLOOR, Target, USUAL};

const TOKENS: usize = 1000;
const WEIGHT: usize = 4;

pub(crate) fn run(runner: &mut Runner) {
    let targets = vec![Target::both(1.05, FLOOR), Target::both(0.50, USUAL)];
    runner.compare("uncontended try_take", 1, targets, against!(floor, all: try_take()));
    let targets = vec![Target::both(1.30, FLOOR), Target::both(0.42, ALL)];
    runner.compare("uncontended take.await", 1, targets, against!(floor, all: take()));
    runner.compare("uncontended wait", 1, vec![], against!(floor, all: wait()));
    runner.compare("uncontended try_take_owned", 1, vec![], against!(floor, all: try_take_owned()));
    runner.compare("uncontended take_owned.await", 1, vec![], against!(floor, all: take_owned()));
    runner.compare("uncontended try_take_many, 4", 1, vec![], against!(floor, weighted: try_take_many()));
    runner.compare("uncontended take_many.await, 4", 1, vec![], against!(floor, weighted: take_many()));
    let targets = vec![Target::both(1.30, FLOOR)];
    runner.compare("uncontended set_capacity", 1, targets, against!(floor, resizing: set_capacity()));
    runner.compare("uncontended snapshot", 1, vec![], against!(floor, all: snapshot()));
}

/// Polls it once, for it is ready.
#[inline]
fn ready<F: Future>(future: F, cx: &mut Context<'_>) -> F::Output {
    match pin!(future).poll(cx) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("plenty"),
    }
}

fn try_take<R: Rival>(b: &mut Bencher<'_>) {
    let rival = R::new(TOKENS);
    b.iter(|| drop(black_box(black_box(&rival).try_take()).expect("plenty")));
}

fn take<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(TOKENS), waker());
    let mut cx = Context::from_waker(&waker);
    b.iter(|| drop(black_box(ready(black_box(&rival).take(), &mut cx))));
}

fn wait<R: Rival>(b: &mut Bencher<'_>) {
    let rival = R::new(TOKENS);
    b.iter(|| drop(black_box(black_box(&rival).wait())));
}

fn try_take_owned<R: Owned>(b: &mut Bencher<'_>) {
    let shared = R::shared(TOKENS);
    b.iter(|| drop(black_box(R::try_take_owned(black_box(&shared))).expect("plenty")));
}

fn take_owned<R: Owned>(b: &mut Bencher<'_>) {
    let (shared, waker) = (R::shared(TOKENS), waker());
    let mut cx = Context::from_waker(&waker);
    b.iter(|| drop(black_box(ready(R::take_owned(black_box(&shared)), &mut cx))));
}

fn try_take_many<R: Weighted>(b: &mut Bencher<'_>) {
    let rival = R::new(TOKENS);
    b.iter(|| drop(black_box(black_box(&rival).try_take_many(black_box(WEIGHT))).expect("plenty")));
}

fn take_many<R: Weighted>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(TOKENS), waker());
    let mut cx = Context::from_waker(&waker);
    b.iter(|| drop(black_box(ready(black_box(&rival).take_many(black_box(WEIGHT)), &mut cx))));
}

/// To half as many and back, in turn.
fn set_capacity<R: Resize>(b: &mut Bencher<'_>) {
    let rival = R::new(TOKENS);
    let (mut now, mut other) = (TOKENS, TOKENS / 2);
    b.iter(|| {
        let to = black_box(&rival).resize(black_box(now), black_box(other));
        other = now;
        now = to;
    });
}

fn snapshot<R: Rival>(b: &mut Bencher<'_>) {
    let rival = R::new(TOKENS);
    b.iter(|| black_box(&rival).look());
}
