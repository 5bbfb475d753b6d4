//! The policy, in one thread: what happened is listed, and random operations are compared with a plain model.

#![allow(clippy::many_single_char_names, reason = "waiters are called a, b, c in their order of arrival")]

extern crate std;

use std::cell::Cell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::line::SPARE;
use super::*;

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
    buried: usize,
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
            buried: 0,
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
            self.queue.count_buried(Kind::Take);
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
                            self.buried += 1;
                            self.state = self.state.give(count as usize, MAX).0;
                        }
                    }
                }
                Next::Wake => {
                    events.push(wake(self.queue.next_to_wake().expect("a sleeping waiter")));
                    if self.queue.claim(self.state.available()) {
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
        self.buried += self.queue.take_buried().map_or(0, |(takers, _)| takers);
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

    /// A waiter leaves. In a line, its entry stays.
    fn leave(&mut self, id: usize) -> Vec<Event> {
        let was_woken = self.waiters[id].standing.replace(Standing::Gone) == Standing::Woken;
        self.model.takers.retain(|taker| taker.id != id);
        if !was_woken && self.waiters[id].kind == Kind::Take && !self.state.needs_service(MAX) {
            return Vec::new();
        }
        self.queue.note_answer(&self.waiters[id]);
        self.serve()
    }

    /// The names of takers that are queued and not deferred.
    fn line(&self) -> Vec<usize> {
        self.queue.takers.entries.iter().map(|entry| entry.waiter.id).collect()
    }

    /// The names of deferred requests, by what they need, then by arrival.
    fn deferred(&self) -> Vec<usize> {
        self.queue.deferred.values().map(|entry| entry.waiter.id).collect()
    }

    /// What holds at any time.
    fn check(&self) {
        let Line { entries, woken, claimed, .. } = &self.queue.takers;
        assert!(entries.iter().is_sorted_by(|a, b| a.waiter.ticket() < b.waiter.ticket()), "arrival order: {:?}", self.line());
        assert!(entries.iter().is_sorted_by_key(|entry| entry.waiter.id), "arrival order: {:?}", self.line());
        let claims = entries.iter().filter(|entry| entry.claims());
        assert!(*woken <= entries.len());
        assert_eq!(*claimed, claims.map(Entry::need).sum::<i64>());
        assert!(entries.iter().skip(*woken).all(|entry| !entry.claims()), "none claims from those before it");
        assert!(self.queue.deferred.iter().all(|(key, entry)| *key == (entry.waiter.min, entry.waiter.ticket())));
        let pushed = self.waiters.iter().filter(|waiter| waiter.kind == Kind::Take).count();
        assert_eq!(self.queue.takers(), pushed - self.served - self.buried, "each entry is removed once");
    }

    /// What holds after the queue was served.
    fn check_served(&self) {
        let satisfiable = self.state.satisfiable();
        assert!(self.queue.deferred.values().all(|entry| entry.need() > satisfiable), "no request is deferred without need");
        let line = &self.queue.takers;
        assert!(line.entries.front().is_none_or(|head| head.waiter.lives()));
        // Without a token, none behind it could be served.
        let is_satisfiable = |head: &Entry<_>| head.need() <= satisfiable;
        assert!(self.state.available() <= 0 || line.entries.front().is_none_or(is_satisfiable));
        // Only what has been looked at can claim, and none of these sleeps.
        assert!(line.entries.iter().take(line.woken).all(|entry| entry.waiter.standing.get() != Standing::Waiting));
        let claims = |entry: &Entry<Rc<Waiter>>| entry.waiter.lives() && entry.need() <= satisfiable;
        let mut woken = line.entries.iter().take(line.woken);
        assert!(!line.claims_hold_for.contains(&satisfiable) || woken.all(|entry| entry.claims() == claims(entry)));
        // Work conservation: the first sleeping waiter that the capacity allows cannot have what the waiters before it leave over.
        let before = line.entries.iter().take_while(|entry| entry.waiter.standing.get() != Standing::Waiting);
        let claimed: i64 = before.filter(|entry| claims(entry)).map(Entry::need).sum();
        let left = self.state.available() - claimed;
        let sleeper = line.entries.iter().find(|entry| entry.waiter.standing.get() == Standing::Waiting);
        assert!(sleeper.is_none_or(|sleeper| sleeper.need() > left), "{:?} could proceed", sleeper.map(|entry| entry.waiter.id));
        let (dead, live) = (Summary::default(), self.queue.summary());
        assert!(live != dead || self.model.takers.is_empty());
    }
}

fn wake(waiter: &Rc<Waiter>) -> Event {
    assert_eq!(waiter.standing.replace(Standing::Woken), Standing::Waiting, "it is woken once");
    Woken(waiter.id)
}

/// The takers that have not left, by arrival: what the queue does without dead entries, deferral as a set, and counts kept.
struct Model {
    fifo: bool,
    takers: Vec<Taker>,
}

#[derive(Debug)]
struct Taker {
    id: usize,
    min: u32,
    up_to: u32,
    losses: u32,
    woken: bool,
    deferred: bool,
}

impl Model {
    fn head(&self) -> Option<usize> {
        self.takers.iter().position(|taker| !taker.deferred)
    }

    fn is_due(&self, losses: u32) -> bool {
        self.fifo || losses >= STARVING_AFTER
    }

    fn losses_until_due(&self) -> u32 {
        self.head().map_or(u32::MAX, |head| STARVING_AFTER.saturating_sub(self.takers[head].losses))
    }

    /// Whether newcomers must queue.
    fn is_shut(&self) -> bool {
        self.head().is_some_and(|head| self.is_due(self.takers[head].losses))
    }

    fn count_loss(&mut self) {
        if let Some(head) = self.head() {
            self.takers[head].losses += 1;
        }
    }

    /// The first waiter that sleeps, and what the woken ones before it can get at all.
    fn first_sleeper(&self, satisfiable: i64) -> Option<(usize, i64)> {
        let mut claimed = 0;
        for (index, taker) in self.takers.iter().enumerate().filter(|(_, taker)| !taker.deferred) {
            if !taker.woken {
                return Some((index, claimed));
            }
            if i64::from(taker.min) <= satisfiable {
                claimed += i64::from(taker.min);
            }
        }
        None
    }

    fn serve(&mut self, mut state: State) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let (available, satisfiable) = (state.available(), state.satisfiable());
            self.takers.iter_mut().for_each(|taker| taker.deferred &= i64::from(taker.min) > satisfiable);
            if available <= 0 {
                return events;
            }
            let Some(head) = self.head() else { return events };
            let Taker { id, min, up_to, losses, .. } = self.takers[head];
            if (self.is_due(losses) || min > state.capacity()) && i64::from(min) <= available {
                let count = i64::from(up_to).min(available);
                state = state.grant(min, up_to).expect("it fits").0;
                events.push(Granted(id, u32::try_from(count).expect("a few")));
                self.takers.remove(head);
            } else if i64::from(min) > satisfiable {
                self.takers[head].deferred = true;
            } else if self.is_due(losses) {
                return events;
            } else {
                let Some((index, claimed)) = self.first_sleeper(satisfiable) else { return events };
                let sleeper = &mut self.takers[index];
                if i64::from(sleeper.min) <= available - claimed {
                    sleeper.woken = true;
                    events.push(Woken(sleeper.id));
                } else if available > claimed && i64::from(sleeper.min) > satisfiable {
                    sleeper.deferred = true;
                } else {
                    return events;
                }
            }
        }
    }
}

// Fifo.

#[test]
fn takers_are_granted_their_tokens_in_order() {
    let mut bucket = Bucket::fifo(-1, 4);
    let [a, b, c] = bucket.queue_all([2, 1, 3]);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(3), [Granted(a, 2), Granted(b, 1)]);
    assert!(!bucket.bypass(1));
    assert_eq!(bucket.give(2), [Granted(c, 3)]);
    assert!(bucket.give(1).is_empty() && bucket.bypass(1));
}

#[test]
fn tokens_are_taken_in_one_step_for_those_that_want_exactly_so_many_and_live() {
    let mut bucket = Bucket::fifo(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 3]);
    for (available, heads, sum) in [(1, 0, 0), (2, 1, 2), (3, 2, 3), (5, 2, 3), (6, 3, 6), (8, 3, 6)] {
        let grant = Next::Grant { heads, min: sum, up_to: sum, is_due: true };
        assert_eq!(bucket.queue.next(state(available, 8)), if heads > 0 { grant } else { Next::Wait });
    }
    // Not for one that has left,
    bucket.waiters[b].standing.set(Standing::Gone);
    assert_eq!(bucket.queue.next(state(8, 8)), Next::Grant { heads: 1, min: 2, up_to: 2, is_due: true });
    bucket.model.takers.retain(|taker| taker.id != b);
    assert_eq!(bucket.give(5), [Granted(a, 2), Granted(c, 3)]);
    // nor for one that takes what is there.
    assert_eq!(bucket.queue_all([1, 1]), [3, 4]);
    assert_eq!(bucket.queue(Kind::Take, 1, 2), []);
    assert_eq!(bucket.queue.next(state(8, 8)), Next::Grant { heads: 2, min: 2, up_to: 2, is_due: true });
    assert_eq!(bucket.give(4), [Granted(3, 1), Granted(4, 1), Granted(5, 2)]);
}

#[test]
fn a_head_that_can_be_served_later_holds_up_the_others() {
    let mut bucket = Bucket::fifo(0, 3);
    let [a, b] = bucket.queue_all([3, 1]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.give(1), [Granted(a, 3)]);
    assert_eq!(bucket.give(1), [Granted(b, 1)]);
}

#[test]
fn a_range_is_served_with_what_is_there() {
    let mut bucket = Bucket::fifo(0, 8);
    for (min, up_to) in [(1, 3), (2, 4), (1, 8)] {
        bucket.queue(Kind::Take, min, up_to);
    }
    assert_eq!(bucket.give(6), [Granted(0, 3), Granted(1, 3)]);
    assert_eq!(bucket.give(7), [Granted(2, 7)]);
}

#[test]
fn tokens_are_handed_to_a_head_that_wants_as_many() {
    let handed_off = |min, up_to, n| {
        let mut bucket = Bucket::fifo(0, 8);
        bucket.push(Kind::Take, min, up_to);
        bucket.queue.pop_for_hand_off(n).map(|(head, n)| (head.id, n))
    };
    for (min, up_to, n, handed) in [
        (2, 2, 2, true),
        (2, 2, 1, false),
        (2, 2, 3, false),
        (2, 2, 0, false),
        (2, 4, 1, false),
        (2, 4, 2, true),
        (2, 4, 3, true),
        (2, 4, 4, true),
        (2, 4, 5, false),
        (2, 2, usize::MAX, false),
        #[cfg(target_pointer_width = "64")]
        (2, 2, (1 << 32) + 2, false),
    ] {
        let n_tokens = u32::try_from(n).unwrap_or_default();
        assert_eq!(handed_off(min, up_to, n), handed.then_some((0, n_tokens)), "{n} to {min}..={up_to}");
    }
    assert!(Bucket::fifo(0, 8).queue.pop_for_hand_off(1).is_none());
}

#[test]
fn a_hand_off_goes_past_the_dead_and_only_to_a_head_that_is_due() {
    let mut bucket = Bucket::fifo(0, 8);
    let [a, b, c] = bucket.queue_all([2, 2, 2]);
    assert!(bucket.leave(a).is_empty() && bucket.leave(b).is_empty());
    assert_eq!(bucket.line(), [a, b, c]);
    assert_eq!((bucket.give(2), bucket.buried), (vec![Granted(c, 2)], 2));

    let mut bucket = Bucket::barging(0, 8);
    let [a] = bucket.queue_all([1]);
    assert!(bucket.queue.pop_for_hand_off(1).is_none());
    lose(&mut bucket, STARVING_AFTER - 1);
    assert!(bucket.queue.pop_for_hand_off(1).is_none());
    lose(&mut bucket, 1);
    assert_eq!(bucket.queue.pop_for_hand_off(1).map(|(head, n)| (head.id, n)), Some((a, 1)));
}

// Requests above the capacity.

#[test]
fn a_request_above_the_capacity_holds_up_no_other() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 2);
        let [a, b, c] = bucket.queue_all([3, 1, 8]);
        let proceeds = |id| if fifo { Granted(id, 1) } else { Woken(id) };
        // One token is left: without any, the last one would keep its place, as there is none to proceed behind it.
        assert_eq!(bucket.give(2), [proceeds(b)]);
        assert_eq!((bucket.line(), bucket.deferred()), (if fifo { vec![] } else { vec![b] }, vec![a, c]));
    }
}

#[test]
fn a_deferred_request_regains_its_place() {
    let mut bucket = Bucket::fifo(0, 2);
    let [a, b, c, d, e, f] = bucket.queue_all([2, 8, 5, 3, 5, 1]);
    assert_eq!(bucket.give(2), [Granted(a, 2)]);
    assert_eq!(bucket.give(1), [Granted(f, 1)]);
    assert_eq!((bucket.line(), bucket.deferred()), (vec![], vec![d, c, e, b]));
    let [g] = bucket.queue_all([2]);
    // Restored at different times, the smaller ones first: they stand in the order of arrival.
    assert_eq!((bucket.set_capacity(3), bucket.line()), (vec![], vec![d, g]));
    assert_eq!((bucket.set_capacity(7), bucket.line()), (vec![Granted(c, 5)], vec![d, e, g]));
    assert_eq!((bucket.set_capacity(8), bucket.line()), (vec![], vec![b, d, e, g]));
    assert_eq!((bucket.set_capacity(4), bucket.line(), bucket.deferred()), (vec![], vec![b, d, e, g], vec![]));
    assert_eq!(bucket.give(8), [Granted(d, 3), Granted(g, 2)]);
    assert_eq!((bucket.line(), bucket.deferred()), (vec![], vec![e, b]));
}

#[test]
fn more_tokens_than_the_capacity_serve_a_deferred_request() {
    let mut bucket = Bucket::fifo(2, 2);
    assert_eq!(bucket.queue(Kind::Take, 4, 4), []);
    assert_eq!(bucket.queue(Kind::Take, 1, 1), [Granted(1, 1)]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.give(1), [Granted(0, 4)]);
}

#[test]
fn a_sleeping_waiter_behind_woken_ones_is_deferred_too() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b, c, d] = bucket.queue_all([1, 4, 2, 1]);
    assert_eq!(bucket.give(1), [Woken(a)]);
    // Those in front keep their places.
    assert_eq!(bucket.set_capacity(3), []);
    assert_eq!((bucket.line(), bucket.deferred()), (vec![a, b, c, d], vec![]));
    assert_eq!(bucket.give(3), [Woken(c)]);
    assert_eq!((bucket.line(), bucket.deferred()), (vec![a, c, d], vec![b]));
    // The first one has not answered, and claims what it needs; those behind it come after the request that is back.
    assert_eq!((bucket.set_capacity(4), bucket.line()), (vec![], vec![a, b, c, d]));
    assert_eq!(bucket.give(1), [Woken(b)]);
}

#[test]
fn no_request_is_deferred_while_there_is_no_token() {
    for fifo in [true, false] {
        for available in [-1, 0] {
            let mut bucket = Bucket::new(fifo, available, 2);
            let [a, b] = bucket.queue_all([3, 1]);
            assert_eq!(bucket.serve(), []);
            assert_eq!((bucket.line(), bucket.deferred()), (vec![a, b], vec![]));
        }
    }
}

#[test]
fn a_head_above_the_capacity_is_granted_its_tokens_at_once() {
    let mut bucket = Bucket::barging(2, 2);
    assert_eq!(bucket.queue(Kind::Take, 4, 5), []);
    assert_eq!(bucket.queue(Kind::Take, 3, 3), []);
    assert_eq!(bucket.queue(Kind::Take, 2, 2), [Woken(2)]);
    assert_eq!(bucket.poll(2), (true, vec![]));
    // A newcomer that came before a woken waiter tries could leave it too few.
    assert_eq!(bucket.give(6), [Granted(0, 5)]);
    assert!(bucket.bypass(1));
    assert_eq!(bucket.give(3), [Granted(1, 3)]);
    // The capacity suffices for this one: it is woken.
    assert_eq!(bucket.queue(Kind::Take, 2, 2), []);
    assert_eq!(bucket.give(3), [Woken(3)]);
}

#[test]
fn a_request_above_the_capacity_that_is_not_the_head_is_woken() {
    let mut bucket = Bucket::barging(0, 2);
    let [a, b, c] = bucket.queue_all([2, 3, 1]);
    assert_eq!(bucket.give(5), [Woken(a), Woken(b)]);
    // Too few for the second one are left, and it claims them until the first has answered.
    assert!(bucket.bypass(1));
    assert_eq!(bucket.poll(a), (true, vec![Woken(c)]));
    assert_eq!((bucket.line(), bucket.deferred()), (vec![c], vec![b]));
}

// Barging.

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

#[test]
fn a_taker_is_woken_and_keeps_its_place_until_it_has_answered() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([2, 1]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert_eq!((bucket.line(), bucket.give(1)), (vec![a, b], vec![Woken(b)]));
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.poll(b), (true, vec![]));
    assert_eq!(bucket.poll(a), (true, vec![]));
    assert_eq!((bucket.line(), bucket.state.available()), (vec![], 1));
}

#[test]
fn a_woken_waiter_that_fails_sleeps_again_at_its_place() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([2, 2]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert!(bucket.bypass(1));
    assert_eq!(bucket.poll(a), (false, vec![]));
    assert_eq!(bucket.give(1), [Woken(a)]);
    assert_eq!(bucket.give(2), [Woken(b)]);
}

#[test]
fn a_woken_waiter_claims_nothing_from_those_before_it() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 1]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert!(bucket.bypass(2));
    assert_eq!(bucket.poll(a), (false, vec![]));
    // The second one does not run. The first is woken again when the tokens suffice for it.
    assert_eq!(bucket.give(1), [Woken(a)]);
    assert_eq!((bucket.give(1), bucket.give(1)), (vec![], vec![Woken(c)]));
}

#[test]
fn a_woken_waiter_that_became_unsatisfiable_claims_nothing() {
    let mut bucket = Bucket::barging(0, 5);
    let [a, b, c] = bucket.queue_all([1, 4, 1]);
    assert_eq!(bucket.give(5), [Woken(a), Woken(b)]);
    // The first waiter leaves over 1 of 2 tokens. The second, which does not run, could not have it.
    assert_eq!(bucket.set_capacity(2), [Woken(c)]);
    assert_eq!(bucket.poll(c), (true, vec![]));
    // It claims again what it needs when it can get it.
    assert_eq!(bucket.set_capacity(6), []);
    assert_eq!(bucket.queue(Kind::Take, 1, 1), []);
    assert_eq!(bucket.state.available(), 5);
    assert_eq!(bucket.give(1), [Woken(3)]);
}

#[test]
fn what_a_newcomer_took_counts_for_the_next_head_once_the_first_has_its_tokens() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([1, 1]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert!(bucket.bypass(1));
    assert_eq!((bucket.poll(a), bucket.state.is_bypassed()), ((true, vec![]), true));
    assert_eq!((bucket.give(1), bucket.state.is_bypassed()), (vec![], false));
    assert_eq!((bucket.line(), bucket.queue.takers.entries[0].losses()), (vec![b], 1));
    // A loss is forgotten when no taker is left.
    assert!(bucket.bypass(1) && bucket.state.is_bypassed());
    assert_eq!((bucket.poll(b), bucket.state.is_bypassed()), ((true, vec![]), false));
}

#[test]
fn the_tokens_of_a_woken_waiter_that_leaves_wake_the_next() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 1]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert_eq!(bucket.leave(a), [Woken(b), Woken(c)]);
    assert_eq!(bucket.leave(b), []);
    assert_eq!(bucket.poll(c), (true, vec![]));
}

#[test]
fn waiters_are_woken_in_order_as_long_as_the_tokens_suffice() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c, d] = bucket.queue_all([2, 1, 3, 1]);
    assert_eq!(bucket.give(4), [Woken(a), Woken(b)]);
    // One is left over, but the third needs three.
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(2), [Woken(c), Woken(d)]);
}

#[test]
fn the_head_is_due_after_sixteen_losses_and_not_after_fifteen() {
    assert_eq!(STARVING_AFTER, 16);
    let mut bucket = Bucket::barging(0, 8);
    let [a] = bucket.queue_all([2]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    for _ in 1..16 {
        assert!(bucket.bypass(2));
        assert_eq!(bucket.give(2), []);
    }
    assert_eq!(bucket.model.takers[0].losses, 15);
    assert!(bucket.bypass(2));
    // It was woken and does not run: it is granted its tokens in its absence.
    assert_eq!(bucket.give(2), [Granted(a, 2)]);
}

#[test]
fn newcomers_are_shut_out_while_the_head_is_starving() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([3, 1]);
    lose(&mut bucket, 16);
    assert_eq!(bucket.queue.next(state(2, 8)), Next::Wait);
    assert_eq!(bucket.give(1), []);
    assert!(!bucket.bypass(1));
    // The next one has lost nothing yet.
    assert_eq!(bucket.give(3), [Granted(a, 3), Woken(b)]);
    assert!(bucket.bypass(1));
}

#[test]
fn only_the_head_loses() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([1, 1]);
    lose(&mut bucket, 15);
    assert_eq!(bucket.leave(a), []);
    // What was lost by the one that left is not the heir's.
    lose(&mut bucket, 15);
    assert_eq!((bucket.line(), bucket.model.takers[0].losses), (vec![b], 15));
    assert_eq!(bucket.queue.losses_until_due(), 1);
}

#[test]
fn a_dead_entry_in_front_does_not_hide_a_starving_head() {
    let mut bucket = Bucket::barging(0, 4);
    let [a] = bucket.queue_all([8]);
    assert_eq!((bucket.give(1), bucket.deferred()), (vec![], vec![a]));
    assert!(bucket.bypass(1));
    let [b] = bucket.queue_all([1]);
    lose(&mut bucket, 15);
    assert_eq!((bucket.set_capacity(8), bucket.line()), (vec![], vec![a, b]));
    assert!(bucket.bypass(4));
    assert_eq!((bucket.leave(a), bucket.line()), (vec![], vec![a, b]));
    assert_eq!(bucket.queue.losses_until_due(), 1);
}

#[test]
fn a_dead_entry_in_front_loses_nothing() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b] = bucket.queue_all([1, 1]);
    assert_eq!((bucket.leave(a), bucket.line()), (vec![], vec![a, b]));
    bucket.queue.count_loss();
    assert_eq!(bucket.queue.takers.entries.iter().map(|entry| (entry.waiter.id, entry.losses())).collect::<Vec<_>>(), [(b, 1)]);
}

#[test]
fn a_request_keeps_its_losses_while_it_is_deferred() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b] = bucket.queue_all([4, 1]);
    lose(&mut bucket, 15);
    assert_eq!((bucket.set_capacity(5), bucket.set_capacity(3)), (vec![], vec![]));
    assert_eq!((bucket.give(2), bucket.deferred()), (vec![Woken(b)], vec![a]));
    assert_eq!(bucket.poll(b), (true, vec![]));
    assert_eq!((bucket.set_capacity(4), bucket.line()), (vec![], vec![a]));
    assert!(bucket.bypass(1));
    assert_eq!(bucket.give(4), [Granted(a, 4)]);
}

// Dead entries.

#[test]
fn dead_entries_are_passed_over_wherever_they_are() {
    // Which of five leave, and how many entries are buried when the last one was served.
    for fifo in [true, false] {
        for leaving in 0..1_u32 << 5 {
            let mut bucket = Bucket::new(fifo, 0, 2);
            let all = bucket.queue_all([1, 2, 8, 1, 2]);
            let leaves = |id: &usize| leaving >> id & 1 == 1;
            all.iter().filter(|id| leaves(id)).for_each(|id| assert_eq!(bucket.leave(*id), []));
            for id in all.into_iter().filter(|id| !leaves(id) && *id != 2) {
                let n = bucket.waiters[id].min;
                if fifo {
                    assert_eq!(bucket.give(n as usize), [Granted(id, n)]);
                } else {
                    assert_eq!(bucket.give(n as usize), [Woken(id)]);
                    assert_eq!(bucket.poll(id), (true, vec![]));
                }
            }
            assert_eq!(bucket.give(1), []);
            bucket.queue.compact();
            bucket.settle();
            let deferred = usize::from(!leaves(&2));
            assert_eq!((bucket.queue.takers(), bucket.line()), (deferred, vec![]), "{leaving:b}");
        }
    }
}

#[test]
fn a_deferred_request_that_leaves_is_removed() {
    let mut bucket = Bucket::fifo(0, 2);
    let [a, b, c] = bucket.queue_all([4, 3, 3]);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.deferred(), [b, c, a]);
    assert_eq!((bucket.leave(b), bucket.deferred(), bucket.buried), (vec![], vec![c, a], 1));
    // This one leaves while the queue is owned.
    bucket.waiters[c].standing.set(Standing::Gone);
    bucket.model.takers.retain(|taker| taker.id != c);
    assert_eq!((bucket.set_capacity(4), bucket.deferred(), bucket.buried), (vec![], vec![], 1));
    assert_eq!((bucket.give(1), bucket.buried, bucket.queue.takers()), (vec![Granted(a, 4)], 2, 0));
}

#[test]
fn compaction_removes_all_dead_entries_and_nothing_else() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b, c, d, e] = bucket.queue_all([1, 1, 6, 7, 2]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert_eq!(bucket.set_capacity(3), []);
    let kinds = [Kind::Release, Kind::Release, Kind::Idle, Kind::Idle, Kind::Settled, Kind::Settled];
    let others = kinds.map(|kind| bucket.push(kind, 0, 0));
    for id in [a, d, others[0], others[2], others[4]] {
        bucket.waiters[id].standing.set(Standing::Gone);
    }
    bucket.model.takers.retain(|taker| ![a, d].contains(&taker.id));
    assert_eq!((bucket.queue.takers(), bucket.queue.others()), (5, 6));
    bucket.queue.compact();
    assert_eq!((bucket.queue.takers(), bucket.queue.others(), bucket.queue.take_buried()), (3, 3, Some((2, 3))));
    assert_eq!(bucket.queue.take_buried(), None);
    bucket.buried += 2;
    assert_eq!((bucket.line(), bucket.deferred()), (vec![b, e], vec![c]));
    // The woken ones claim what they did before.
    assert_eq!(bucket.serve(), [Woken(others[1]), Granted(others[5], 0)]);
    assert_eq!(bucket.give(1), [Woken(e), Granted(others[3], 0)]);
}

#[test]
fn buried_waiters_are_counted_by_kind() {
    let mut queue = WaitQueue::<Rc<Waiter>>::new(true);
    assert_eq!(queue.take_buried(), None);
    for kind in [Kind::Take, Kind::Release, Kind::Idle, Kind::Settled] {
        queue.count_buried(kind);
    }
    assert_eq!((queue.take_buried(), queue.take_buried()), (Some((1, 3)), None));
}

// Releasers and watchers.

#[test]
fn as_many_releasers_are_woken_as_there_is_room() {
    let mut bucket = Bucket::fifo(8, 8);
    for _ in 0..4 {
        assert_eq!(bucket.queue(Kind::Release, 1, 1), []);
    }
    assert!(bucket.bypass(2));
    assert_eq!(
        bucket.waiters.iter().map(|waiter| waiter.standing.get()).filter(|standing| *standing == Standing::Woken).count(),
        2
    );
    // They have not answered: the room is theirs.
    assert_eq!(bucket.serve(), []);
    // The first one leaves, and the second finds the bucket full again.
    assert_eq!(bucket.leave(0), [Woken(2)]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.poll(1), (false, vec![]));
    assert!(bucket.bypass(1));
    // It has kept its place. The other one has not answered yet.
    assert_eq!(bucket.waiters[1].standing.get(), Standing::Woken);
    assert_eq!(bucket.poll(1), (true, vec![]));
    assert_eq!(bucket.poll(2), (false, vec![]));
    assert_eq!(bucket.set_capacity(6), [Woken(2), Woken(3)]);
}

#[test]
fn watchers_are_told_when_their_state_is_reached() {
    for (available, capacity, idle, settled) in
        [(-1, 2, false, false), (0, 2, false, true), (2, 2, true, true), (-1, 0, false, false), (0, 0, true, true)]
    {
        let mut bucket = Bucket::fifo(available, capacity);
        assert!(!bucket.queue.has_others());
        bucket.push(Kind::Idle, 0, 0);
        assert!(bucket.queue.has_others());
        bucket.push(Kind::Settled, 0, 0);
        bucket.push(Kind::Idle, 0, 0);
        let reached: Vec<_> =
            [(0, idle), (2, idle), (1, settled)].into_iter().filter(|(_, holds)| *holds).map(|(id, _)| Granted(id, 0)).collect();
        assert_eq!(bucket.serve(), reached, "{available}/{capacity}");
        assert_eq!(bucket.queue.has_others(), !idle || !settled);
    }
}

#[test]
fn the_summary_tells_of_each_kind() {
    let summary = |bucket: &Bucket| bucket.queue.summary();
    let mut bucket = Bucket::fifo(0, 2);
    assert_eq!(summary(&bucket), Summary::default());
    bucket.queue_all([3]);
    assert_eq!(summary(&bucket), Summary::new(true, true, false, false));
    bucket.give(1);
    assert_eq!(summary(&bucket), Summary::new(false, false, false, true));
    bucket.push(Kind::Release, 1, 1);
    assert_eq!(summary(&bucket), Summary::new(false, false, true, true));

    for kind in [Kind::Idle, Kind::Settled] {
        let mut bucket = Bucket::fifo(-1, 0);
        bucket.push(kind, 0, 0);
        assert_eq!(summary(&bucket), Summary::new(false, false, false, true));
    }

    let mut bucket = Bucket::barging(0, 2);
    bucket.queue_all([1]);
    assert_eq!(summary(&bucket), Summary::new(true, false, false, false));
    lose(&mut bucket, 16);
    assert_eq!(summary(&bucket), Summary::new(true, true, false, false));
}

#[test]
fn all_takers_and_releasers_are_taken_out_for_the_close() {
    let mut bucket = Bucket::barging(0, 2);
    bucket.queue_all([4, 1, 2]);
    assert_eq!(bucket.give(1), [Woken(1)]);
    let (releaser, idle) = (bucket.push(Kind::Release, 1, 1), bucket.push(Kind::Idle, 0, 0));
    let mut taken: Vec<_> = bucket.queue.take_all().map(|waiter| waiter.id).collect();
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2, releaser]);
    assert_eq!((bucket.queue.takers(), bucket.queue.others()), (0, 1));
    assert_eq!(bucket.queue.take_watchers(state(2, 2)).map(|waiter| waiter.id).collect::<Vec<_>>(), [idle]);
    // Nothing is left of the claims.
    assert_eq!((bucket.queue.takers.woken, bucket.queue.takers.claimed), (0, 0));
}

// Cost.

const MANY: usize = 100_000;

/// Takes the count of looks at waiters since the last call.
fn looks(bucket: &Bucket) -> usize {
    bucket.looks.take()
}

#[test]
fn deferred_requests_that_a_resize_cannot_serve_are_not_looked_at() {
    let mut bucket = Bucket::fifo(0, 2);
    (0..MANY).for_each(|_| bucket.queue.push(new_waiter(&bucket, Kind::Take, 5)));
    bucket.queue.push(new_waiter(&bucket, Kind::Take, 4));
    assert_eq!(bucket.queue.next(state(1, 2)), Next::Wait);
    assert!(looks(&bucket) <= 3 * MANY, "each is deferred once");
    for capacity in [1, 3, 0, 2] {
        assert_eq!(bucket.queue.next(state(0, capacity)), Next::Wait);
        assert_eq!(bucket.queue.next(state(3, capacity)), Next::Wait);
    }
    assert_eq!(looks(&bucket), 0);
    assert_eq!(bucket.queue.next(state(4, 3)), Next::Grant { heads: 1, min: 4, up_to: 4, is_due: true });
    assert!(looks(&bucket) <= 3, "only the one that is restored");
}

fn new_waiter(bucket: &Bucket, kind: Kind, count: u32) -> Rc<Waiter> {
    let (standing, looks) = (Cell::new(Standing::Waiting), Rc::clone(&bucket.looks));
    Rc::new(Waiter { id: 0, kind, min: count, up_to: count, standing, ticket: Cell::new(0), looks })
}

/// Queues many takers of one token, and returns them.
fn queue_many(bucket: &mut Bucket) -> Vec<Rc<Waiter>> {
    let waiters: Vec<_> = (0..MANY).map(|_| new_waiter(bucket, Kind::Take, 1)).collect();
    for waiter in &waiters {
        bucket.queue.push(Rc::clone(waiter));
    }
    waiters
}

#[test]
fn a_return_looks_at_few_of_many_waiters() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 8);
        let waiters = queue_many(&mut bucket);
        for available in 1..=8 {
            assert_ne!(bucket.queue.next(state(available, 8)), Next::Wait);
            if !fifo {
                waiters[usize::try_from(available).unwrap() - 1].standing.set(Standing::Woken);
                assert_eq!(bucket.queue.next(state(available, 8)), Next::Wait);
            }
            // And at those that are served.
            assert!(looks(&bucket) <= 4 + usize::try_from(available).unwrap());
        }
    }
}

#[test]
fn a_refill_of_one_token_into_a_paused_bucket_looks_at_few_of_many_waiters() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 0);
        let waiters = queue_many(&mut bucket);
        assert_eq!(bucket.queue.next(state(0, 0)), Next::Wait);
        for waiter in waiters.iter().take(10_000) {
            assert_eq!(bucket.queue.next(state(1, 0)), Next::Grant { heads: 1, min: 1, up_to: 1, is_due: fifo });
            let head = bucket.queue.pop_head().expect("a head");
            assert!(Rc::ptr_eq(&head, waiter));
            head.standing.set(Standing::Gone);
            assert_eq!(bucket.queue.next(state(0, 0)), Next::Wait);
            assert!(looks(&bucket) <= 3);
        }
        assert_eq!(bucket.deferred(), []);
    }
}

/// In whatever order woken waiters answer, none has the others looked at again.
#[test]
fn woken_waiters_that_leave_cost_a_few_looks_each() {
    let orders: [fn(usize) -> usize; 3] = [|i| i, |i| MANY - 1 - i, |i| i * 7919 % MANY];
    for order in orders {
        let mut bucket = Bucket::barging(0, 8);
        let waiters = queue_many(&mut bucket);
        let many = u32::try_from(MANY).expect("it is small");
        let mut full = State::new(many);
        // This one sleeps to the end.
        bucket.queue.push(new_waiter(&bucket, Kind::Take, many));
        for (i, waiter) in waiters.iter().enumerate() {
            assert_eq!(bucket.queue.next(full), Next::Wake);
            waiter.standing.set(Standing::Woken);
            assert_eq!(bucket.queue.claim(full.available()), i + 1 == MANY);
        }
        assert!(looks(&bucket) <= 4 * MANY);
        for waiter in (0..MANY).map(|i| &waiters[order(i)]) {
            full = full.retry(1, 1).expect("tokens").0;
            waiter.standing.set(Standing::Gone);
            if !bucket.queue.remove_head_if(|head| Rc::ptr_eq(head, waiter)) {
                bucket.queue.note_answer(waiter);
            }
            assert_eq!(bucket.queue.next(full), Next::Wait);
            assert_eq!(bucket.queue.takers.claimed, full.available());
        }
        assert_eq!(bucket.queue.takers(), 1);
        let looks = looks(&bucket);
        assert!(looks <= 6 * MANY, "{looks} looks");
    }
}

/// The dead are thrown out when they are the majority, as the combiner does. So each costs a few looks, in whatever order they leave.
#[test]
fn waiters_that_leave_cost_a_few_looks_each() {
    for reversed in [false, true] {
        let mut bucket = Bucket::fifo(0, 8);
        let mut waiters = queue_many(&mut bucket);
        if reversed {
            waiters.reverse();
        }
        let mut dead = 0;
        for waiter in waiters {
            waiter.standing.set(Standing::Gone);
            dead += 1;
            if dead > 16 && dead > bucket.queue.takers() / 2 {
                bucket.queue.compact();
                assert_eq!(bucket.queue.take_buried(), Some((dead, 0)));
                dead = 0;
            }
        }
        assert!(bucket.queue.takers() <= 32);
        let looks = looks(&bucket);
        assert!(looks <= 3 * MANY, "{looks} looks");
    }
}

#[test]
fn dead_entries_in_front_are_looked_at_once() {
    let mut bucket = Bucket::fifo(0, 8);
    for waiter in queue_many(&mut bucket) {
        waiter.standing.set(Standing::Gone);
    }
    assert_eq!(bucket.queue.next(state(1, 8)), Next::Wait);
    assert!(looks(&bucket) <= MANY + 1);
    assert_eq!((bucket.queue.takers(), bucket.queue.take_buried()), (0, Some((MANY, 0))));
}

#[test]
fn memory_is_given_back() {
    let mut bucket = Bucket::fifo(0, 8);
    let room = |bucket: &Bucket| bucket.queue.takers.entries.capacity();
    queue_many(&mut bucket);
    assert!(room(&bucket) >= MANY);
    for _ in 0..MANY - 100 {
        bucket.queue.pop_head();
        assert!(room(&bucket) <= 4 * (SPARE + bucket.queue.takers()) + 4);
    }
    assert!(room(&bucket) <= 1000);
    let mut waiters = queue_many(&mut bucket);
    for kind in [Kind::Release, Kind::Idle, Kind::Settled] {
        for _ in 0..MANY {
            let waiter = new_waiter(&bucket, kind, 1);
            bucket.queue.push(Rc::clone(&waiter));
            waiters.push(waiter);
        }
    }
    for waiter in &waiters {
        waiter.standing.set(Standing::Gone);
    }
    bucket.queue.takers.entries.iter().for_each(|entry| entry.waiter.standing.set(Standing::Gone));
    bucket.queue.compact();
    let WaitQueue { releasers, idle, settled, .. } = &bucket.queue;
    assert!(room(&bucket) <= 2 * SPARE && releasers.entries.capacity() <= 2 * SPARE);
    assert!(idle.is_empty() && settled.is_empty());
}

// Random operations.

#[derive(Clone, Copy, Debug)]
enum Operation {
    Queue(Kind, u32, u32),
    Give(usize),
    Bypass(u32),
    /// Tokens come and newcomers take them.
    Lose(u32),
    SetCapacity(u32),
    /// One of the woken waiters answers.
    Poll(prop::sample::Index),
    /// One of all waiters leaves.
    Leave(prop::sample::Index),
    Compact,
}

fn operation() -> impl Strategy<Value = Operation> {
    let range = (1..=MAX).prop_flat_map(|min| (Just(min), prop_oneof![2 => Just(min), 1 => min..=MAX]));
    prop_oneof![
        6 => range.prop_map(|(min, up_to)| Operation::Queue(Kind::Take, min, up_to)),
        1 => prop::sample::select([Kind::Release, Kind::Idle, Kind::Settled].as_slice()).prop_map(|kind| Operation::Queue(kind, 1, 1)),
        6 => (1..=4_usize).prop_map(Operation::Give),
        2 => (1..=4_u32).prop_map(Operation::Bypass),
        1 => (1..=20_u32).prop_map(Operation::Lose),
        2 => (0..=MAX).prop_map(Operation::SetCapacity),
        4 => any::<prop::sample::Index>().prop_map(Operation::Poll),
        3 => any::<prop::sample::Index>().prop_map(Operation::Leave),
        1 => Just(Operation::Compact),
    ]
}

impl Bucket {
    /// One of the waiters that stand so, if there are any.
    fn pick(&self, index: prop::sample::Index, stands: impl Fn(Standing) -> bool) -> Option<usize> {
        let some: Vec<_> = self.waiters.iter().filter(|waiter| stands(waiter.standing.get())).map(|waiter| waiter.id).collect();
        (!some.is_empty()).then(|| *index.get(&some))
    }

    /// Everything is compared with the model, and checked, within.
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Queue(kind, min, up_to) => drop(self.queue(kind, min, up_to)),
            Operation::Give(n) => drop(self.give(n)),
            Operation::Bypass(n) => drop(self.bypass(n)),
            Operation::Lose(times) => {
                for _ in 0..times {
                    self.give(1);
                    self.bypass(1);
                }
            }
            Operation::SetCapacity(capacity) => drop(self.set_capacity(capacity)),
            Operation::Poll(index) => {
                if let Some(id) = self.pick(index, |standing| standing == Standing::Woken) {
                    self.poll(id);
                }
            }
            Operation::Leave(index) => {
                if let Some(id) = self.pick(index, |standing| standing != Standing::Gone) {
                    self.leave(id);
                }
            }
            Operation::Compact => {
                self.queue.compact();
                self.settle();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_model_does(
        fifo in any::<bool>(), capacity in 0..=MAX, operations in prop::collection::vec(operation(), 1..80),
    ) {
        let mut bucket = Bucket::new(fifo, 0, capacity);
        for operation in operations {
            bucket.apply(operation);
        }
        // With enough of everything, and answers from all, no waiter is left.
        bucket.set_capacity(MAX);
        while let Some(id) = bucket.waiters.iter().find(|waiter| waiter.lives()).map(|waiter| waiter.id) {
            if bucket.waiters[id].standing.get() == Standing::Woken {
                bucket.poll(id);
            } else if bucket.waiters[id].kind == Kind::Release {
                prop_assert!(bucket.give(MAX as usize).is_empty() && bucket.bypass(MAX));
            } else {
                prop_assert!(!bucket.give(MAX as usize).is_empty(), "{:?} waits in {:?}", bucket.waiters[id], bucket.state);
            }
        }
    }
}
