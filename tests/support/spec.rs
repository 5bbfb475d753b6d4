//! What a bucket may do when several threads call it: a sequential specification, and a search for an order of the calls that
//! agrees with the specification and with real time (linearizability, after Wing and Gong).
//!
//! A call takes effect at one instant between its begin and its end, with these exceptions, which the docs allow:
//!
//! * A thread that brings tokens serves the queue itself, or leaves that to the thread that owns the queue. So waiters are served
//!   in order, but at any time between two moments without a running call. At each such moment, all have been served.
//! * A waiter may be cancelled while it is being served. The owner of the queue then returns its tokens, perhaps after the cancel.
//! * While other threads serve waiters, `try_take` may be refused although enough tokens are available.
//! * A waiter that queues while the bucket is being closed may have been granted tokens, and then returns them.

#![allow(unreachable_pub, reason = "this is a module of a test")]

use std::collections::HashSet;
use std::fmt::Write as _;

use token_bucket::{Fairness, Snapshot};

/// Identifies a future.
pub type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    TryTake(i64),
    TryTakeUpTo(i64),
    /// The first poll of a future.
    Poll(Id, i64),
    /// The first poll of a future for up to that many tokens.
    PollUpTo(Id, i64),
    /// Any later poll.
    PollAgain(Id),
    /// A blocking take with a timeout.
    Wait(Id, i64),
    /// The drop of a pending future.
    Cancel(Id),
    /// The drop of a guard.
    Return(i64),
    /// A return that reports how many tokens were restored and retired.
    GiveBack(i64),
    Retire(i64),
    GrowAndTake(i64),
    TryRelease(i64),
    /// A blocking release of one token with a timeout.
    WaitForRoom,
    Refill(i64),
    SetCapacity(i64),
    /// `update_capacity` by that much.
    ChangeCapacity(i64),
    Snapshot,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// Empty, full, pending or timed out.
    NotNow,
    Closed,
    Count(i64),
    /// Restored and retired.
    Returned(i64, i64),
    Numbers(Numbers),
    WasFirst(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub capacity: i64,
    /// Negative if there is a deficit.
    pub available: i64,
    pub closed: bool,
}

impl From<Snapshot> for Numbers {
    fn from(now: Snapshot) -> Self {
        let int = |n: usize| i64::try_from(n).unwrap();
        assert_eq!(int(now.outstanding), (int(now.capacity) - int(now.available) + int(now.deficit)).max(0), "{now:?}");
        Self { capacity: int(now.capacity), available: int(now.available) - int(now.deficit), closed: now.closed }
    }
}

/// A call, and when it began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub thread: usize,
    pub call: Call,
    pub answer: Answer,
    pub from: u64,
    pub to: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiter {
    id: Id,
    min: i64,
    up_to: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Grant {
    id: Id,
    n: i64,
    /// Whether the waiter has been notified. If not, the owner of the queue is about to do so.
    notified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent facts")]
struct State {
    max: i64,
    capacity: i64,
    available: i64,
    fifo: bool,
    closed: bool,
    /// Closed, and every waiter has been notified.
    waiters_closed: bool,
    queue: Vec<Waiter>,
    granted: Vec<Grant>,
    /// Tokens granted to cancelled waiters; the owner of the queue returns them.
    orphaned: Vec<i64>,
    /// What waiters needed that were cancelled in the queue. An owner that has just seen one there may take its tokens, to return
    /// them.
    missed: Vec<i64>,
    /// Whether there ever was a waiter: then a thread may be serving.
    waited: bool,
}

impl State {
    fn first(&self) -> Option<usize> {
        self.queue.iter().position(|waiter| waiter.min <= self.capacity.max(self.available))
    }

    fn give(&mut self, n: i64) {
        self.available = (self.available + n).min(self.max);
    }

    fn knows(&self, id: Id) -> bool {
        self.queue.iter().any(|waiter| waiter.id == id) || self.granted.iter().any(|grant| grant.id == id)
    }

    fn enqueue(&self, id: Id, min: i64, up_to: i64) -> Option<Self> {
        if self.closed || self.knows(id) {
            return None;
        }
        let mut next = self.clone();
        next.waited = true;
        next.queue.push(Waiter { id, min, up_to });
        Some(next)
    }

    /// The owner grants the first satisfiable waiter its tokens.
    fn serve(&self) -> Option<Self> {
        let at = self.first()?;
        let min = self.queue[at].min;
        // In a Barging bucket, a waiter takes its tokens itself, unless its request is above the capacity.
        if self.closed || min > self.available || !(self.fifo || min > self.capacity) {
            return None;
        }
        let mut next = self.clone();
        let Waiter { id, up_to, .. } = next.queue.remove(at);
        let n = up_to.min(self.available);
        next.available -= n;
        next.granted.push(Grant { id, n, notified: false });
        Some(next)
    }

    /// No call is running, so everything that can be done has been done.
    fn settle(&mut self) {
        for n in std::mem::take(&mut self.orphaned) {
            self.give(n);
        }
        self.missed.clear();
        while let Some(next) = self.serve() {
            *self = next;
        }
        self.granted.iter_mut().for_each(|grant| grant.notified = true);
        self.waiters_closed = self.closed;
    }

    /// Whether a newcomer may take `n`.
    fn may_take(&self, n: i64) -> bool {
        !self.closed && self.available >= n && !(self.fifo && self.first().is_some())
    }

    fn may_refuse(&self, n: i64, meanwhile: bool) -> bool {
        let shut = (self.fifo && self.first().is_some()) || (self.waited && meanwhile);
        !self.closed && (self.available < n || shut)
    }

    /// Whether the capacity can grow by `n` tokens that are taken at once.
    fn fits(&self, n: i64) -> bool {
        self.capacity + n + (-self.available).max(0) <= self.max
    }

    fn numbers(&self) -> Numbers {
        Numbers { capacity: self.capacity, available: self.available, closed: self.closed }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Vec<Self> {
        let mut next = self.clone();
        change(&mut next);
        vec![next]
    }

    fn when(&self, may: bool, change: impl FnOnce(&mut Self)) -> Vec<Self> {
        if may { self.with(change) } else { Vec::new() }
    }

    /// A waiter is polled and gets this answer; `meanwhile`, other threads may be serving.
    fn poll(&self, id: Id, answer: Answer, meanwhile: bool) -> Vec<Self> {
        let waits = self.queue.iter().position(|waiter| waiter.id == id);
        let granted = self.granted.iter().position(|grant| grant.id == id);
        let count = if let Answer::Count(count) = answer { Some(count) } else { None };
        match (answer, waits, granted) {
            (Answer::Done | Answer::Count(_), _, Some(at)) => {
                self.when(count.is_none_or(|count| count == self.granted[at].n), |next| next.granted.retain(|grant| grant.id != id))
            }
            (Answer::Done | Answer::Count(_), Some(at), _) => {
                // In a Barging bucket, the waiter takes the tokens itself.
                let Waiter { min, up_to, .. } = self.queue[at];
                let n = up_to.min(self.available);
                let may = !self.fifo && !self.closed && self.available >= min && count.is_none_or(|count| count == n);
                self.when(may, |next| {
                    next.queue.remove(at);
                    next.available -= n;
                })
            }
            (Answer::NotNow, Some(at), _) => {
                // In a Barging bucket, the first waiter has been woken for the tokens that are there.
                let is_overlooked = !self.fifo && !meanwhile && self.first() == Some(at) && self.queue[at].min <= self.available;
                self.when(!self.waiters_closed && (self.closed || !is_overlooked), |_| {})
            }
            (Answer::NotNow, _, Some(at)) => self.when(!self.granted[at].notified, |_| {}),
            (Answer::Closed, Some(_), _) => self.when(self.closed, |next| next.queue.retain(|waiter| waiter.id != id)),
            _ => Vec::new(),
        }
    }

    fn cancel(&self, id: Id) -> Vec<Self> {
        if let Some(at) = self.queue.iter().position(|waiter| waiter.id == id) {
            return self.with(|next| {
                let Waiter { min, .. } = next.queue.remove(at);
                next.missed.push(min);
            });
        }
        let Some(at) = self.granted.iter().position(|grant| grant.id == id) else { return Vec::new() };
        let Grant { n, notified, .. } = self.granted[at];
        let mut next = self.with(|next| {
            next.granted.remove(at);
            next.give(n);
        });
        next.extend(self.when(!notified, |next| {
            next.granted.remove(at);
            next.orphaned.push(n);
        }));
        next
    }

    /// The states that a call with this answer can lead to.
    fn apply(&self, call: Call, answer: Answer, meanwhile: bool) -> Vec<Self> {
        let closed = self.when(self.closed, |_| {});
        match (call, answer) {
            (Call::Poll(id, n) | Call::Wait(id, n), Answer::Done) if !self.knows(id) => {
                self.when(self.may_take(n), |next| next.available -= n)
            }
            (Call::PollUpTo(id, n), Answer::Count(count)) if !self.knows(id) => {
                self.when(self.may_take(1) && count == n.min(self.available), |next| next.available -= count)
            }
            (Call::Poll(id, _) | Call::PollUpTo(id, _) | Call::Wait(id, _), Answer::Closed) if !self.knows(id) => closed,
            (Call::Wait(id, _), Answer::NotNow) | (Call::Cancel(id), Answer::Done) => self.cancel(id),
            (Call::Poll(id, _) | Call::PollUpTo(id, _) | Call::Wait(id, _), Answer::Closed) if self.closed => self.cancel(id),
            (Call::Poll(id, _) | Call::PollUpTo(id, _) | Call::Wait(id, _) | Call::PollAgain(id), answer) => {
                self.poll(id, answer, meanwhile)
            }
            (Call::TryTake(n), Answer::Done) => self.when(self.may_take(n), |next| next.available -= n),
            (Call::TryTake(n), Answer::NotNow) => self.when(self.may_refuse(n, meanwhile), |_| {}),
            (Call::TryTakeUpTo(n), Answer::Count(count)) => {
                let may = self.may_take(1) && count == n.min(self.available);
                self.when(may, |next| next.available -= count)
            }
            (Call::TryTakeUpTo(_), Answer::NotNow) => self.when(self.may_refuse(1, meanwhile), |_| {}),
            (Call::Return(n), Answer::Done) => self.with(|next| next.give(n)),
            (Call::GiveBack(n), Answer::Returned(restored, retired)) => {
                let fitted = n.min(self.max - self.available);
                let paid = fitted.min((-self.available).max(0));
                self.when((restored, retired) == (fitted - paid, paid), |next| next.give(n))
            }
            (Call::Retire(n), Answer::Done) => self.with(|next| {
                let paid = n.min((-next.available).max(0));
                next.available += paid;
                next.capacity = (next.capacity - (n - paid)).max(0);
            }),
            (Call::GrowAndTake(n), Answer::Done) => self.when(!self.closed && self.fits(n), |next| next.capacity += n),
            (Call::GrowAndTake(n), Answer::NotNow) => self.when(!self.closed && !self.fits(n), |_| {}),
            (Call::ChangeCapacity(by), Answer::Numbers(numbers)) if (self.capacity + by).max(0) <= self.max => {
                self.apply(Call::SetCapacity((self.capacity + by).max(0)), Answer::Numbers(numbers), meanwhile)
            }
            (Call::ChangeCapacity(by), Answer::NotNow) => self.when(!self.closed && self.capacity + by > self.max, |_| {}),
            (Call::TryRelease(n), Answer::Done) => {
                self.when(!self.closed && self.available + n <= self.max, |next| next.available += n)
            }
            (Call::TryRelease(n), Answer::NotNow) => self.when(!self.closed && self.available + n > self.max, |_| {}),
            (Call::WaitForRoom, Answer::Done) => self.when(!self.closed && self.available < self.max, |next| next.available += 1),
            (Call::WaitForRoom, Answer::NotNow) => self.with(|_| {}),
            (Call::Refill(n), Answer::Count(count)) => {
                self.when(count == n.min(self.max - self.available), |next| next.available += count)
            }
            (Call::SetCapacity(capacity), Answer::Numbers(numbers)) => {
                let mut next = self.with(|next| {
                    next.give(capacity - next.capacity);
                    next.capacity = capacity;
                });
                next.retain(|next| !self.closed && next.numbers() == numbers);
                next
            }
            (Call::Snapshot, Answer::Numbers(numbers)) => self.when(self.numbers() == numbers, |_| {}),
            (Call::Close, Answer::WasFirst(was_first)) => self.when(was_first != self.closed, |next| next.closed = true),
            (
                Call::TryTake(_)
                | Call::TryTakeUpTo(_)
                | Call::TryRelease(_)
                | Call::WaitForRoom
                | Call::GrowAndTake(_)
                | Call::SetCapacity(_)
                | Call::ChangeCapacity(_),
                Answer::Closed,
            ) => closed,
            _ => Vec::new(),
        }
    }
}

struct Search<'a> {
    events: &'a [Event],
    /// For each event: whether other threads may have been serving meanwhile.
    meanwhile: Vec<bool>,
    seen: HashSet<(u128, State)>,
}

impl Search<'_> {
    /// Whether the events not in `done` can follow in this state.
    fn search(&mut self, done: u128, mut state: State) -> bool {
        let is_done = |at: &usize| done >> at & 1 == 1;
        let (past, open): (Vec<_>, Vec<_>) = (0..self.events.len()).partition(is_done);
        if open.is_empty() {
            return true;
        }
        let last = past.iter().map(|&at| self.events[at].to).max().unwrap_or(0);
        let has_begun = |&at: &usize| match self.events[at] {
            Event { from, .. } if from < last => true,
            Event { call: Call::Poll(id, _) | Call::PollUpTo(id, _) | Call::Wait(id, _), .. } => state.knows(id),
            _ => false,
        };
        if !open.iter().any(has_begun) {
            state.settle();
        }
        if !self.seen.insert((done, state.clone())) {
            return false;
        }
        if state.serve().is_some_and(|next| self.search(done, next)) {
            return true;
        }
        for at in 0..state.orphaned.len() {
            let mut next = state.clone();
            let n = next.orphaned.remove(at);
            next.give(n);
            if self.search(done, next) {
                return true;
            }
        }
        for at in 0..state.missed.len() {
            let mut next = state.clone();
            let n = next.missed.remove(at);
            if !next.closed && n <= next.available {
                next.available -= n;
                next.orphaned.push(n);
                if self.search(done, next) {
                    return true;
                }
            }
        }
        let end = open.iter().map(|&at| self.events[at].to).min().unwrap();
        for at in open {
            let Event { call, answer, from, .. } = self.events[at];
            if from > end {
                continue;
            }
            if let Call::Poll(id, n) | Call::PollUpTo(id, n) | Call::Wait(id, n) = call {
                let min = if let Call::PollUpTo(..) = call { 1 } else { n };
                if state.enqueue(id, min, n).is_some_and(|next| self.search(done, next)) {
                    return true;
                }
            }
            for next in state.apply(call, answer, self.meanwhile[at]) {
                if self.search(done | 1 << at, next) {
                    return true;
                }
            }
        }
        false
    }
}

/// Looks for an order of the calls in which a new bucket could have given these answers.
pub fn check(fairness: Fairness, max: i64, capacity: i64, events: &[Event]) -> Result<(), String> {
    assert!(events.len() < 128, "the history is too long");
    let makes_room = events.iter().any(|event| event.call == Call::WaitForRoom);
    // A newcomer that takes surplus tokens from a Barging bucket may let a waiter proceed.
    let makes_surplus = |event: &Event| matches!(event.call, Call::TryRelease(_) | Call::Refill(_));
    let may_have_surplus = fairness == Fairness::Barging && events.iter().any(makes_surplus);
    let serves = |call| match call {
        Call::Snapshot => false,
        Call::TryTake(_) | Call::TryTakeUpTo(_) => makes_room || may_have_surplus,
        _ => true,
    };
    let meanwhile = events
        .iter()
        .enumerate()
        .map(|(at, event)| {
            let overlaps = |other: &Event| other.from < event.to && event.from < other.to && serves(other.call);
            events.iter().enumerate().any(|(i, other)| i != at && overlaps(other))
        })
        .collect();
    let state = State {
        max,
        capacity,
        available: capacity,
        fifo: fairness == Fairness::Fifo,
        closed: false,
        waiters_closed: false,
        queue: Vec::new(),
        granted: Vec::new(),
        orphaned: Vec::new(),
        missed: Vec::new(),
        waited: false,
    };
    if (Search { events, meanwhile, seen: HashSet::new() }).search(0, state) {
        return Ok(());
    }
    let mut notified =
        format!("no order of these calls explains the answers of a {fairness:?} bucket of {capacity}, at most {max}:");
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.from);
    for Event { thread, call, answer, from, to } in events {
        write!(notified, "\n  {from:>3} to {to:>3}, thread {thread}: {call:?} -> {answer:?}").unwrap();
    }
    Err(notified)
}
