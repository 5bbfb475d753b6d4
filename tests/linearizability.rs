//! Concurrent calls by several threads: could they have had the same answers one after another?
//!
//! Many short histories are recorded, because short ones can be checked and printed. `TOKEN_BUCKET_STRESS=100` records a hundred
//! times as many; `.ci/chaos` makes calls overlap that otherwise would not.

#[path = "support/history.rs"]
mod history;
#[path = "support/spec.rs"]
mod spec;
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use history::{Actor, Clock, Step, size};
use spec::{Answer, Call, Event, Numbers};
use support::{both, chaos_seed, in_time};
use token_bucket::{Fairness, TokenBucket};

both! {
    two_threads,
    three_threads,
    four_threads,
    eight_threads,
    three_threads_and_a_close,
}

/// A xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % n
    }

    fn count(&mut self, n: u64) -> i64 {
        i64::try_from(self.below(n)).unwrap()
    }
}

/// Any call.
fn any_step(random: &mut Random) -> Step {
    let timeout = Duration::from_micros(random.below(80));
    let n = 1 + random.count(2) + i64::from(random.below(8) == 0);
    match random.below(40) {
        0..=3 => Step::TryTake(n),
        4 => Step::TryTakeUpTo(n),
        5..=9 => Step::Take(n),
        10..=13 => Step::PollAgain,
        14..=16 => Step::Cancel,
        17..=21 => Step::Return,
        22..=23 => Step::Wait(n, timeout),
        24 => Step::WaitForRoom(timeout),
        25 => Step::Deposit(n),
        26 => Step::Refill(n),
        27..=28 => Step::SetCapacity(random.count(4)),
        29..=30 => Step::ChangeCapacity(random.count(5) - 2),
        31..=32 => Step::GrowAndTake(n),
        33 => Step::Retire,
        34..=35 => Step::GiveBack,
        36..=38 => Step::TakeUpTo(n),
        _ => Step::Snapshot,
    }
}

/// What all threads of a history have in common.
#[derive(Clone)]
struct Scene {
    bucket: Arc<TokenBucket>,
    clock: Clock,
}

impl Scene {
    fn new(fairness: Fairness, capacity: i64) -> Self {
        let bucket = Arc::new(TokenBucket::new(size(MAX), size(capacity)).unwrap().with_fairness(fairness));
        let ticks = AtomicU64::new(0);
        Self { bucket, clock: Arc::new(move || ticks.fetch_add(1, Ordering::SeqCst) + 1) }
    }
}

const MAX: i64 = 4;

/// Records histories of `threads` threads that make `calls` concurrent calls each, and checks them. One thread may close the
/// bucket.
fn record(fairness: Fairness, threads: usize, calls: usize, may_close: bool) {
    let times = std::env::var("TOKEN_BUCKET_STRESS").map_or(1, |times| times.parse().expect("TOKEN_BUCKET_STRESS is a number"));
    for time in 0..times {
        in_time(move || histories(fairness, threads, calls, may_close, time));
    }
}

fn histories(fairness: Fairness, threads: usize, calls: usize, may_close: bool, time: u64) {
    const HISTORIES: u64 = 200;
    let scene = Mutex::new(None);
    let ended = Mutex::new(Vec::new());
    let barrier = Barrier::new(threads + 1);
    let (mut wrong, mut waiting) = (None, 0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (scene, ended, barrier) = (&scene, &ended, &barrier);
            scope.spawn(move || {
                // Programs of their own for each round, fairness and kind.
                let kind = 2 * u64::from(fairness == Fairness::Fifo) + u64::from(may_close);
                let seed = chaos_seed() << 20 ^ (time * 1000 + threads as u64 * 40 + kind * 10 + thread as u64 + 1);
                let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                for _ in 0..HISTORIES {
                    barrier.wait();
                    let Scene { bucket, clock } = Option::clone(&scene.lock().unwrap()).expect("a scene is set");
                    let mut actor = Actor::new(&clock, thread);
                    barrier.wait();
                    for _ in 0..calls {
                        let closes = may_close && random.below(12) == 0;
                        actor.step(&bucket, if closes { Step::Close } else { any_step(&mut random) });
                    }
                    ended.lock().unwrap().push(actor);
                    barrier.wait();
                }
            });
        }
        for history in 0..HISTORIES {
            let capacity = i64::try_from(history % 4).unwrap();
            let now = Scene::new(fairness, capacity);
            *scene.lock().unwrap() = Some(now.clone());
            for _ in 0..3 {
                barrier.wait();
            }
            let mut all = Actor::new(&now.clock, threads);
            ended.lock().unwrap().drain(..).for_each(|actor| all.absorb(actor));
            all.step(&now.bucket, Step::Snapshot);
            all.clear_up(&now.bucket);
            all.step(&now.bucket, Step::Snapshot);
            // Does not panic yet, because the threads wait at the barrier.
            if let Err(report) = spec::check(fairness, MAX, capacity, &all.events) {
                wrong = Some(report);
            }
            waiting += now.bucket.waiting();
        }
    });
    if let Some(wrong) = wrong {
        panic!("{wrong}");
    }
    assert_eq!(waiting, 0, "at the end of all histories");
}

fn two_threads(fairness: Fairness) {
    record(fairness, 2, 6, false);
}

fn three_threads(fairness: Fairness) {
    record(fairness, 3, 4, false);
}

fn four_threads(fairness: Fairness) {
    record(fairness, 4, 3, false);
}

fn eight_threads(fairness: Fairness) {
    record(fairness, 8, 2, false);
}

fn three_threads_and_a_close(fairness: Fairness) {
    record(fairness, 3, 4, true);
}

// Tests of the check itself.

fn numbers(capacity: i64, available: i64) -> Answer {
    Answer::Numbers(Numbers { capacity, available, closed: false })
}

/// Checks a history of a bucket of one token: calls, answers, and when each began and ended.
fn explains(fairness: Fairness, events: &[(Call, Answer, u64, u64)]) -> bool {
    let event = |(thread, &(call, answer, from, to))| Event { thread, call, answer, from, to };
    let events: Vec<_> = events.iter().enumerate().map(event).collect();
    spec::check(fairness, MAX, 1, &events).is_ok()
}

#[test]
fn right_histories_are_accepted() {
    for fairness in [Fairness::Fifo, Fairness::Barging] {
        for right in [
            // One call after another.
            &[
                (Call::TryTake(1), Answer::Done, 1, 2),
                (Call::Poll(1, 1), Answer::NotNow, 3, 4),
                (Call::Return(1), Answer::Done, 5, 6),
                (Call::PollAgain(1), Answer::Done, 7, 8),
                (Call::Return(1), Answer::Done, 9, 10),
                (Call::SetCapacity(3), numbers(3, 3), 11, 12),
            ][..],
            &[
                (Call::GrowAndTake(2), Answer::Done, 1, 2),
                (Call::PollUpTo(1, 3), Answer::Count(1), 3, 4),
                (Call::PollUpTo(2, 3), Answer::NotNow, 5, 6),
                (Call::ChangeCapacity(-2), numbers(1, -2), 7, 8),
                (Call::GiveBack(2), Answer::Returned(0, 2), 9, 10),
                (Call::GiveBack(1), Answer::Returned(1, 0), 11, 12),
                (Call::PollAgain(2), Answer::Count(1), 13, 14),
                (Call::Retire(1), Answer::Done, 15, 16),
                (Call::Snapshot, numbers(0, 0), 17, 18),
            ],
            // The take that ended first took effect last.
            &[
                (Call::TryTake(1), Answer::Done, 1, 10),
                (Call::Return(1), Answer::Done, 2, 9),
                (Call::Poll(1, 1), Answer::Done, 3, 4),
                (Call::Snapshot, numbers(1, 0), 11, 12),
            ],
            // Refused while another thread takes the token, which it returns later.
            &[
                (Call::Poll(1, 1), Answer::Done, 1, 5),
                (Call::TryTake(1), Answer::NotNow, 2, 3),
                (Call::Return(1), Answer::Done, 6, 7),
                (Call::Close, Answer::WasFirst(true), 8, 9),
                (Call::Wait(2, 1), Answer::Closed, 10, 11),
            ],
        ] {
            assert!(explains(fairness, right), "{fairness:?}: {right:?}");
        }
    }
    // The owner of the queue is about to notify the waiter of its grant, or to return the token of a cancelled waiter.
    for right in [
        &[
            (Call::TryTake(1), Answer::Done, 1, 2),
            (Call::Poll(1, 1), Answer::NotNow, 3, 4),
            (Call::Return(1), Answer::Done, 5, 20),
            (Call::Snapshot, numbers(1, 0), 6, 7),
            (Call::PollAgain(1), Answer::NotNow, 8, 9),
            (Call::TryTake(1), Answer::NotNow, 10, 11),
            (Call::PollAgain(1), Answer::Done, 12, 13),
        ][..],
        &[
            (Call::TryTake(1), Answer::Done, 1, 2),
            (Call::Poll(1, 1), Answer::NotNow, 3, 4),
            (Call::Return(1), Answer::Done, 5, 20),
            (Call::Cancel(1), Answer::Done, 6, 7),
            (Call::TryTake(1), Answer::NotNow, 8, 9),
            (Call::Snapshot, numbers(1, 1), 21, 22),
        ],
    ] {
        assert!(explains(Fairness::Fifo, right), "{right:?}");
    }
}

#[test]
fn wrong_histories_are_rejected() {
    let took = (Call::TryTake(1), Answer::Done, 1, 2);
    let waits = (Call::Poll(1, 1), Answer::NotNow, 3, 4);
    let back = (Call::Return(1), Answer::Done, 10, 11);
    for fairness in [Fairness::Fifo, Fairness::Barging] {
        for wrong in [
            // One token for two takes.
            &[took, (Call::Poll(1, 1), Answer::Done, 1, 3)][..],
            &[took, waits, back, (Call::TryTake(1), Answer::Done, 12, 20), (Call::PollAgain(1), Answer::Done, 13, 20)],
            // A token is lost, or added.
            &[took, back, (Call::Snapshot, numbers(1, 0), 12, 13)],
            &[took, waits, (Call::Cancel(1), Answer::Done, 5, 6), back, (Call::TryTake(1), Answer::NotNow, 12, 13)],
            &[took, waits, (Call::Cancel(1), Answer::Done, 5, 6), (Call::Snapshot, numbers(1, 1), 7, 8)],
            &[
                (Call::Poll(1, 2), Answer::NotNow, 1, 2),
                (Call::Cancel(1), Answer::Done, 3, 4),
                (Call::Snapshot, numbers(1, 2), 5, 6),
            ],
            // Refused although a token was available throughout.
            &[(Call::Snapshot, numbers(1, 1), 1, 5), (Call::TryTake(1), Answer::NotNow, 2, 3)],
            &[(Call::Refill(2), Answer::Count(2), 1, 5), (Call::TryTake(1), Answer::NotNow, 2, 3)],
            &[(Call::TryRelease(1), Answer::NotNow, 1, 2)],
            // A resize that takes effect late, or with a wrong result.
            &[(Call::SetCapacity(3), numbers(3, 3), 1, 2), (Call::Snapshot, numbers(1, 1), 3, 4)],
            &[took, (Call::SetCapacity(0), numbers(0, 0), 3, 4)],
            &[took, (Call::Refill(9), Answer::Count(3), 3, 4)],
            // Impossible results of a growth or a return.
            &[took, (Call::GrowAndTake(1), Answer::Done, 3, 4), (Call::Snapshot, numbers(2, 1), 5, 6)],
            &[(Call::GrowAndTake(3), Answer::NotNow, 1, 2)],
            &[(Call::GrowAndTake(4), Answer::Done, 1, 2)],
            &[took, (Call::GiveBack(1), Answer::Returned(0, 1), 3, 4)],
            &[took, (Call::SetCapacity(0), numbers(0, -1), 3, 4), (Call::GiveBack(1), Answer::Returned(1, 0), 5, 6)],
            &[took, (Call::Retire(1), Answer::Done, 3, 4), (Call::Snapshot, numbers(1, 0), 5, 6)],
            &[(Call::ChangeCapacity(1), numbers(1, 1), 1, 2)],
            &[(Call::ChangeCapacity(1), numbers(2, 2), 1, 3), (Call::ChangeCapacity(1), numbers(2, 2), 2, 4)],
            &[(Call::PollUpTo(1, 3), Answer::Count(2), 1, 2)],
            &[took, (Call::PollUpTo(1, 3), Answer::NotNow, 3, 4), back, (Call::PollAgain(1), Answer::Count(2), 12, 13)],
            // An error after the close, or before it.
            &[(Call::Close, Answer::WasFirst(true), 1, 2), (Call::TryTake(1), Answer::Done, 3, 4)],
            &[(Call::Close, Answer::WasFirst(true), 1, 3), (Call::Close, Answer::WasFirst(true), 2, 4)],
            &[(Call::TryTake(1), Answer::Closed, 1, 2), (Call::Close, Answer::WasFirst(true), 3, 4)],
            &[took, waits, (Call::Close, Answer::WasFirst(true), 5, 6), (Call::PollAgain(1), Answer::NotNow, 7, 8)],
            // No thread is serving, but this waiter was not served, or not woken.
            &[took, waits, back, (Call::PollAgain(1), Answer::NotNow, 12, 13)],
        ] {
            assert!(!explains(fairness, wrong), "{fairness:?}: {wrong:?}");
        }
    }
    for wrong in [
        // A take overtakes a waiter, or an earlier waiter.
        &[took, waits, back, (Call::TryTake(1), Answer::Done, 12, 13)][..],
        &[took, waits, (Call::Poll(2, 1), Answer::NotNow, 5, 6), back, (Call::PollAgain(2), Answer::Done, 12, 13)],
        // No thread is serving, but this waiter was not served.
        &[took, waits, back, (Call::Snapshot, numbers(1, 1), 12, 13)],
        // The token pays off a deficit, or the bucket is closed, before the first waiter leaves; the second one gets it all the
        // same.
        &[
            took,
            waits,
            (Call::Poll(2, 1), Answer::NotNow, 5, 6),
            (Call::Return(1), Answer::Done, 7, 20),
            (Call::SetCapacity(0), numbers(0, -1), 8, 9),
            (Call::Cancel(1), Answer::Done, 10, 11),
            (Call::PollAgain(2), Answer::Done, 21, 22),
        ],
        &[
            took,
            waits,
            (Call::Poll(2, 1), Answer::NotNow, 5, 6),
            (Call::Return(1), Answer::Done, 7, 20),
            (Call::Close, Answer::WasFirst(true), 8, 9),
            (Call::Cancel(1), Answer::Done, 10, 11),
            (Call::PollAgain(2), Answer::Done, 21, 22),
        ],
    ] {
        assert!(!explains(Fairness::Fifo, wrong), "{wrong:?}");
    }
}
