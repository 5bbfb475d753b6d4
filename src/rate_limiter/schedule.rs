//! [`Schedule`]: which waiter is granted its tokens, and when. Plain data that is passed the time; no clock, no lock, no user code.
//!
//! Everything a grant depends on (the refill, the tokens, the queue) changes together under one lock, after a tick. That is what
//! makes the limit exact: no token is credited late, and none is granted against a level that another thread has used up.
//!
//! Invariants:
//!
//! * **R1** `missing` tokens were granted and have not come back by time; `burst - missing` are available. A change of the burst
//!   leaves `missing` alone, so repeated changes net out.
//! * **R2** The queue is sorted by ticket, that is, in order of arrival. Its head is granted its tokens as soon as they are
//!   available.
//! * **R3** The head has been woken since it became the head, or has been polled as the head: so it sleeps until its tokens are
//!   due, or is about to. It is the *leader*. A new rate or burst, or a cancelled grant, changes when they are due, and wakes it.
//! * **R4** A waiter that is in neither map has been granted its tokens.
//! * **R5** A grant that is cancelled before its waiter knew of it goes back, but only if the bucket would not have been full
//!   meanwhile without it and the others of its kind. `undelivered` is the sum of these grants, and never more than `missing`.
//!
//! Why R5: a full bucket gains nothing. Suppose that 5 of 10 tokens are granted, 5 come back by time, and another caller takes 5.
//! If the first 5 were then put back, 15 tokens would have been available in the time in which 5 became due.

use alloc::collections::{BTreeMap, BTreeSet};
use core::mem;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::time::Instant;

use crate::waiter::WakeList;
use crate::{Closed, LimitError, NotYet, RateError, Refill};

pub(super) type Ticket = u64;

#[derive(Debug)]
pub(super) struct Schedule {
    refill: Refill,
    burst: usize,
    /// R1. May exceed the burst after that was lowered.
    missing: usize,
    /// Waiters in order of arrival.
    queue: BTreeMap<Ticket, Waiter>,
    /// Waiters that need more than the burst, until that grows.
    deferred: BTreeMap<Ticket, Waiter>,
    /// The sum of what the queued waiters need.
    queued: u128,
    next_ticket: Ticket,
    /// R3.
    leader: Option<Ticket>,
    /// R5: the waiters whose grants go back if cancelled, and the sum of these grants.
    cancellable: BTreeSet<Ticket>,
    undelivered: usize,
    closed: Option<Closed>,
    /// No token becomes due before this instant, see [`Schedule::next_due`]. `None` if it is unknown.
    pub(super) next_due: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    need: usize,
    waker: Option<Waker>,
}

pub(super) struct Request {
    pub(super) need: usize,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Not polled yet.
    New,
    Waiting(Ticket),
    Done,
}

/// The result of a poll.
pub(super) enum Turn {
    Done(Result<(), LimitError>),
    /// The request must be polled at this time. Without a time, it must be polled when it is woken: it is not the leader's, or its
    /// tokens never become due.
    Pending(Option<Duration>),
}

/// User code, which runs when this is dropped: without the lock.
pub(super) struct Outbox {
    wakes: WakeList,
    drops: Option<Waker>,
}

impl Schedule {
    pub(super) fn new(mut refill: Refill, burst: usize) -> Self {
        // Starts the clock.
        refill.collect(Duration::ZERO);
        Self {
            refill,
            burst,
            missing: 0,
            queue: BTreeMap::new(),
            deferred: BTreeMap::new(),
            queued: 0,
            next_ticket: 0,
            leader: None,
            cancellable: BTreeSet::new(),
            undelivered: 0,
            closed: None,
            next_due: None,
        }
    }

    pub(super) fn rate(&self) -> (usize, Duration) {
        self.refill.rate()
    }

    pub(super) const fn burst(&self) -> usize {
        self.burst
    }

    pub(super) const fn available(&self) -> usize {
        self.burst.saturating_sub(self.missing)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.deferred.len()
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Credits the time until `now`. [`settle`](Self::settle) must follow if the head may now fit.
    #[inline]
    pub(super) fn tick(&mut self, now: Duration) {
        let due = self.refill.collect(now);
        if self.undelivered > 0 && due > self.missing - self.undelivered {
            // Without the undelivered grants, the bucket would be full and would lose some of these (R5).
            self.undelivered = 0;
            self.cancellable.clear();
        }
        self.missing = self.missing.saturating_sub(due);
    }

    /// When the next token is due. `None` if never, or so soon that knowing it is not worth a division.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Duration> {
        if self.refill.is_slow() { self.refill.due_at(1) } else { None }
    }

    /// Takes `n` tokens for a caller if they are available and no waiter comes first.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> bool {
        let takes = n <= self.available() && self.queue.is_empty() && self.closed.is_none();
        if takes {
            self.missing += n;
        }
        takes
    }

    #[cold]
    pub(super) fn try_take(&mut self, n: usize) -> Result<(), NotYet> {
        self.check(n)?;
        if n == 0 || self.take(n) {
            return Ok(());
        }
        if self.burst == 0 || self.refill.rate().0 == 0 {
            return Err(NotYet::Paused);
        }
        // What the queued waiters need comes first.
        let count = (self.missing as u128 + self.queued + n as u128).saturating_sub(self.burst as u128);
        Err(NotYet::RetryAfter(self.refill.due_in(count).unwrap_or(Duration::MAX)))
    }

    /// Returns an error if a request for `n` tokens cannot succeed, however long it waits.
    fn check(&self, n: usize) -> Result<(), LimitError> {
        match &self.closed {
            Some(closed) => Err(closed.clone().into()),
            None if n > self.burst && self.burst > 0 => Err(LimitError::ExceedsBurst { requested: n, burst: self.burst }),
            None => Ok(()),
        }
    }

    /// Polls a request. While it is pending, `waker` is woken when the request must be polled again. A waker that is left in
    /// `waker` must be dropped without the lock.
    pub(super) fn poll(&mut self, request: &mut Request, waker: &mut Option<Waker>, outbox: &mut Outbox) -> Turn {
        let result = match request.stage {
            Stage::Waiting(ticket) => self.poll_again(ticket, request.need, waker, outbox),
            Stage::New | Stage::Done => {
                self.settle(outbox);
                self.enter(request, waker)
            }
        };
        match result {
            Poll::Pending => Turn::Pending(self.alarm(request)),
            Poll::Ready(result) => {
                request.stage = Stage::Done;
                Turn::Done(result)
            }
        }
    }

    fn enter(&mut self, request: &mut Request, waker: &mut Option<Waker>) -> Poll<Result<(), LimitError>> {
        let checked = self.check(request.need);
        if checked.is_err() || request.need == 0 || self.take(request.need) {
            return Poll::Ready(checked);
        }
        self.enqueue(request, waker);
        Poll::Pending
    }

    /// A request that is new and can wait takes its place in the queue, even if there are tokens: these are granted to it then.
    pub(super) fn join(&mut self, request: &mut Request, waker: &mut Option<Waker>) {
        if matches!(request.stage, Stage::New) && request.need > 0 && self.check(request.need).is_ok() {
            self.enqueue(request, waker);
        }
    }

    fn enqueue(&mut self, request: &mut Request, waker: &mut Option<Waker>) {
        let need = request.need;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        request.stage = Stage::Waiting(ticket);
        let waiter = Waiter { need, waker: waker.take() };
        if need > self.burst {
            self.deferred.insert(ticket, waiter);
        } else {
            self.queued += need as u128;
            self.queue.insert(ticket, waiter);
        }
    }

    fn poll_again(
        &mut self,
        ticket: Ticket,
        need: usize,
        waker: &mut Option<Waker>,
        outbox: &mut Outbox,
    ) -> Poll<Result<(), LimitError>> {
        // This waiter is being polled, so it need not be woken for a grant.
        outbox.drops = self.waiter(ticket).and_then(|waiter| waiter.waker.take());
        self.settle(outbox);
        let closed = self.closed.clone();
        let Some(waiter) = self.waiter(ticket) else {
            // R4. This poll delivers the grant.
            if self.cancellable.remove(&ticket) {
                self.undelivered -= need;
            }
            return Poll::Ready(Ok(()));
        };
        let Some(closed) = closed else {
            waiter.waker = waker.take();
            return Poll::Pending;
        };
        self.remove(ticket);
        Poll::Ready(Err(closed.into()))
    }

    fn waiter(&mut self, ticket: Ticket) -> Option<&mut Waiter> {
        self.queue.get_mut(&ticket).or_else(|| self.deferred.get_mut(&ticket))
    }

    /// Cancels a request at any stage.
    pub(super) fn cancel(&mut self, request: &mut Request, outbox: &mut Outbox) {
        let Stage::Waiting(ticket) = mem::replace(&mut request.stage, Stage::Done) else { return };
        if let Some(waiter) = self.remove(ticket) {
            outbox.drops = waiter.waker;
        } else if self.cancellable.remove(&ticket) {
            self.undelivered -= request.need;
            self.missing -= request.need;
            // R3: the tokens of the head are due sooner.
            self.leader = None;
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let queued = self.queue.remove(&ticket);
        if let Some(waiter) = &queued {
            self.queued -= waiter.need as u128;
        }
        queued.or_else(|| self.deferred.remove(&ticket))
    }

    /// Makes this request the leader if it is the head, and returns when its tokens are due.
    fn alarm(&mut self, request: &Request) -> Option<Duration> {
        let (&head, waiter) = self.queue.first_key_value()?;
        if !matches!(request.stage, Stage::Waiting(ticket) if ticket == head) {
            return None;
        }
        let missing = self.missing as u128 + waiter.need as u128 - self.burst as u128;
        self.leader = Some(head);
        self.refill.due_at(missing)
    }

    /// Grants what can be granted, in order (R2).
    pub(super) fn settle(&mut self, outbox: &mut Outbox) {
        if self.is_closed() {
            return;
        }
        while let Some(head) = self.queue.first_entry() {
            let need = head.get().need;
            // `self.available()`, without borrowing all of `self`.
            if need > self.burst.saturating_sub(self.missing) {
                break;
            }
            let (ticket, waiter) = head.remove_entry();
            outbox.wakes.push(waiter.waker);
            self.queued -= need as u128;
            self.missing += need;
            self.undelivered += need;
            self.cancellable.insert(ticket);
        }
    }

    /// Wakes the head if it is not the leader yet (R3).
    pub(super) fn wake_leader(&mut self, outbox: &mut Outbox) {
        let Some(mut head) = self.queue.first_entry() else { return };
        if self.leader.replace(*head.key()) != Some(*head.key()) {
            outbox.wakes.push(head.get_mut().waker.take());
        }
    }

    /// Changes the rate from the latest tick on.
    pub(super) fn set_rate(&mut self, now: Duration, tokens: usize, per: Duration) -> Result<(), RateError> {
        self.refill.set_rate(now, tokens, per)?;
        self.next_due = None;
        self.leader = None;
        Ok(())
    }

    pub(super) fn set_burst(&mut self, burst: usize) {
        self.burst = burst;
        let mut all = mem::take(&mut self.queue);
        all.append(&mut self.deferred);
        (self.queue, self.deferred) = all.into_iter().partition(|(_, waiter)| waiter.need <= burst);
        self.queued = self.queue.values().map(|waiter| waiter.need as u128).sum();
        self.leader = None;
    }

    /// Closes for good, and wakes all waiters. Returns the error if the limiter is closed already.
    pub(super) fn close(&mut self, closed: Closed, outbox: &mut Outbox) -> Result<(), Closed> {
        if self.is_closed() {
            return Err(closed);
        }
        self.closed = Some(closed);
        for waiter in self.queue.values_mut().chain(self.deferred.values_mut()) {
            outbox.wakes.push(waiter.waker.take());
        }
        Ok(())
    }
}

impl Request {
    pub(super) const fn new(need: usize) -> Self {
        Self { need, stage: Stage::New }
    }
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { wakes: WakeList::new(), drops: None }
    }
}

#[cfg(test)]
mod simulation;
