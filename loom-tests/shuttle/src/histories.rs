//! Random programs whose answers must be such as one call after another could have had. Many shrink or close the bucket, or drop
//! the head of the queue, while other threads return tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use token_bucket::{Fairness, TokenBucket};

use crate::history::{Actor, Clock, Step, size};
use crate::spec;

const MAX: i64 = 4;

/// In a Fifo bucket, for the specification does not count losses; and with few threads, for it tries every order.
pub(crate) fn run(_: Fairness, threads: usize) {
    let (mut random, capacity) = (thread_rng(), thread_rng().gen_range(1..3));
    let bucket = &Arc::new(TokenBucket::const_new(size(MAX), size(capacity)));
    let ticks = AtomicU64::new(0);
    let clock: Clock = Arc::new(move || ticks.fetch_add(1, SeqCst));
    let mut all = Actor::new(&clock, 0);
    for _ in 0..capacity {
        all.step(bucket, Step::TryTake(1));
    }
    for _ in 0..random.gen_range(2..4) {
        all.step(bucket, Step::Take(random.gen_range(1..=capacity)));
    }
    let mut actors: Vec<_> = (1..=threads.min(4)).map(|thread| Actor::new(&clock, thread)).collect();
    for take in std::mem::take(&mut all.takes) {
        // Mostly of one thread, which can so drop the head and those behind it.
        let at = if random.gen_bool(0.7) { 0 } else { random.gen_range(0..actors.len()) };
        actors[at].takes.push_back(take);
    }
    for token in std::mem::take(&mut all.tokens) {
        let at = random.gen_range(0..actors.len());
        actors[at].tokens.push(token);
    }
    thread::scope(|scope| {
        for actor in &mut actors {
            scope.spawn(move || {
                for _ in 0..thread_rng().gen_range(1..4) {
                    let step = any_step();
                    crate::trace(|| format!("{step:?} in {:?}", bucket.snapshot()));
                    actor.step(bucket, step);
                }
            });
        }
    });
    actors.into_iter().for_each(|actor| all.absorb(actor));
    all.clear_up(bucket);
    if let Err(report) = spec::check(Fairness::Fifo, MAX, capacity, &all.events) {
        panic!("{report}");
    }
    assert_eq!(bucket.waiting(), 0);
}

fn any_step() -> Step {
    let mut random = thread_rng();
    let n = random.gen_range(1..3);
    match random.gen_range(0..18) {
        0..=3 => Step::Cancel,
        4..=7 => Step::Return,
        8..=10 => Step::SetCapacity(random.gen_range(0..4)),
        11 => Step::TryTake(n),
        12 | 13 => Step::Take(n),
        14 => Step::PollAgain,
        15 => Step::GrowAndTake(n),
        16 => Step::Retire,
        17 if random.gen_bool(0.3) => Step::Close,
        _ => Step::Deposit(n),
    }
}
