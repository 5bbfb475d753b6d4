//! One thread, no waiter: the cost of each call, compared to bare compare-exchanges and the peers.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll};

use criterion::Bencher;

use crate::queue::waker;
use crate::rivals::{Owned, Resize, Rival, Weighted};
use crate::runner::{Group, Runner, against};
use crate::target::{ALL, BASELINE, Target};

const TOKENS: usize = 1000;
const WEIGHT: usize = 4;

pub(crate) fn run(runner: &mut Runner) {
    let name = |situation| (Group::Uncontended, situation);
    let targets = || vec![Target::both(1.10, BASELINE), Target::both(1.00, ALL)];
    runner.compare(name("uncontended try_take"), 1, targets(), against!(baseline, all: try_take()));
    runner.compare(name("uncontended take.await"), 1, targets(), against!(baseline, all: take()));
    let targets = vec![Target::both(1.00, ALL)];
    runner.compare(name("uncontended take.await, Result kept"), 1, targets, against!(baseline, all: take_kept()));
    runner.compare(name("uncontended wait"), 1, vec![], against!(baseline, all: wait()));
    runner.compare(name("uncontended try_take_owned"), 1, vec![], against!(baseline, all: try_take_owned()));
    runner.compare(name("uncontended take_owned.await"), 1, vec![], against!(baseline, all: take_owned()));
    runner.compare(name("uncontended try_take_many, 4"), 1, vec![], against!(baseline, weighted: try_take_many()));
    runner.compare(name("uncontended take_many.await, 4"), 1, vec![], against!(baseline, weighted: take_many()));
    let targets = vec![Target::both(1.30, BASELINE)];
    runner.compare(name("uncontended set_capacity"), 1, targets, against!(baseline, resizing: set_capacity()));
    runner.compare(name("uncontended snapshot"), 1, vec![], against!(baseline, all: snapshot()));
}

/// Polls the future once, which is ready.
#[inline]
fn ready<F: Future>(future: F, cx: &mut Context<'_>) -> F::Output {
    match pin!(future).poll(cx) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("there are plenty"),
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

/// The result itself is kept, so the compiler cannot omit the parts of it that unwrapping does not need.
fn take_kept<R: Rival>(b: &mut Bencher<'_>) {
    let (rival, waker) = (R::new(TOKENS), waker());
    let mut cx = Context::from_waker(&waker);
    b.iter(|| {
        let mut future = pin!(black_box(&rival).plain_take());
        drop(black_box(future.as_mut().poll(&mut cx)));
    });
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

/// To half the tokens and back, alternately.
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
