//! The policy, in one thread: what happened is listed, and compared with a plain model at each step.

#![allow(clippy::many_single_char_names, reason = "waiters are called a, b, c in their order of arrival")]

extern crate std;

use std::cell::Cell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use self::model::{Model, Taker};
use super::arrivals::SPARE;
use super::*;

mod barging;
mod cost;
mod dead;
mod model;
mod order;
mod others;
mod random;

/// The largest capacity.
const MAX: u32 = 8;

/// A waiter of a known name: its number among all, by arrival.
#[derive(Debug)]
struct Waiter {
    id: usize,
    kind: Kind,
    min: u32,
    up_to: u32,
    standing: Cell<Standing>,
    ticket: Cell<u64>,
    /// How often the queue has looked at a waiter.
    looks: Rc<Cell<usize>>,
}

impl Waits for Rc<Waiter> {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn min(&self) -> u32 {
        self.min
    }

    fn up_to(&self) -> u32 {
        self.up_to
    }

    fn ticket(&self) -> u64 {
        self.ticket.get()
    }

    fn standing(&self) -> Standing {
        self.looks.set(self.looks.get() + 1);
        self.standing.get()
    }

    fn set_ticket(&self, ticket: u64) {
        self.ticket.set(ticket);
    }
}

impl Waiter {
    fn lives(&self) -> bool {
        self.standing.get() != Standing::Gone
    }
}

/// What an owner does for a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It has this many tokens; or none, and what else it waited for.
    Granted(usize, u32),
    Woken(usize),
}
use Event::{Granted, Woken};

/// A word and a queue, used as the combiner uses them. A model is compared with them at each step.
struct Bucket {
    state: State,
    queue: WaitQueue<Rc<Waiter>>,
    waiters: Vec<Rc<Waiter>>,
    model: Model,
    looks: Rc<Cell<usize>>,
    /// Entries of takers that were removed while they were alive, and those that were removed dead.
    served: usize,
    removed: usize,
}

fn state(available: i64, capacity: u32) -> State {
    let deficit = usize::try_from(-available).unwrap_or(0);
    let empty = State::new(0).grow_and_take(capacity as usize + deficit, MAX).expect("it fits");
    empty.set_capacity(capacity, MAX).expect("open").give(usize::try_from(available).unwrap_or(0), MAX).0
}

impl Bucket {
    fn new(fifo: bool, available: i64, capacity: u32) -> Self {
        Self {
            state: state(available, capacity),
            queue: WaitQueue::new(fifo),
            waiters: Vec::new(),
            model: Model { fifo, takers: Vec::new() },
            looks: Rc::default(),
            served: 0,
            removed: 0,
        }
    }

    fn fifo(available: i64, capacity: u32) -> Self {
        Self::new(true, available, capacity)
    }

    fn barging(available: i64, capacity: u32) -> Self {
        Self::new(false, available, capacity)
    }

    /// Adds a waiter, and does not look at the queue.
    fn push(&mut self, kind: Kind, min: u32, up_to: u32) -> usize {
        let id = self.waiters.len();
        let (standing, looks) = (Cell::new(Standing::Waiting), Rc::clone(&self.looks));
        let waiter = Rc::new(Waiter { id, kind, min, up_to, standing, ticket: Cell::new(0), looks });
        self.queue.push(Rc::clone(&waiter));
        self.waiters.push(waiter);
        if kind == Kind::Take {
            self.model.takers.push(Taker { id, min, up_to, losses: 0, woken: false, deferred: false });
        }
        id
    }

    fn queue(&mut self, kind: Kind, min: u32, up_to: u32) -> Vec<Event> {
        self.push(kind, min, up_to);
        if kind == Kind::Take && !self.state.allows_service() {
            self.settle();
            return Vec::new();
        }
        self.serve()
    }

    /// Queues requests of exactly so many tokens.
    fn queue_all<const N: usize>(&mut self, counts: [u32; N]) -> [usize; N] {
        counts.map(|n| {
            let events = self.queue(Kind::Take, n, n);
            assert_eq!(events, []);
            self.waiters.len() - 1
        })
    }

    fn give(&mut self, n: usize) -> Vec<Event> {
        let handed_off = self.state.allows_hand_off(n).then(|| self.hand_off(n)).flatten();
        handed_off.unwrap_or_else(|| self.change(self.state.give(n, MAX).0))
    }

    fn hand_off(&mut self, n: usize) -> Option<Vec<Event>> {
        while let Some((head, count)) = self.queue.pop_for_hand_off(n) {
            if head.lives() {
                // It does as a return and a grant would.
                let expected = self.model.serve(self.state.give(n, MAX).0);
                let event = self.grant(&head, count);
                assert_eq!(expected, [event]);
                self.settle();
                return Some(vec![event]);
            }
            self.queue.count_removed(Kind::Take);
        }
        None
    }

    fn grant(&mut self, waiter: &Rc<Waiter>, count: u32) -> Event {
        waiter.standing.set(Standing::Gone);
        self.served += usize::from(waiter.kind == Kind::Take);
        Granted(waiter.id, count)
    }

    /// A newcomer takes tokens, if it may.
    fn bypass(&mut self, n: u32) -> bool {
        let allowed = !self.model.is_shut() && i64::from(n) <= self.state.available();
        let taken = self.state.take(n, n);
        assert_eq!(taken.is_ok(), allowed, "{n} from {:?}", self.state);
        let Ok((next, _)) = taken else { return false };
        self.change(next);
        true
    }

    fn set_capacity(&mut self, capacity: u32) -> Vec<Event> {
        self.change(self.state.set_capacity(capacity, MAX).expect("open"))
    }

    fn change(&mut self, next: State) -> Vec<Event> {
        if !self.state.concerns_waiters(next, MAX) {
            self.state = next;
            return Vec::new();
        }
        let was_bypassed = self.state.is_bypassed();
        let losses_until_due = self.queue.losses_until_due();
        assert_eq!(losses_until_due, self.model.losses_until_due());
        self.state = self.state.owners_change(next, u32::from(was_bypassed) >= losses_until_due);
        if was_bypassed && !self.state.is_bypassed() {
            self.queue.count_loss();
            self.model.count_loss();
        }
        self.serve()
    }

    /// Serves all who can proceed, and compares that with the model.
    fn serve(&mut self) -> Vec<Event> {
        let expected = self.model.serve(self.state);
        let mut events = Vec::new();
        loop {
            match self.queue.next(self.state) {
                Next::Grant { heads, min, up_to, .. } => {
                    let (next, count) = self.state.grant(min, up_to).expect("they fit");
                    self.state = next;
                    for _ in 0..heads {
                        let head = self.queue.pop_head().expect("a head");
                        let count = count.min(head.up_to);
                        if head.lives() {
                            events.push(self.grant(&head, count));
                        } else {
                            self.removed += 1;
                            self.state = self.state.give(count as usize, MAX).0;
                        }
                    }
                }
                Next::Wake => {
                    events.push(wake(self.queue.next_to_wake().expect("a sleeping waiter")));
                    if self.queue.mark_woken(self.state.available()) {
                        // What the combiner relies on: there is nothing more to do.
                        assert_eq!(self.queue.next(self.state), Next::Wait);
                        break;
                    }
                }
                Next::Wait => break,
            }
        }
        assert_eq!(events, expected, "in {:?}", self.state);
        while let Some(releaser) = self.queue.next_releaser(self.state.room(MAX)) {
            events.push(wake(releaser));
        }
        for watcher in self.queue.take_watchers(self.state) {
            events.extend(watcher.lives().then(|| self.grant(&watcher, 0)));
        }
        self.settle();
        self.check_served();
        events
    }

    fn settle(&mut self) {
        self.state = self.state.settle(self.state, self.queue.summary()).expect("it is as it was seen");
        self.removed += self.queue.take_removed().map_or(0, |(takers, _)| takers);
        self.check();
    }

    /// A woken waiter tries for itself.
    fn poll(&mut self, id: usize) -> (bool, Vec<Event>) {
        let waiter = Rc::clone(&self.waiters[id]);
        assert_eq!(waiter.standing.get(), Standing::Woken);
        let tried = match waiter.kind {
            Kind::Take => self.state.retry(waiter.min, waiter.up_to).map(|(next, _)| next),
            _ => self.state.release(1, MAX),
        };
        if let Ok(next) = tried {
            self.state = next;
            waiter.standing.set(Standing::Gone);
            if waiter.kind == Kind::Take && self.queue.remove_head_if(|head| Rc::ptr_eq(head, &waiter)) {
                self.served += 1;
            } else {
                self.queue.note_answer(&waiter);
            }
            self.model.takers.retain(|taker| taker.id != id);
        } else {
            waiter.standing.set(Standing::Waiting);
            self.model.takers.iter_mut().filter(|taker| taker.id == id).for_each(|taker| taker.woken = false);
            self.queue.note_answer(&waiter);
        }
        (tried.is_ok(), self.serve())
    }

    /// A waiter leaves. Among the arrivals, its entry stays.
    fn leave(&mut self, id: usize) -> Vec<Event> {
        let was_woken = self.waiters[id].standing.replace(Standing::Gone) == Standing::Woken;
        self.model.takers.retain(|taker| taker.id != id);
        if !was_woken && self.waiters[id].kind == Kind::Take && !self.state.needs_service() {
            return Vec::new();
        }
        self.queue.note_answer(&self.waiters[id]);
        self.serve()
    }

    /// The names of takers that are queued and not deferred.
    fn order(&self) -> Vec<usize> {
        self.queue.takers.entries.iter().map(|entry| entry.waiter.id).collect()
    }

    /// The names of deferred requests, by what they need, then by arrival.
    fn deferred(&self) -> Vec<usize> {
        self.queue.deferred.values().map(|entry| entry.waiter.id).collect()
    }

    /// What holds at any time.
    fn check(&self) {
        let Arrivals { entries, woken, claimed, .. } = &self.queue.takers;
        assert!(entries.iter().is_sorted_by(|a, b| a.waiter.ticket() < b.waiter.ticket()), "arrival order: {:?}", self.order());
        assert!(entries.iter().is_sorted_by_key(|entry| entry.waiter.id), "arrival order: {:?}", self.order());
        let claims = entries.iter().filter(|entry| entry.claims());
        assert!(*woken <= entries.len());
        assert_eq!(*claimed, claims.map(Entry::need).sum::<i64>());
        assert!(entries.iter().skip(*woken).all(|entry| !entry.claims()), "none claims from those before it");
        assert!(self.queue.deferred.iter().all(|(key, entry)| *key == (entry.waiter.min, entry.waiter.ticket())));
        let pushed = self.waiters.iter().filter(|waiter| waiter.kind == Kind::Take).count();
        assert_eq!(self.queue.takers(), pushed - self.served - self.removed, "each entry is removed once");
    }

    /// What holds after the queue was served.
    fn check_served(&self) {
        let satisfiable = self.state.satisfiable();
        assert!(self.queue.deferred.values().all(|entry| entry.need() > satisfiable), "no request is deferred without need");
        let takers = &self.queue.takers;
        assert!(takers.entries.front().is_none_or(|head| head.waiter.lives()));
        // Without a token, none behind it could be served.
        let is_satisfiable = |head: &Entry<_>| head.need() <= satisfiable;
        assert!(self.state.available() <= 0 || takers.entries.front().is_none_or(is_satisfiable));
        // Only what has been looked at can claim, and none of these sleeps.
        assert!(takers.entries.iter().take(takers.woken).all(|entry| entry.waiter.standing.get() != Standing::Waiting));
        let claims = |entry: &Entry<Rc<Waiter>>| entry.waiter.lives() && entry.need() <= satisfiable;
        let mut woken = takers.entries.iter().take(takers.woken);
        assert!(!takers.claims_hold_for.contains(&satisfiable) || woken.all(|entry| entry.claims() == claims(entry)));
        // Work conservation: the first sleeping waiter that the capacity allows cannot have what the waiters before it leave over.
        let before = takers.entries.iter().take_while(|entry| entry.waiter.standing.get() != Standing::Waiting);
        let claimed: i64 = before.filter(|entry| claims(entry)).map(Entry::need).sum();
        let left = self.state.available() - claimed;
        let sleeper = takers.entries.iter().find(|entry| entry.waiter.standing.get() == Standing::Waiting);
        assert!(sleeper.is_none_or(|sleeper| sleeper.need() > left), "{:?} could proceed", sleeper.map(|entry| entry.waiter.id));
        let (dead, live) = (Summary::default(), self.queue.summary());
        assert!(live != dead || self.model.takers.is_empty());
    }
}

fn wake(waiter: &Rc<Waiter>) -> Event {
    assert_eq!(waiter.standing.replace(Standing::Woken), Standing::Waiting, "it is woken once");
    Woken(waiter.id)
}

/// The head of an empty bucket is bypassed, so many times: tokens for it come, it is woken if it sleeps, and a newcomer takes them.
fn lose(bucket: &mut Bucket, times: u32) {
    let head = bucket.model.head().expect("a head");
    let Taker { id, min, losses, .. } = bucket.model.takers[head];
    for loss in 1..=times {
        let woken = bucket.give(min as usize);
        // The first of these does not count: no newcomer came before.
        assert!(woken.is_empty() || woken == [Woken(id)], "{woken:?}");
        assert!(bucket.bypass(min));
        // What the next return would do.
        bucket.queue.count_loss();
        bucket.model.count_loss();
        bucket.state = bucket.state.clear_recheck();
        assert_eq!(bucket.model.takers[head].losses, losses + loss);
    }
    bucket.settle();
}
