//! A thread that makes calls, and records its answers for `spec.rs`.

#![allow(unreachable_pub, reason = "this is a module of tests")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use token_bucket::{OwnedToken, SetCapacityError, TakeError, TakeOwned, TokenBucket, TryReleaseError, TryTakeError, WaitError};

use crate::spec::{Answer, Call, Event, Id};

#[derive(Clone, Copy, Debug)]
pub enum Step {
    TryTake(i64),
    TryTakeUpTo(i64),
    /// Polls a new future.
    Take(i64),
    TakeUpTo(i64),
    /// Polls the future that has waited longest.
    PollAgain,
    /// Drops it.
    Cancel,
    Wait(i64, Duration),
    WaitForRoom(Duration),
    Return,
    GiveBack,
    Retire,
    SetCapacity(i64),
    ChangeCapacity(i64),
    GrowAndTake(i64),
    Deposit(i64),
    Refill(i64),
    Snapshot,
    Close,
}

/// Ticks. What a call has done must be seen by those that begin after it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub fn size(n: i64) -> usize {
    usize::try_from(n).unwrap()
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

fn take_error(error: &TakeError) -> Answer {
    assert!(matches!(error, TakeError::Closed(_)), "{error}");
    Answer::Closed
}

fn try_take_error(error: &TryTakeError) -> Answer {
    match error {
        TryTakeError::Empty => Answer::NotNow,
        TryTakeError::Closed(_) => Answer::Closed,
        error => panic!("{error}"),
    }
}

fn set_capacity_error(error: &SetCapacityError) -> Answer {
    if let SetCapacityError::Closed(_) = error { Answer::Closed } else { Answer::NotNow }
}

/// Each future has a waker of its own.
struct Ignored;

impl Wake for Ignored {
    fn wake(self: Arc<Self>) {}
}

/// A pending future.
pub struct Waiting {
    id: Id,
    take: TakeOwned,
    waker: Waker,
    /// Whether it is for up to that many tokens.
    up_to: bool,
}

impl Waiting {
    fn new(id: Id, take: TakeOwned, up_to: bool) -> Self {
        Self { id, take, waker: Waker::from(Arc::new(Ignored)), up_to }
    }
}

/// One thread: what it holds, and what it has called.
pub struct Actor {
    clock: Clock,
    thread: usize,
    ids: Id,
    pub events: Vec<Event>,
    pub takes: VecDeque<Waiting>,
    pub tokens: Vec<OwnedToken>,
}

impl Actor {
    pub fn new(clock: &Clock, thread: usize) -> Self {
        Self { clock: Arc::clone(clock), thread, ids: 100 * thread, events: Vec::new(), takes: VecDeque::new(), tokens: Vec::new() }
    }

    /// Makes a call and records it, unless there is nothing to call it on.
    pub fn step(&mut self, bucket: &Arc<TokenBucket>, step: Step) {
        let from = (self.clock)();
        let Some((call, answer)) = self.call(bucket, step) else { return };
        let to = (self.clock)();
        self.events.push(Event { thread: self.thread, call, answer, from, to });
    }

    fn call(&mut self, bucket: &Arc<TokenBucket>, step: Step) -> Option<(Call, Answer)> {
        Some(match step {
            Step::TryTake(n) => {
                let taken = bucket.try_take_many_owned(size(n));
                (Call::TryTake(n), taken.map_or_else(|error| try_take_error(&error), |token| self.keep(token, false)))
            }
            Step::TryTakeUpTo(n) => {
                let taken = bucket.try_take_up_to_owned(size(n));
                (Call::TryTakeUpTo(n), taken.map_or_else(|error| try_take_error(&error), |token| self.keep(token, true)))
            }
            Step::Take(n) => {
                let id = self.id();
                (Call::Poll(id, n), self.poll(Waiting::new(id, bucket.take_many_owned(size(n)), false)))
            }
            Step::TakeUpTo(n) => {
                let id = self.id();
                (Call::PollUpTo(id, n), self.poll(Waiting::new(id, bucket.take_up_to_owned(size(n)), true)))
            }
            Step::PollAgain => {
                let waiting = self.takes.pop_front()?;
                (Call::PollAgain(waiting.id), self.poll(waiting))
            }
            Step::Cancel => {
                let Waiting { id, take, .. } = self.takes.pop_front()?;
                drop(take);
                (Call::Cancel(id), Answer::Done)
            }
            Step::Wait(n, timeout) => {
                let answer = match bucket.take_many_owned(size(n)).wait_timeout(timeout) {
                    Ok(token) => self.keep(token, false),
                    Err(WaitError::TimedOut) => Answer::NotNow,
                    Err(WaitError::Failed(error)) => take_error(&error),
                    Err(error) => panic!("{error}"),
                };
                (Call::Wait(self.id(), n), answer)
            }
            Step::WaitForRoom(timeout) => {
                let answer = match bucket.release().wait_timeout(timeout) {
                    Ok(()) => Answer::Done,
                    Err(WaitError::TimedOut) => Answer::NotNow,
                    Err(_) => Answer::Closed,
                };
                (Call::WaitForRoom, answer)
            }
            Step::Return => {
                let token = self.tokens.pop()?;
                let call = Call::Return(int(token.count()));
                drop(token);
                (call, Answer::Done)
            }
            Step::GiveBack => {
                let token = self.tokens.pop()?;
                let call = Call::GiveBack(int(token.count()));
                let returned = token.give_back();
                (call, Answer::Returned(int(returned.restored), int(returned.retired)))
            }
            Step::Retire => {
                let token = self.tokens.pop()?;
                let call = Call::Retire(int(token.count()));
                token.retire();
                (call, Answer::Done)
            }
            Step::SetCapacity(capacity) => {
                let now = bucket.set_capacity(size(capacity));
                (Call::SetCapacity(capacity), now.map_or(Answer::Closed, |now| Answer::Numbers(now.into())))
            }
            Step::ChangeCapacity(by) => {
                let add = |capacity: usize| capacity.saturating_add_signed(isize::try_from(by).unwrap());
                let now = bucket.update_capacity(add);
                (Call::ChangeCapacity(by), now.map_or_else(|error| set_capacity_error(&error), |now| Answer::Numbers(now.into())))
            }
            Step::GrowAndTake(n) => {
                let taken = bucket.grow_and_take_owned(size(n));
                (Call::GrowAndTake(n), taken.map_or_else(|error| set_capacity_error(&error), |token| self.keep(token, false)))
            }
            Step::Deposit(n) => {
                let answer = match bucket.try_release_many(size(n)) {
                    Ok(()) => Answer::Done,
                    Err(TryReleaseError::Full) => Answer::NotNow,
                    Err(TryReleaseError::Closed(_)) => Answer::Closed,
                    Err(error) => panic!("{error}"),
                };
                (Call::TryRelease(n), answer)
            }
            Step::Refill(n) => (Call::Refill(n), Answer::Count(int(bucket.refill(size(n))))),
            Step::Snapshot => (Call::Snapshot, Answer::Numbers(bucket.snapshot().into())),
            Step::Close => (Call::Close, Answer::WasFirst(bucket.close())),
        })
    }

    fn id(&mut self) -> Id {
        self.ids += 1;
        self.ids
    }

    fn keep(&mut self, token: OwnedToken, up_to: bool) -> Answer {
        let answer = if up_to { Answer::Count(int(token.count())) } else { Answer::Done };
        self.tokens.push(token);
        answer
    }

    fn poll(&mut self, mut waiting: Waiting) -> Answer {
        match Pin::new(&mut waiting.take).poll(&mut Context::from_waker(&waiting.waker)) {
            Poll::Pending => {
                self.takes.push_back(waiting);
                Answer::NotNow
            }
            Poll::Ready(Ok(token)) => self.keep(token, waiting.up_to),
            Poll::Ready(Err(error)) => take_error(&error),
        }
    }

    /// Takes over what another thread has recorded and holds.
    pub fn absorb(&mut self, mut other: Self) {
        self.events.append(&mut other.events);
        self.takes.append(&mut other.takes);
        self.tokens.append(&mut other.tokens);
    }

    /// Every waiter learns what it was granted, and all tokens are returned.
    pub fn clear_up(&mut self, bucket: &Arc<TokenBucket>) {
        while !self.tokens.is_empty() || !self.takes.is_empty() {
            (0..self.takes.len()).for_each(|_| self.step(bucket, Step::PollAgain));
            if self.tokens.is_empty() {
                self.step(bucket, Step::Cancel);
            }
            self.step(bucket, Step::Return);
        }
    }
}
