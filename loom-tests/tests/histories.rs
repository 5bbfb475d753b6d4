//! Short programs of two threads. In every schedule, their answers must be such as one call after another could have had.

#[allow(dead_code, reason = "these programs do not make every call")]
#[path = "../../tests/support/history.rs"]
mod history;
#[allow(dead_code, reason = "these programs do not make every call")]
#[path = "../../tests/support/spec.rs"]
mod spec;

use history::Step::{Cancel, Close, Deposit, GrowAndTake, PollAgain, Retire, Return, SetCapacity, Take, TryTake};

use history::{Actor, Clock, Step, size};
use loom_tests::atomic::{AtomicU64, Ordering};
use loom_tests::{Arc, TokenBucket, barging, check, fifo, race};

const MAX: i64 = 4;

/// What one thread does to the queue, most of it before it drops the head.
const CHANGES: [&[Step]; 12] = [
    &[SetCapacity(0), Cancel],
    &[SetCapacity(3), Cancel],
    &[SetCapacity(0), SetCapacity(2), Cancel],
    &[SetCapacity(1), Cancel, Cancel],
    &[Close, Cancel],
    &[Retire, Cancel],
    &[GrowAndTake(1), Cancel],
    &[Deposit(1), Cancel],
    &[Cancel, SetCapacity(0)],
    &[Cancel, Take(1)],
    &[Cancel, TryTake(1)],
    &[PollAgain, SetCapacity(0), Cancel],
];

/// What the other thread does meanwhile.
const RETURNS: [&[Step]; 3] = [&[Return], &[Return, Return], &[Return, Take(1)]];

type Make = fn(usize, usize) -> Arc<TokenBucket>;

/// A bucket of that many tokens, all taken, and a queue of requests. The first thread has the requests.
fn explore(make: Make, capacity: i64, queue: &'static [i64], change: &'static [Step], returns: &'static [Step]) {
    check(Some(2), move || {
        let bucket = make(size(MAX), size(capacity));
        let ticks = AtomicU64::new(0);
        let clock: Clock = Arc::new(move || ticks.fetch_add(1, Ordering::AcqRel));
        let mut all = Actor::new(&clock, 0);
        (0..capacity).for_each(|_| all.step(&bucket, TryTake(1)));
        for n in queue {
            all.step(&bucket, Take(*n));
        }
        let (mut one, mut two) = (Actor::new(&clock, 1), Actor::new(&clock, 2));
        one.takes.append(&mut all.takes);
        two.tokens.append(&mut all.tokens);
        if two.tokens.len() > 1 {
            one.tokens.extend(two.tokens.pop());
        }
        let (one, two) = race(
            &bucket,
            move |bucket| {
                for step in change {
                    one.step(bucket, *step);
                }
                one
            },
            move |bucket| {
                for step in returns {
                    two.step(bucket, *step);
                }
                two
            },
        );
        all.absorb(one);
        all.absorb(two);
        all.clear_up(&bucket);
        if let Err(report) = spec::check(bucket.fairness(), MAX, capacity, &all.events) {
            panic!("{report}");
        }
        assert_eq!(bucket.waiting(), 0);
    });
}

fn all(make: Make, queues: &[(i64, &'static [i64])]) {
    for (capacity, queue) in queues {
        for change in CHANGES {
            for returns in RETURNS {
                explore(make, *capacity, queue, change, returns);
            }
        }
    }
}

/// Guards `Combiner::hand_off`, which looks at the word again if the head has left.
#[test]
fn answers_in_a_queue_of_single_tokens() {
    all(fifo, &[(1, &[1, 1]), (1, &[1, 1, 1])]);
}

#[test]
fn answers_in_a_queue_of_several_tokens() {
    all(fifo, &[(2, &[2, 1]), (2, &[1, 2, 1])]);
}

#[test]
fn answers_in_a_barging_queue() {
    all(barging, &[(1, &[1, 1]), (2, &[2, 1]), (2, &[1, 2, 1])]);
}
