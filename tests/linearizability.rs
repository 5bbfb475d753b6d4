//! Concurrent calls by several threads: could they have had the same answers one after another?
//!
//! Many short histories are recorded, because short ones can be checked and printed. `TOKEN_BUCKET_STRESS=100` records a hundred
//! times as many; `.ci/chaos` makes calls overlap that otherwise would not.

#[path = "support/spec.rs"]
mod spec;
mod support;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use spec::{Answer, Call, Event, Id, Numbers};
use support::{Task, both, chaos_seed, in_time, task};
use token_bucket::{
    Fairness, OwnedToken, SetCapacityError, TakeError, TakeOwned, TokenBucket, TryReleaseError, TryTakeError, WaitError,
};

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

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap()
}

struct Scene {
    bucket: Arc<TokenBucket>,
    clock: AtomicU64,
    ids: AtomicU64,
}

/// The calls of one thread, and what it holds.
struct Actor {
    scene: Arc<Scene>,
    thread: usize,
    events: Vec<Event>,
    /// With whether the future is for up to that many tokens.
    futures: VecDeque<(Id, Task<TakeOwned>, bool)>,
    tokens: Vec<OwnedToken>,
}

fn take_error(error: &TakeError) -> Answer {
    assert!(matches!(error, TakeError::Closed(_)), "{error}");
    Answer::Closed
}

fn set_capacity_error(error: &SetCapacityError) -> Answer {
    if let SetCapacityError::Closed(_) = error { Answer::Closed } else { Answer::NotNow }
}

impl Actor {
    fn new(scene: &Arc<Scene>, thread: usize) -> Self {
        Self { scene: Arc::clone(scene), thread, events: Vec::new(), futures: VecDeque::new(), tokens: Vec::new() }
    }

    fn record(&mut self, call: Call, f: impl FnOnce(&Arc<TokenBucket>) -> (Answer, Option<OwnedToken>)) -> Answer {
        let scene = &*self.scene;
        let from = scene.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let (answer, token) = f(&scene.bucket);
        let to = scene.clock.fetch_add(1, Ordering::SeqCst) + 1;
        self.events.push(Event { thread: self.thread, call, answer, from, to });
        self.tokens.extend(token);
        answer
    }

    fn id(&self) -> Id {
        usize::try_from(self.scene.ids.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    fn take(&mut self, n: i64) {
        let id = self.id();
        self.poll(Call::Poll(id, n), id, task(self.scene.bucket.take_many_owned(size(n))), false);
    }

    fn take_up_to(&mut self, n: i64) {
        let id = self.id();
        self.poll(Call::PollUpTo(id, n), id, task(self.scene.bucket.take_up_to_owned(size(n))), true);
    }

    /// Polls the future that has waited longest.
    fn poll_again(&mut self) {
        if let Some((id, take, up_to)) = self.futures.pop_front() {
            self.poll(Call::PollAgain(id), id, take, up_to);
        }
    }

    fn poll(&mut self, call: Call, id: Id, mut take: Task<TakeOwned>, up_to: bool) {
        let answer = self.record(call, |_| match take.poll() {
            Poll::Pending => (Answer::NotNow, None),
            Poll::Ready(Ok(token)) if up_to => (Answer::Count(i64::try_from(token.count()).unwrap()), Some(token)),
            Poll::Ready(Ok(token)) => (Answer::Done, Some(token)),
            Poll::Ready(Err(error)) => (take_error(&error), None),
        });
        if answer == Answer::NotNow {
            self.futures.push_back((id, take, up_to));
        }
    }

    fn cancel(&mut self) {
        if let Some((id, take, _)) = self.futures.pop_front() {
            self.record(Call::Cancel(id), |_| {
                drop(take);
                (Answer::Done, None)
            });
        }
    }

    fn give_back(&mut self) {
        if let Some(token) = self.tokens.pop() {
            self.record(Call::Return(i64::try_from(token.count()).unwrap()), |_| {
                drop(token);
                (Answer::Done, None)
            });
        }
    }

    fn give_back_with_result(&mut self) {
        if let Some(token) = self.tokens.pop() {
            self.record(Call::GiveBack(i64::try_from(token.count()).unwrap()), |_| {
                let returned = token.give_back();
                let int = |n| i64::try_from(n).unwrap();
                (Answer::Returned(int(returned.restored), int(returned.retired)), None)
            });
        }
    }

    fn retire(&mut self) {
        if let Some(token) = self.tokens.pop() {
            self.record(Call::Retire(i64::try_from(token.count()).unwrap()), |_| {
                token.retire();
                (Answer::Done, None)
            });
        }
    }

    fn grow_and_take(&mut self, n: i64) {
        self.record(Call::GrowAndTake(n), |bucket| match bucket.grow_and_take_owned(size(n)) {
            Ok(token) => (Answer::Done, Some(token)),
            Err(error) => (set_capacity_error(&error), None),
        });
    }

    fn try_take(&mut self, n: i64, up_to: bool) {
        self.record(if up_to { Call::TryTakeUpTo(n) } else { Call::TryTake(n) }, |bucket| {
            let taken = if up_to {
                bucket
                    .try_take_up_to_owned(size(n))
                    .map(|token| (Answer::Count(i64::try_from(token.count()).unwrap()), Some(token)))
            } else {
                bucket.try_take_many_owned(size(n)).map(|token| (Answer::Done, Some(token)))
            };
            taken.unwrap_or_else(|error| match error {
                TryTakeError::Empty => (Answer::NotNow, None),
                TryTakeError::Closed(_) => (Answer::Closed, None),
                error => panic!("{error}"),
            })
        });
    }

    fn wait(&mut self, n: i64, timeout: Duration) {
        let id = self.id();
        self.record(Call::Wait(id, n), |bucket| match bucket.take_many_owned(size(n)).wait_timeout(timeout) {
            Ok(token) => (Answer::Done, Some(token)),
            Err(WaitError::TimedOut) => (Answer::NotNow, None),
            Err(WaitError::Failed(error)) => (take_error(&error), None),
            Err(error) => panic!("{error}"),
        });
    }

    fn wait_for_room(&mut self, timeout: Duration) {
        self.record(Call::WaitForRoom, |bucket| {
            let answer = match bucket.release().wait_timeout(timeout) {
                Ok(()) => Answer::Done,
                Err(WaitError::TimedOut) => Answer::NotNow,
                Err(_) => Answer::Closed,
            };
            (answer, None)
        });
    }

    fn try_release(&mut self, n: i64) {
        self.record(Call::TryRelease(n), |bucket| {
            let answer = match bucket.try_release_many(size(n)) {
                Ok(()) => Answer::Done,
                Err(TryReleaseError::Full) => Answer::NotNow,
                Err(TryReleaseError::Closed(_)) => Answer::Closed,
                Err(error) => panic!("{error}"),
            };
            (answer, None)
        });
    }

    fn refill(&mut self, n: i64) {
        self.record(Call::Refill(n), |bucket| (Answer::Count(i64::try_from(bucket.refill(size(n))).unwrap()), None));
    }

    fn set_capacity(&mut self, capacity: i64) {
        self.record(Call::SetCapacity(capacity), |bucket| {
            let answer = bucket.set_capacity(size(capacity)).map_or(Answer::Closed, |now| Answer::Numbers(now.into()));
            (answer, None)
        });
    }

    fn change_capacity(&mut self, by: i64) {
        self.record(Call::ChangeCapacity(by), |bucket| {
            let answer = match bucket.update_capacity(|capacity| capacity.saturating_add_signed(isize::try_from(by).unwrap())) {
                Ok(now) => Answer::Numbers(now.into()),
                Err(error) => set_capacity_error(&error),
            };
            (answer, None)
        });
    }

    fn snapshot(&mut self) {
        self.record(Call::Snapshot, |bucket| (Answer::Numbers(bucket.snapshot().into()), None));
    }

    fn close(&mut self) {
        self.record(Call::Close, |bucket| (Answer::WasFirst(bucket.close()), None));
    }

    /// Makes one random call, or none if there is nothing to call it on.
    fn act(&mut self, random: &mut Random) {
        let timeout = Duration::from_micros(random.below(80));
        let n = 1 + random.count(2) + i64::from(random.below(8) == 0);
        match random.below(40) {
            0..=3 => self.try_take(n, false),
            4 => self.try_take(n, true),
            5..=9 => self.take(n),
            10..=13 => self.poll_again(),
            14..=16 => self.cancel(),
            17..=21 => self.give_back(),
            22..=23 => self.wait(n, timeout),
            24 => self.wait_for_room(timeout),
            25 => self.try_release(n),
            26 => self.refill(n),
            27..=28 => self.set_capacity(random.count(4)),
            29..=30 => self.change_capacity(random.count(5) - 2),
            31..=32 => self.grow_and_take(n),
            33 => self.retire(),
            34..=35 => self.give_back_with_result(),
            36..=38 => self.take_up_to(n),
            _ => self.snapshot(),
        }
    }

    /// At the end: every waiter learns what it was granted, and all tokens are returned.
    fn clear_up(&mut self) {
        self.snapshot();
        while !self.tokens.is_empty() || !self.futures.is_empty() {
            for _ in 0..self.futures.len() {
                self.poll_again();
            }
            if self.tokens.is_empty() {
                self.cancel();
            }
            self.give_back();
        }
        self.snapshot();
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
                    let scene = Option::clone(&scene.lock().unwrap()).expect("a scene is set");
                    let mut actor = Actor::new(&scene, thread);
                    barrier.wait();
                    for _ in 0..calls {
                        if may_close && random.below(12) == 0 {
                            actor.close();
                        } else {
                            actor.act(&mut random);
                        }
                    }
                    ended.lock().unwrap().push(actor);
                    barrier.wait();
                }
            });
        }
        for history in 0..HISTORIES {
            let capacity = i64::try_from(history % 4).unwrap();
            let bucket = Arc::new(TokenBucket::new(size(MAX), size(capacity)).unwrap().with_fairness(fairness));
            let now = Arc::new(Scene { bucket, clock: AtomicU64::new(0), ids: AtomicU64::new(0) });
            *scene.lock().unwrap() = Some(Arc::clone(&now));
            for _ in 0..3 {
                barrier.wait();
            }
            let mut all = Actor::new(&now, threads);
            for mut actor in ended.lock().unwrap().drain(..) {
                all.events.append(&mut actor.events);
                all.futures.append(&mut actor.futures);
                all.tokens.append(&mut actor.tokens);
            }
            all.clear_up();
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
