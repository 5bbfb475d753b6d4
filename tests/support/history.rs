//! A thread that makes calls, and records its answers for `spec.rs`.

#![allow(unreachable_pub, reason = "this is a module of tests")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use token_bucket::{OwnedToken, SetCapacityError, TakeOwned, TokenBucket, TryReleaseError, TryTakeError};

use crate::spec::{Answer, Call, Event, Id};

#[derive(Clone, Copy, Debug)]
pub enum Step {
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

/// Ticks. What a call has done must be seen by those that begin after it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub fn size(n: i64) -> usize {
    usize::try_from(n).unwrap()
}

/// One thread: what it holds, and what it has called.
pub struct Actor {
    clock: Clock,
    thread: usize,
    ids: Id,
    pub events: Vec<Event>,
    pub takes: VecDeque<(Id, TakeOwned)>,
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
        match Pin::new(&mut take).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                self.takes.push_back((id, take));
                Answer::NotNow
            }
            Poll::Ready(Ok(token)) => self.keep(token),
            Poll::Ready(Err(_)) => Answer::Closed,
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
            (0..self.takes.len()).for_each(|_| self.step(bucket, PollAgain));
            if self.tokens.is_empty() {
                self.step(bucket, Cancel);
            }
            self.step(bucket, Return);
        }
    }
}
