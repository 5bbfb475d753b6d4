//! The wait queue: who is next. Plain data, which belongs to one thread at a time; nothing here knows of threads.
//!
//! One rule covers both kinds of fairness: *the head is due at once (Fifo) or after [`STARVING_AFTER`] losses (Barging). While the
//! head is due, tokens are granted to it and newcomers are shut out. Until then, it is woken to try for itself.*
//!
//! The queue never takes an entry out of order, with one exception: a request that the capacity does not allow is *deferred*. It
//! regains its place when it becomes satisfiable.
//!
//! A waiter that leaves sets its phase. Its entry stays as a *dead* one until the queue comes across it, or is
//! [compacted](WaitQueue::compact). While no other thread owns the queue, these are removed at once: a head that has got its tokens
//! by itself, a deferred request, and a watcher.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use self::arrivals::{Arrivals, Entry};
use crate::state::{Kind, State, Summary};
use crate::sync::loom_or;

mod arrivals;

/// After how many losses the head of the queue of a Barging bucket is due.
pub(crate) const STARVING_AFTER: u32 = loom_or(2, 16);

/// To how many waiters tokens are granted in one step.
const BATCH: usize = 32;

/// If there are no more deferred requests and watchers than this, all are looked at when any may have left.
const FEW: usize = 32;

/// How the queue sees a waiter.
pub(crate) trait Waits {
    fn kind(&self) -> Kind;
    /// The fewest tokens that will do.
    fn min(&self) -> u32;
    /// The most tokens that it takes.
    fn up_to(&self) -> u32;
    fn standing(&self) -> Standing;
    /// Its place in the order of arrival, by which it may tell the queue that it has answered.
    fn ticket(&self) -> u64;
    fn set_ticket(&self, ticket: u64);
}

fn by_need<W: Waits>(entry: Entry<W>) -> ((u32, u64), Entry<W>) {
    ((entry.waiter.min(), entry.waiter.ticket()), entry)
}

fn lives<W: Waits>(waiter: &W) -> bool {
    waiter.standing() != Standing::Gone
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It sleeps.
    Waiting,
    /// It was woken to try for itself, and has not answered.
    Woken,
    /// It needs its entry no more.
    Gone,
}

/// What the owner must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take this many tokens from the bucket for that many heads, and [remove](WaitQueue::pop_head) each. If the head is not due,
    /// only as long as its request is above the capacity. If there are several heads, all are due, and each wants exactly its
    /// `up_to`.
    Grant { heads: usize, min: u32, up_to: u32, is_due: bool },
    /// Wake the waiter [that is next](WaitQueue::next_to_wake).
    Wake,
    /// No waiter can proceed.
    Wait,
}

#[derive(Debug)]
pub(crate) struct WaitQueue<W> {
    fifo: bool,
    takers: Arrivals<W>,
    /// Requests that the capacity does not allow, by what they need, then by arrival.
    deferred: BTreeMap<(u32, u64), Entry<W>>,
    releasers: Arrivals<W>,
    /// Watchers by their arrival.
    idle: BTreeMap<u64, W>,
    settled: BTreeMap<u64, W>,
    tickets: u64,
    /// Dead entries that were removed since [`take_removed`](Self::take_removed), takers and others.
    removed: (usize, usize),
}

impl<W: Waits> WaitQueue<W> {
    pub(crate) const fn new(fifo: bool) -> Self {
        Self {
            fifo,
            takers: Arrivals::new(),
            deferred: BTreeMap::new(),
            releasers: Arrivals::new(),
            idle: BTreeMap::new(),
            settled: BTreeMap::new(),
            tickets: 0,
            removed: (0, 0),
        }
    }

    /// Adds a waiter at the end.
    #[inline]
    pub(crate) fn push(&mut self, waiter: W) {
        let ticket = self.tickets;
        self.tickets += 1;
        waiter.set_ticket(ticket);
        match waiter.kind() {
            Kind::Take => self.takers.push(waiter),
            Kind::Release => self.releasers.push(waiter),
            Kind::Idle => drop(self.idle.insert(ticket, waiter)),
            Kind::Settled => drop(self.settled.insert(ticket, waiter)),
        }
    }

    // Who is next.

    /// What to do for the takers of a bucket in this state.
    #[inline]
    pub(crate) fn next(&mut self, state: State) -> Next {
        if self.deferred.is_empty() && self.takers.claimed >= state.available() && self.is_head_trying(state) {
            Next::Wait
        } else {
            self.find_next(state)
        }
    }

    /// While there are tokens:
    ///
    /// | the head's request              | the head is not due                            | the head is due       |
    /// |---------------------------------|------------------------------------------------|-----------------------|
    /// | fits, and is above the capacity | grant                                          | grant                 |
    /// | fits                            | wake the first sleeper, if unclaimed tokens do | grant                 |
    /// | is satisfiable, but too large   | wake the first sleeper, if unclaimed tokens do | wait                  |
    /// | is not satisfiable              | defer, and look again                          | defer, and look again |
    fn find_next(&mut self, state: State) -> Next {
        let (available, satisfiable) = (state.available(), state.satisfiable());
        if self.has_restorable(satisfiable) {
            self.restore_deferred(satisfiable);
        }
        loop {
            self.remove_dead();
            if available <= 0 {
                // Nor is a request deferred then, for none behind it could be served.
                return Next::Wait;
            }
            let Some(head) = self.takers.entries.front() else { return Next::Wait };
            let (fits, is_due, min) = (head.need() <= available, self.is_due(head), head.waiter.min());
            // A newcomer could make a request above the capacity unsatisfiable again, before a woken waiter tries.
            if fits && (is_due || min > state.capacity()) {
                return self.grant_to(&head.waiter, is_due, available);
            }
            if i64::from(min) > satisfiable {
                self.defer_head();
            } else if is_due {
                return Next::Wait;
            } else {
                let Some((entry, left)) = self.takers.first_sleeper(available, satisfiable) else { return Next::Wait };
                if entry.need() <= left {
                    return Next::Wake;
                }
                // No token is left unclaimed, or those behind this sleeper have to wait for it.
                if left <= 0 || entry.need() <= satisfiable {
                    return Next::Wait;
                }
                self.defer_sleepers(satisfiable);
            }
        }
    }

    /// Grants tokens to the head, and in the same step to those behind it which are due as well and for which they suffice.
    fn grant_to(&self, head: &W, is_due: bool, available: i64) -> Next {
        let (mut heads, mut min, mut up_to) = (1, head.min(), head.up_to());
        if self.fifo && min == up_to {
            for Entry { waiter, .. } in self.takers.entries.range(1..).take(BATCH - 1) {
                let sum = min + waiter.min();
                let is_exact = waiter.min() == waiter.up_to();
                if !is_exact || i64::from(sum) > available || !lives(waiter) {
                    break;
                }
                (heads, min, up_to) = (heads + 1, sum, sum);
            }
        }
        Next::Grant { heads, min, up_to, is_due }
    }

    /// Whether the head was woken to take its tokens for itself, and has not answered, and all claims are right.
    #[inline]
    fn is_head_trying(&self, state: State) -> bool {
        self.takers.claims_hold_for.contains(&state.satisfiable())
            && self
                .takers
                .entries
                .front()
                .is_some_and(|head| head.claims() && head.waiter.min() <= state.capacity() && !self.is_due(head))
    }

    /// The waiter that [`Next::Wake`] means.
    pub(crate) fn next_to_wake(&self) -> Option<&W> {
        self.takers.entries.get(self.takers.woken).map(|entry| &entry.waiter)
    }

    /// The waiter that [`Next::Wake`] means has been woken (its request is satisfiable). True if none can be woken after it.
    #[inline]
    pub(crate) fn mark_woken(&mut self, available: i64) -> bool {
        self.takers.claim_next(i64::MAX);
        self.takers.claimed >= available || self.takers.woken == self.takers.entries.len()
    }

    /// The waiter that [`Next::Grant`] means; it is no longer queued.
    pub(crate) fn pop_head(&mut self) -> Option<W> {
        self.takers.pop_front().map(|entry| entry.waiter)
    }

    /// The head, if it is due and `n` tokens are what it needs. It may be dead.
    #[inline]
    pub(crate) fn pop_for_hand_off(&mut self, n: usize) -> Option<(W, u32)> {
        let head = self.takers.entries.front()?;
        let n = u32::try_from(n).ok().filter(|n| self.is_due(head) && (head.waiter.min()..=head.waiter.up_to()).contains(n))?;
        self.pop_head().map(|head| (head, n))
    }

    /// Removes the entry of a woken waiter that has got its tokens, if it is the head.
    pub(crate) fn remove_head_if(&mut self, is_it: impl FnOnce(&W) -> bool) -> bool {
        let is_head = self.takers.entries.front().is_some_and(|head| is_it(&head.waiter));
        if is_head {
            self.takers.pop_front();
        }
        is_head
    }

    /// Removes what is dead in front of the head.
    #[inline]
    fn remove_dead(&mut self) {
        if self.takers.has_dead_head() {
            self.removed.0 += self.takers.remove_dead();
        }
    }

    /// A newcomer took tokens ahead of the head.
    pub(crate) fn count_loss(&mut self) {
        self.remove_dead();
        if let Some(head) = self.takers.entries.front_mut() {
            head.count_loss();
        }
    }

    /// After how many more losses the head will be due.
    #[inline]
    pub(crate) fn losses_until_due(&mut self) -> u32 {
        self.remove_dead();
        self.takers.entries.front().map_or(u32::MAX, |head| STARVING_AFTER - head.losses())
    }

    const fn is_due(&self, head: &Entry<W>) -> bool {
        self.fifo || head.losses() >= STARVING_AFTER
    }

    // Deferred requests.

    /// Defers the head, as the capacity does not allow its request.
    fn defer_head(&mut self) {
        self.deferred.extend(self.takers.pop_front().map(by_need));
    }

    /// Defers the first sleeper, and those right behind it: all whose requests the capacity does not allow.
    fn defer_sleepers(&mut self, satisfiable: i64) {
        self.deferred.extend(self.takers.take_sleepers(|entry| entry.need() > satisfiable && lives(&entry.waiter)).map(by_need));
    }

    /// Gives satisfiable requests their places back.
    #[cold]
    fn restore_deferred(&mut self, satisfiable: i64) {
        self.remove_dead();
        let (head, losses) = self.takers.entries.front().map_or((0, 0), |head| (head.waiter.ticket(), head.losses()));
        let mut restored = Vec::new();
        while self.has_restorable(satisfiable) {
            restored.extend(self.deferred.pop_first().map(|(_, entry)| entry));
        }
        // Newcomers must not gain by this: those in front of the old head have lost as often.
        restored.iter_mut().filter(|entry| entry.waiter.ticket() < head).for_each(|entry| entry.raise_losses_to(losses));
        // Those in front are looked at first.
        self.takers.rescan();
        restored.sort_unstable_by_key(|entry| entry.waiter.ticket());
        let youngest = restored.last().map_or(0, |entry| entry.waiter.ticket());
        let has_older = self.takers.entries.front().is_some_and(|head| head.waiter.ticket() < youngest);
        for entry in restored.into_iter().rev() {
            self.takers.entries.push_front(entry);
        }
        if has_older {
            // Two sorted runs: linear.
            self.takers.entries.make_contiguous().sort_by_key(|entry| entry.waiter.ticket());
        }
    }

    /// Whether a deferred request would regain its place.
    #[inline]
    pub(crate) fn has_restorable(&self, satisfiable: i64) -> bool {
        self.deferred.first_key_value().is_some_and(|((min, _), _)| i64::from(*min) <= satisfiable)
    }

    // Releasers and watchers.

    /// The next releaser to wake, if there is room that no woken releaser claims.
    pub(crate) fn next_releaser(&mut self, room: u64) -> Option<&W> {
        self.removed.1 += self.releasers.remove_dead();
        let (entry, left) = self.releasers.first_sleeper(i64::try_from(room).unwrap_or(i64::MAX), 1)?;
        (left > 0).then_some(&entry.waiter)
    }

    /// All that wait for the state that a bucket has reached.
    pub(crate) fn take_watchers(&mut self, state: State) -> impl Iterator<Item = W> + use<W> {
        let idle = if state.is_idle() { mem::take(&mut self.idle) } else { BTreeMap::new() };
        let settled = if state.is_settled() { mem::take(&mut self.settled) } else { BTreeMap::new() };
        idle.into_values().chain(settled.into_values())
    }

    // Entries that leave.

    /// Removes all takers and releasers, deferred requests first.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = W> + use<W> {
        let takers = mem::replace(&mut self.takers, Arrivals::new()).entries;
        let releasers = mem::replace(&mut self.releasers, Arrivals::new()).entries;
        let deferred = mem::take(&mut self.deferred).into_values();
        deferred.chain(takers).chain(releasers).map(|entry| entry.waiter)
    }

    /// The taker with this ticket was woken, and has answered.
    pub(crate) fn unclaim(&mut self, ticket: u64) {
        self.takers.unclaim(ticket);
    }

    /// This waiter was woken and has answered, or has left. If it has left, and is in one of the maps, its entry is removed.
    pub(crate) fn note_answer(&mut self, waiter: &W) {
        let (kind, ticket) = (waiter.kind(), waiter.ticket());
        let is_removed = !lives(waiter)
            && match kind {
                Kind::Take => self.deferred.remove(&(waiter.min(), ticket)).is_some(),
                Kind::Release => false,
                Kind::Idle => self.idle.remove(&ticket).is_some(),
                Kind::Settled => self.settled.remove(&ticket).is_some(),
            };
        match kind {
            _ if is_removed => self.count_removed(kind),
            Kind::Take => self.takers.unclaim(ticket),
            Kind::Release => self.releasers.unclaim(ticket),
            Kind::Idle | Kind::Settled => {}
        }
    }

    /// Any waiters that had been woken may have answered, and any may have left.
    pub(crate) fn rescan(&mut self) {
        self.takers.rescan();
        self.releasers.rescan();
    }

    /// Removes the dead entries of deferred requests and watchers, unless there are too many to look at.
    pub(crate) fn compact_few(&mut self) {
        if self.in_maps() <= FEW {
            self.count_removed_by(Self::compact_maps);
        }
    }

    /// Removes all dead entries.
    pub(crate) fn compact(&mut self) {
        self.count_removed_by(|queue| {
            queue.takers.retain(lives);
            queue.releasers.retain(lives);
            queue.compact_maps();
        });
    }

    /// Removes the dead entries of deferred requests and watchers.
    fn compact_maps(&mut self) {
        self.deferred.retain(|_, entry| lives(&entry.waiter));
        self.idle.retain(|_, waiter| lives(waiter));
        self.settled.retain(|_, waiter| lives(waiter));
    }

    /// Counts the entries that this removes.
    fn count_removed_by(&mut self, remove: impl FnOnce(&mut Self)) {
        let before = (self.takers(), self.others());
        remove(self);
        self.removed.0 += before.0 - self.takers();
        self.removed.1 += before.1 - self.others();
    }

    /// A waiter that was removed turned out to be dead.
    pub(crate) fn count_removed(&mut self, kind: Kind) {
        match kind {
            Kind::Take => self.removed.0 += 1,
            Kind::Release | Kind::Idle | Kind::Settled => self.removed.1 += 1,
        }
    }

    /// How many dead entries of takers and of others were removed since the last call, if any.
    #[inline]
    pub(crate) fn take_removed(&mut self) -> Option<(usize, usize)> {
        if self.removed == (0, 0) { None } else { Some(mem::take(&mut self.removed)) }
    }

    // Counts and flags.

    /// Entries of takers, dead ones included.
    #[inline]
    pub(crate) fn takers(&self) -> usize {
        self.takers.entries.len() + self.deferred.len()
    }

    /// Entries of others than takers, dead ones included.
    #[inline]
    pub(crate) fn others(&self) -> usize {
        self.releasers.entries.len() + self.idle.len() + self.settled.len()
    }

    /// Deferred requests and watchers, dead ones included.
    #[inline]
    pub(crate) fn in_maps(&self) -> usize {
        self.deferred.len() + self.idle.len() + self.settled.len()
    }

    #[inline]
    pub(crate) fn summary(&self) -> Summary {
        let head = self.takers.entries.front();
        Summary::default()
            .with(Summary::HAS_WAITERS, head.is_some())
            .with(Summary::NO_BARGING, head.is_some_and(|head| self.is_due(head)))
            .with(Summary::HAS_RELEASERS, !self.releasers.entries.is_empty())
            .with(Summary::HAS_DEFERRED, self.in_maps() > 0)
    }
}

#[cfg(test)]
mod tests;
