//! Short programs of two threads. In every schedule, their answers must be such as one call after another could have had.

#[allow(dead_code, reason = "these programs do not make every call")]
#[path = "../../tests/support/spec.rs"]
mod spec;

use std::collections::VecDeque;
use std::task::Poll;

use loom_tests::atomic::{AtomicU64, Ordering};
use loom_tests::{Arc, TokenBucket, barging, check, fifo, poll, race};
use spec::{Answer, Call, Event, Id};
use token_bucket::{OwnedToken, SetCapacityError, TakeOwned, TryReleaseError, TryTakeError};

#[derive(Clone, Copy, Debug)]
enum Step {
    TryTake(i64),
    /// Polls a new future.
    Take(i64),
    /// Polls the future that has waited longest.
    PollAgain,
    /// Drops it.
    Cancel,
    Return,
    Retire,
    SetCapacity(i64),
    GrowAndTake(i64),
    Deposit(i64),
    Close,
}
use Step::{Cancel, Close, Deposit, GrowAndTake, PollAgain, Retire, Return, SetCapacity, Take, TryTake};

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

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap()
}

/// One thread: what it holds, and what it has called.
struct Actor {
    /// A read-modify-write for each tick: what a call has done before is seen by those that begin after it.
    clock: Arc<AtomicU64>,
    thread: usize,
    ids: Id,
    events: Vec<Event>,
    takes: VecDeque<(Id, TakeOwned)>,
    tokens: Vec<OwnedToken>,
}

impl Actor {
    fn new(clock: &Arc<AtomicU64>, thread: usize) -> Self {
        Self { clock: Arc::clone(clock), thread, ids: 100 * thread, events: Vec::new(), takes: VecDeque::new(), tokens: Vec::new() }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    /// Makes a call and records it, unless there is nothing to call it on.
    fn step(&mut self, bucket: &Arc<TokenBucket>, step: Step) {
        let from = self.tick();
        let Some((call, answer)) = self.call(bucket, step) else { return };
        let to = self.tick();
        self.events.push(Event { thread: self.thread, call, answer, from, to });
    }

    fn run(&mut self, bucket: &Arc<TokenBucket>, program: &[Step]) {
        for step in program {
            self.step(bucket, *step);
        }
    }

    fn call(&mut self, bucket: &Arc<TokenBucket>, step: Step) -> Option<(Call, Answer)> {
        Some(match step {
            TryTake(n) => {
                let answer = match bucket.try_take_many_owned(size(n)) {
                    Ok(token) => self.keep(token),
                    Err(TryTakeError::Closed(_)) => Answer::Closed,
                    Err(_) => Answer::NotNow,
                };
                (Call::TryTake(n), answer)
            }
            Take(n) => {
                self.ids += 1;
                (Call::Poll(self.ids, n), self.poll(self.ids, bucket.take_many_owned(size(n))))
            }
            PollAgain => {
                let (id, take) = self.takes.pop_front()?;
                (Call::PollAgain(id), self.poll(id, take))
            }
            Cancel => {
                let (id, take) = self.takes.pop_front()?;
                drop(take);
                (Call::Cancel(id), Answer::Done)
            }
            Return => {
                let token = self.tokens.pop()?;
                let call = Call::Return(i64::try_from(token.count()).unwrap());
                drop(token);
                (call, Answer::Done)
            }
            Retire => {
                let token = self.tokens.pop()?;
                let call = Call::Retire(i64::try_from(token.count()).unwrap());
                token.retire();
                (call, Answer::Done)
            }
            SetCapacity(capacity) => {
                let now = bucket.set_capacity(size(capacity));
                (Call::SetCapacity(capacity), now.map_or(Answer::Closed, |now| Answer::Numbers(now.into())))
            }
            GrowAndTake(n) => {
                let answer = match bucket.grow_and_take_owned(size(n)) {
                    Ok(token) => self.keep(token),
                    Err(SetCapacityError::Closed(_)) => Answer::Closed,
                    Err(_) => Answer::NotNow,
                };
                (Call::GrowAndTake(n), answer)
            }
            Deposit(n) => {
                let answer = match bucket.try_release_many(size(n)) {
                    Ok(()) => Answer::Done,
                    Err(TryReleaseError::Closed(_)) => Answer::Closed,
                    Err(_) => Answer::NotNow,
                };
                (Call::TryRelease(n), answer)
            }
            Close => (Call::Close, Answer::WasFirst(bucket.close())),
        })
    }

    fn keep(&mut self, token: OwnedToken) -> Answer {
        self.tokens.push(token);
        Answer::Done
    }

    fn poll(&mut self, id: Id, mut take: TakeOwned) -> Answer {
        match poll(&mut take) {
            Poll::Pending => {
                self.takes.push_back((id, take));
                Answer::NotNow
            }
            Poll::Ready(Ok(token)) => self.keep(token),
            Poll::Ready(Err(_)) => Answer::Closed,
        }
    }

    /// Every waiter learns what it was granted, and all tokens are returned.
    fn clear_up(&mut self, bucket: &Arc<TokenBucket>) {
        while !self.tokens.is_empty() || !self.takes.is_empty() {
            (0..self.takes.len()).for_each(|_| self.step(bucket, PollAgain));
            if self.tokens.is_empty() {
                self.step(bucket, Cancel);
            }
            self.step(bucket, Return);
        }
    }
}

type Make = fn(usize, usize) -> Arc<TokenBucket>;

/// A bucket of so many tokens, all taken, and a queue of requests. The first thread has the requests.
fn explore(make: Make, capacity: i64, queue: &'static [i64], change: &'static [Step], returns: &'static [Step]) {
    check(Some(2), move || {
        let bucket = make(size(MAX), size(capacity));
        let clock = Arc::new(AtomicU64::new(0));
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
                one.run(bucket, change);
                one
            },
            move |bucket| {
                two.run(bucket, returns);
                two
            },
        );
        for mut actor in [one, two] {
            all.events.append(&mut actor.events);
            all.takes.append(&mut actor.takes);
            all.tokens.append(&mut actor.tokens);
        }
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
