//! Waiters in the order of their arrival.

use alloc::collections::VecDeque;
use core::ops::Range;

use super::{STARVING_AFTER, Standing, Waits, lives};

/// For how many entries there may be room without need.
pub(super) const SPARE: usize = 256;

/// Two scalars, which are moved in registers.
#[derive(Debug)]
pub(super) struct Entry<W> {
    pub(super) waiter: W,
    /// How often it has lost, and [`CLAIMS`].
    marks: u32,
}

/// What the waiter needs is part of what is claimed.
const CLAIMS: u32 = u32::MAX / 2 + 1;

/// Waiters in the order of their arrival; the first ones may have been woken.
#[derive(Debug)]
pub(super) struct Arrivals<W> {
    pub(super) entries: VecDeque<Entry<W>>,
    /// How many entries, from the front, have been looked at; those of them that still wait for an answer claim what they need, if
    /// that is satisfiable.
    pub(super) woken: usize,
    /// What the woken waiters claim.
    pub(super) claimed: i64,
    /// The claims are right as long as the largest satisfiable request is in this range.
    pub(super) claims_hold_for: Range<i64>,
}

/// Without claims, anything may be satisfiable.
const ANY: Range<i64> = 0..i64::MAX;

impl<W: Waits> Entry<W> {
    pub(super) const fn losses(&self) -> u32 {
        self.marks & !CLAIMS
    }

    /// More losses than are needed to be due are not counted.
    pub(super) fn count_loss(&mut self) {
        self.marks += u32::from(self.losses() < STARVING_AFTER);
    }

    pub(super) fn raise_losses_to(&mut self, losses: u32) {
        self.marks += losses.saturating_sub(self.losses());
    }

    pub(super) const fn claims(&self) -> bool {
        self.marks & CLAIMS != 0
    }

    pub(super) fn need(&self) -> i64 {
        i64::from(self.waiter.min())
    }

    /// From now on, it claims what it needs: how much more that is.
    #[inline]
    fn claim(&mut self) -> i64 {
        let more = if self.claims() { 0 } else { self.need() };
        self.marks |= CLAIMS;
        more
    }

    /// From now on, it claims nothing: how much less that is.
    #[inline]
    fn unclaim(&mut self) -> i64 {
        let less = if self.claims() { self.need() } else { 0 };
        self.marks &= !CLAIMS;
        less
    }
}

impl<W: Waits> Arrivals<W> {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), woken: 0, claimed: 0, claims_hold_for: ANY }
    }

    #[inline]
    pub(super) fn push(&mut self, waiter: W) {
        self.entries.push_back(Entry { waiter, marks: 0 });
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Entry<W>> {
        let mut entry = self.entries.pop_front()?;
        self.woken = self.woken.saturating_sub(1);
        self.claimed -= entry.unclaim();
        self.give_memory_back();
        Some(entry)
    }

    /// Keeps room for as many entries as there are, and for some more.
    #[inline]
    fn give_memory_back(&mut self) {
        if self.entries.capacity() > 4 * (SPARE + self.entries.len()) {
            self.entries.shrink_to(SPARE + 2 * self.entries.len());
        }
    }

    #[inline]
    pub(super) fn has_dead_head(&self) -> bool {
        self.entries.front().is_some_and(|entry| !lives(&entry.waiter))
    }

    /// Removes dead entries from the front, and returns how many there were.
    #[cold]
    pub(super) fn remove_dead(&mut self) -> usize {
        let mut dead = 0;
        while self.has_dead_head() {
            self.pop_front();
            dead += 1;
        }
        dead
    }

    /// The first waiter that still sleeps, and how many of `budget` are left for it by those woken before.
    pub(super) fn first_sleeper(&mut self, budget: i64, satisfiable: i64) -> Option<(&Entry<W>, i64)> {
        if !self.claims_hold_for.contains(&satisfiable) {
            self.rescan();
        }
        while let Some(entry) = self.entries.get(self.woken) {
            match entry.waiter.standing() {
                Standing::Waiting => break,
                Standing::Woken => self.claim_next(satisfiable),
                Standing::Gone => self.woken += 1,
            }
        }
        self.entries.get(self.woken).map(|entry| (entry, budget - self.claimed))
    }

    /// Takes the first sleeper out, and those right behind it, as long as they are such.
    pub(super) fn take_sleepers(&mut self, are_such: impl Fn(&Entry<W>) -> bool) -> impl Iterator<Item = Entry<W>> {
        // They were not looked at, so they claim nothing.
        let end = self.woken + self.entries.range(self.woken..).take_while(|entry| are_such(entry)).count();
        self.entries.drain(self.woken..end)
    }

    /// The first waiter that was not looked at was woken.
    #[inline]
    pub(super) fn claim_next(&mut self, satisfiable: i64) {
        if let Some(entry) = self.entries.get_mut(self.woken) {
            let Range { start, end } = &mut self.claims_hold_for;
            let need = entry.need();
            if need <= satisfiable {
                self.claimed += entry.claim();
                *start = need.max(*start);
            } else {
                *end = need.min(*end);
            }
            self.woken += 1;
        }
    }

    /// Has the waiters from this index on looked at again. Until then they claim nothing: a woken waiter holds up only those behind
    /// it.
    fn look_again_from(&mut self, index: usize) {
        let Self { entries, woken, claimed, .. } = self;
        for entry in entries.range_mut(index.min(*woken)..*woken) {
            *claimed -= entry.unclaim();
        }
        *woken = index.min(*woken);
    }

    pub(super) fn rescan(&mut self) {
        self.look_again_from(0);
        self.claims_hold_for = ANY;
    }

    /// The waiter with this ticket was woken, and has answered or left: it claims nothing any more. If it sleeps, it is looked at
    /// again.
    pub(super) fn unclaim(&mut self, ticket: u64) {
        let Some(at) = self.position(ticket) else { return };
        let entry = &mut self.entries[at];
        self.claimed -= entry.unclaim();
        if entry.waiter.standing() == Standing::Waiting {
            self.look_again_from(at);
        }
    }

    /// Where the entry with this ticket is: mostly in front.
    #[inline]
    fn position(&self, ticket: u64) -> Option<usize> {
        if self.entries.front()?.waiter.ticket() == ticket {
            return Some(0);
        }
        self.entries.binary_search_by_key(&ticket, |entry| entry.waiter.ticket()).ok()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&W) -> bool) {
        self.rescan();
        self.entries.retain(|entry| keep(&entry.waiter));
        self.give_memory_back();
    }
}
