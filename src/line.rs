//! The waiting line: who waits, who serves, and why nobody is forgotten.
//!
//! This file is the last of the crate's three arguments: *no wake-up is lost*.
//!
//! Takers that find too little line up at the event `queue`, which keeps the order and holds what wakes them. Whoever
//! changes the bucket so that a waiter may go on becomes the **server**: it sets SERVING in the same step, takes waiters
//! out of the queue in order, gives each its tokens (one step on the word, then the waiter's phase), and leaves when
//! nobody can be served any more. There is no other thread or task for it. If there is a server already, the change
//! sets AGAIN instead, and the server looks once more before it leaves; so nobody waits for the server, ever. If others
//! change the word faster than the server can look at the line, it steps back after [`TRIES`] tries, and serves on only if
//! nobody else has begun to.
//!
//! Waiters whom the server has taken out of the queue but could not serve lie on its **desk**: at the `front` those who
//! are next, in order, and `aside` those who want more than the capacity, who hold up nobody and go back to the front
//! when the capacity reaches them. All on the desk came before all in the queue.
//!
//! In a [`Fairness::Fifo`] bucket, newcomers are SHUT out while somebody waits who could be served. In a
//! [`Fairness::Barging`] bucket they are not, and the head of the line is not given tokens but *called* to try for them;
//! when it has been called or passed over in vain [`STRIKES`] times, it is served like in a Fifo bucket.
//!
//! Two more events hold those who want no tokens: at `room` releasers wait until there is room, and at `whole` those who
//! wait for all tokens to be back. The server calls them; ROOM and ASIDE tell it that there may be any.
//!
//! Invariants:
//!
//! * **L1** One server at a time: the desk belongs to whoever set SERVING.
//! * **L2** Without a server, if tokens are there and QUEUED is set, the front of the desk is someone who wants more
//!   than that (or, in a Barging bucket, has been called). Every change that could break this serves: [`State`] **S5**.
//! * **L3** A waiter lines up first and sets QUEUED then, by a read-modify-write (and AGAIN with it if there is a server).
//!   So whoever clears QUEUED and did not see the waiter in the queue is followed by the waiter's QUEUED.
//! * **L4** Tokens are in the word or granted to one waiter, never in a notification. A grant is a change of the
//!   waiter's phase, which is made once; if the waiter has left before, the tokens go back.
//! * **L5** Nobody's waker runs, and nobody's waker is dropped, while a right over the line or a lock is held.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::task::{Poll, Waker};

use event_listener::{Event, EventListener, Listener as _};

use crate::Fairness;
use crate::atomic::{AtomicState, Count, Patience, Phase};
use crate::desk::{Desk, OpenDesk};
use crate::few::Few;
use crate::state::{Action, Refused, Rest, State};
use crate::sync::{const_fn, limit};
use crate::waiter::{self, Waiter, Wakes};

/// How often a waiter at the head of the line of a Barging bucket is called or passed over in vain before it is served first.
pub(crate) const STRIKES: usize = limit(16, 2) as usize;
/// How many returns of tokens a waiter that has been called may let pass before the next one is called as well.
const PATIENCE: u32 = limit(256, 2);
/// How often the word may change under a server before it steps back.
const TRIES: u32 = limit(8, 2);
/// How many waiters are served at most by one step on the word.
const BATCH: usize = limit(32, 2) as usize;

pub(crate) struct Line {
    word: AtomicState,
    max: u32,
    fairness: Fairness,
    /// Where takers line up.
    queue: Event,
    /// Where releasers line up while the bucket is full.
    room: Event,
    /// Where those line up who wait for all tokens to be back, and how many they are.
    whole: Event,
    watching: Count,
    desk: Desk,
    /// Takers in the queue or on the desk.
    waiting: Count,
    patience: Patience,
}

/// A place in a line. It is to be given up by one of the functions for that, never just dropped, for a
/// listener that is dropped after it was notified notifies the next.
pub(crate) struct Place {
    waiter: Arc<Waiter>,
    listener: EventListener,
}

/// Tokens on their way to a guard: they go back if user code panics meanwhile.
struct Taken<'a> {
    line: &'a Line,
    count: u32,
}

/// What the server is going to do, if the word is still the one that it looked at.
struct Plan {
    grants: Few<Arc<Waiter>>,
    next: State,
    rests: bool,
}

impl Line {
    const_fn! {
        pub(crate) const fn new(max: u32, capacity: u32) -> Self {
            Self {
                word: AtomicState::new(State::new(capacity)),
                max,
                fairness: Fairness::Fifo,
                queue: Event::new(),
                room: Event::new(),
                whole: Event::new(),
                watching: Count::new(),
                desk: Desk::new(),
                waiting: Count::new(),
                patience: Patience::new(),
            }
        }
    }

    pub(crate) const fn set_fairness(&mut self, fairness: Fairness) {
        self.fairness = fairness;
    }

    pub(crate) const fn fairness(&self) -> Fairness {
        self.fairness
    }

    #[inline]
    pub(crate) const fn max(&self) -> u32 {
        self.max
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.word.load()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    const fn is_fifo(&self) -> bool {
        matches!(self.fairness, Fairness::Fifo)
    }

    // What does not wait.

    #[inline]
    pub(crate) fn take(&self, n: u32) -> Result<(), Refused> {
        if self.take_plainly(n) { Ok(()) } else { self.take_or_tell(n) }
    }

    #[inline]
    pub(crate) fn take_plainly(&self, n: u32) -> bool {
        self.word.try_change(|state| state.take_plainly(n))
    }

    #[cold]
    fn take_or_tell(&self, n: u32) -> Result<(), Refused> {
        let action = self.word.update(|state| state.take(n))?;
        let taken = Taken { line: self, count: n };
        self.act(action);
        taken.keep();
        Ok(())
    }

    pub(crate) fn take_up_to(&self, n: u32) -> Result<u32, Refused> {
        let (action, count) = self.word.update(|state| state.take_up_to(n))?;
        let taken = Taken { line: self, count };
        self.act(action);
        taken.keep();
        Ok(count)
    }

    #[inline]
    pub(crate) fn give(&self, n: usize) -> usize {
        if self.word.try_change(|state| state.give_plainly(n, self.max)) { n } else { self.give_and_tell(n) }
    }

    #[cold]
    fn give_and_tell(&self, n: usize) -> usize {
        let (action, fitted) = self.word.change(|state| state.give(n, self.max));
        self.act(action);
        fitted
    }

    /// Puts in what fits of `n` tokens below the capacity, and says how many did.
    pub(crate) fn top_up(&self, n: usize) -> usize {
        let (action, fitted) = self.word.change(|state| state.top_up(n));
        self.act(action);
        fitted
    }

    pub(crate) fn release(&self, n: usize) -> Result<(), Refused> {
        let action = self.word.update(|state| state.release(n, self.max))?;
        self.act(action);
        Ok(())
    }

    #[inline]
    pub(crate) fn set_capacity(&self, capacity: u32) -> Result<State, Refused> {
        let (action, state) = self.word.update(|state| {
            let (state, action) = state.set_capacity(capacity, self.max, self.is_fifo())?;
            Ok((state, (action, state)))
        })?;
        self.act(action);
        Ok(state)
    }

    pub(crate) fn close(&self) -> bool {
        let (action, closed) = self.word.change(State::close);
        self.act(action);
        closed
    }

    // What waits for tokens.

    /// Lines up for `n` tokens. The action is for when the place is safe, as it may run user code.
    #[cold]
    pub(crate) fn enqueue(&self, n: u32, waker: &Waker) -> Result<(Place, Action), Refused> {
        let waiter = Waiter::new(n, waker);
        self.waiting.add();
        let place = Place::new(waiter, &self.queue);
        // L3: only now, whoever looks into the queue sees the waiter.
        match self.word.update(|state| state.enqueue(self.is_fifo())) {
            Ok(action) => Ok((place, action)),
            Err(refused) => {
                self.cancel(place);
                Err(refused)
            }
        }
    }

    /// Whether the waiter may go on. If not, `waker` is woken when it may; `registered` tells that this is known already.
    #[cold]
    pub(crate) fn poll(&self, place: &Place, waker: &Waker, mut registered: bool) -> Poll<Result<(), Refused>> {
        let waiter = &*place.waiter;
        let mut put = false;
        loop {
            let phase = waiter.phase.load();
            if phase == Phase::Waiting {
                if registered {
                    return Poll::Pending;
                }
                // Then the phase once more: see `set_waker`.
                waiter.set_waker(waker);
                (registered, put) = (true, true);
                continue;
            }
            if mem::take(&mut put) {
                // Too late to be taken out by the server.
                drop(waiter.take_waker());
            }
            match phase {
                Phase::Granted => return Poll::Ready(Ok(())),
                Phase::Closed | Phase::Gone => return Poll::Ready(Err(Refused::Closed)),
                Phase::Called | Phase::Waiting => match self.answer(waiter) {
                    Err(Refused::NotNow) => registered = false,
                    result => return Poll::Ready(result),
                },
            }
        }
    }

    /// A waiter that has been called tries to take. If there is too little, it is where it was, at the head of the line.
    fn answer(&self, waiter: &Waiter) -> Result<(), Refused> {
        // First this, then the word: see `Patience`.
        self.patience.set(0);
        match self.take(waiter.need) {
            Err(Refused::NotNow) => {
                waiter.strikes.add();
                waiter.return_to_line();
                self.act(self.word.change(State::call));
                if self.state().is_closed() { Err(Refused::Closed) } else { Err(Refused::NotNow) }
            }
            Err(refused) => Err(refused),
            Ok(()) => {
                waiter.phase.leave();
                self.waiting.sub(1);
                let taken = Taken { line: self, count: waiter.need };
                // Tokens may have come that were left to this one.
                self.act(self.word.change(State::call));
                taken.keep();
                Ok(())
            }
        }
    }

    /// Gives up a place. True if it had been granted its tokens, which are the caller's then.
    #[cold]
    pub(crate) fn leave(&self, place: Place) -> bool {
        let Place { waiter, listener } = place;
        if !listener.discard() {
            // Still in the queue, it held up nobody, and nobody knows of it any more.
            self.waiting.sub(1);
            return false;
        }
        let phase = waiter.phase.leave();
        let waker = waiter.take_waker();
        if matches!(phase, Phase::Waiting | Phase::Called) {
            if phase == Phase::Called {
                self.patience.set(0);
            }
            // The server may have counted on it, or those behind it wait.
            let action = self.word.change(State::call);
            // Only now: a server that has it in hand, and counts one less than there are, finds that the word has changed.
            self.waiting.sub(1);
            self.act(action);
        }
        drop(waker);
        phase == Phase::Granted
    }

    /// Gives up a place, and the tokens that it may have been granted.
    #[cold]
    pub(crate) fn cancel(&self, place: Place) {
        let need = place.waiter.need;
        if self.leave(place) {
            self.give(need as usize);
        }
    }

    // What waits for room.

    /// Deposits one token, or lines up for room.
    #[cold]
    pub(crate) fn enqueue_release(&self, waker: &Waker) -> Result<Option<Place>, Refused> {
        let place = Place::new(Waiter::new(1, waker), &self.room);
        match self.word.update(|state| state.enqueue_release(self.max)) {
            Ok((action, false)) => {
                debug_assert_eq!(action, Action::Nothing);
                Ok(Some(place))
            }
            Ok((action, true)) => {
                let waker = self.give_up_room(place);
                self.act(action);
                drop(waker);
                Ok(None)
            }
            Err(refused) => {
                self.leave_room(place);
                Err(refused)
            }
        }
    }

    /// Gives up a place for room. If it had been called, the next one may go on.
    #[cold]
    pub(crate) fn leave_room(&self, place: Place) {
        drop(self.give_up_room(place));
    }

    /// As [`leave_room`](Self::leave_room), with the waker left to be dropped when nothing else is left to be done.
    fn give_up_room(&self, place: Place) -> Option<Waker> {
        let Place { waiter, listener } = place;
        if listener.discard() && waiter.phase.leave() == Phase::Called {
            self.act(self.word.change(|state| state.pass_room(self.max)));
        }
        waiter.take_waker()
    }

    // What waits for all tokens to be back.

    /// Lines up for the moment when no token is out; `None` if that is now.
    #[cold]
    pub(crate) fn watch(&self, waker: &Waker) -> Option<Place> {
        if self.state().is_whole() {
            return None;
        }
        let waiter = Waiter::new(0, waker);
        self.watching.add();
        let place = Place::new(waiter, &self.whole);
        // L3, with ASIDE for QUEUED.
        if self.word.change(State::await_all) {
            self.unwatch(place);
            return None;
        }
        Some(place)
    }

    #[cold]
    pub(crate) fn unwatch(&self, place: Place) {
        let Place { waiter, listener } = place;
        listener.discard();
        self.watching.sub(1);
        let waker = waiter.take_waker();
        // If it was the last one, ASIDE is of no more use.
        self.act(self.word.change(State::call));
        drop(waker);
    }

    // The server.

    #[inline]
    pub(crate) fn act(&self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Serve => self.serve(),
            Action::Call => self.call(),
        }
    }

    /// Tokens have come, and newcomers may pass: has nobody been called for them, or for too long?
    #[cold]
    fn call(&self) {
        if !self.patience.spend() {
            self.act(self.word.change(State::call));
        }
    }

    /// Serves the line. SERVING has been set for it.
    #[cold]
    fn serve(&self) {
        // Declared first, dropped last: L5.
        let mut wakes = Wakes::new();
        // What was told to a server that has stepped back went out with AGAIN: is there anything to do, and does nobody else?
        while !self.serve_or_step_back(&mut wakes) && self.word.change(|state| state.resume(self.max)) != Action::Nothing {}
    }

    /// Serves the line; false if others have changed the word under it too often.
    fn serve_or_step_back(&self, wakes: &mut Wakes) -> bool {
        let mut desk = self.desk.open();
        let mut tries = TRIES;
        loop {
            // From here on, AGAIN tells of what has changed since.
            let mut seen = self.word.look();
            if seen.is_changed() {
                seen = self.word.change(|state| (state.attend(), state.attend()));
            }
            let plan = if seen.is_closed() { self.dismiss(seen, &mut desk, wakes) } else { self.plan(seen, &mut desk, wakes) };
            if plan.rests {
                // Back it goes, for the next server may come as soon as the word says that this one rests.
                desk.close();
            }
            if self.word.replace(seen, plan.next) {
                self.hand_over(plan.grants, wakes);
                if plan.rests {
                    return true;
                }
                continue;
            }
            desk.put_back(plan.grants);
            tries -= 1;
            if tries == 0 {
                desk.close();
                self.word.change(|state| (state.step_back(), ()));
                return false;
            }
        }
    }

    /// Tells waiters that they have their tokens. Those of one that has left meanwhile go back.
    fn hand_over(&self, grants: Few<Arc<Waiter>>, wakes: &mut Wakes) {
        let (mut served, mut late) = (0, 0);
        grants.for_each(|waiter| match waiter.tell(Phase::Granted) {
            Ok(waker) => {
                served += 1;
                wakes.push(waker);
            }
            Err(_) => late += waiter.need,
        });
        if served > 0 {
            self.waiting.sub(served);
        }
        if late > 0 {
            self.give(late as usize);
        }
    }

    /// What there is to do in an open bucket.
    fn plan(&self, seen: State, desk: &mut OpenDesk<'_>, wakes: &mut Wakes) -> Plan {
        let room = seen.has_releasers() && (seen.available() >= i64::from(self.max) || self.call_releaser(wakes));
        desk.bring_back(seen);
        let mut left = seen;
        let mut grants = Few::new();
        // Those who have been called, but for too long, keep their place.
        let mut late = Vec::new();
        // Whether there may be more to do after the grants.
        let mut is_cut = false;
        let (queued, shut) = loop {
            if grants.len() == BATCH {
                is_cut = true;
                break (true, false);
            }
            let Some(waiter) = self.candidate(left, desk) else {
                // With tokens in hand the whole line has been seen.
                let queued = left.available() <= 0 && self.others_wait(grants.len());
                break (queued || !late.is_empty(), queued && self.is_fifo());
            };
            match waiter.phase.load() {
                Phase::Waiting => {}
                Phase::Called if self.patience.is_left() => {
                    desk.push_front(waiter);
                    break (true, false);
                }
                Phase::Called => {
                    late.push(waiter);
                    continue;
                }
                Phase::Granted | Phase::Closed | Phase::Gone => continue,
            }
            let fits = left.available() >= i64::from(waiter.need);
            let is_first = self.is_fifo() || waiter.strikes.get() >= STRIKES;
            if fits && is_first {
                left = left.grant(waiter.need);
                grants.push(waiter);
                continue;
            }
            let reaches = left.reaches(waiter.need);
            if grants.len() > 0 && (fits || !reaches) {
                // Nobody is called or steps aside before those in front have their tokens, for they may yet come back.
                desk.push_front(waiter);
                is_cut = true;
                break (true, false);
            }
            if !reaches {
                // Behind one that keeps its place it does so too: aside, it would come before that one.
                if late.is_empty() {
                    desk.put_aside(waiter);
                } else {
                    late.push(waiter);
                }
                continue;
            }
            if fits {
                // First this, then the phase: see `Patience`.
                self.patience.set(PATIENCE);
                let Ok(waker) = waiter.tell(Phase::Called) else {
                    self.patience.set(0);
                    continue;
                };
                wakes.push(waker);
            } else if left.available() > 0 {
                waiter.strikes.add();
            }
            let shut = !fits && (self.is_fifo() || waiter.strikes.get() >= STRIKES);
            desk.push_front(waiter);
            break (true, shut);
        };
        while let Some(waiter) = late.pop() {
            desk.push_front(waiter);
        }
        let watched = self.watching.get() > 0;
        // Before anybody is told that all tokens are back, it is made sure that they stay.
        let all_back = watched && left.is_whole();
        let told = all_back && grants.len() == 0 && seen.stays_whole();
        if told {
            self.call_watchers(wakes);
        }
        // Grants may have made room for a releaser.
        let goes_on = (all_back && !told) || (grants.len() > 0 && (is_cut || room));
        let rest = Rest { queued, shut, room, aside: watched || desk.has_aside() };
        let next = match goes_on {
            false => left.rest(rest),
            true if all_back => left.shut(),
            true => left,
        };
        Plan { grants, next, rests: !goes_on }
    }

    /// Sends everybody home.
    fn dismiss(&self, seen: State, desk: &mut OpenDesk<'_>, wakes: &mut Wakes) -> Plan {
        let line = core::iter::from_fn(|| waiter::next_few(&self.queue, BATCH)).flatten();
        let mut dismissed = 0;
        for waiter in desk.clear().chain(line) {
            if let Ok(waker) = waiter.tell(Phase::Closed) {
                dismissed += 1;
                wakes.push(waker);
            }
        }
        self.waiting.sub(dismissed);
        if seen.has_releasers() {
            while self.call_releaser(wakes) {}
        }
        let watched = self.watching.get() > 0;
        if watched && seen.stays_whole() {
            self.call_watchers(wakes);
        }
        Plan { grants: Few::new(), next: seen.rest(Rest { aside: watched, ..Rest::default() }), rests: true }
    }

    /// The next waiter: from the desk, or else from the queue. As nobody is to be taken out of that in vain, no more than
    /// there are tokens (or one, if it is only to be called).
    fn candidate(&self, left: State, desk: &mut OpenDesk<'_>) -> Option<Arc<Waiter>> {
        desk.pop_front().or_else(|| match usize::try_from(left.available()) {
            Err(_) | Ok(0) => None,
            Ok(count) if count > 1 && self.is_fifo() => {
                desk.push_back(waiter::next_few(&self.queue, count.min(BATCH))?);
                desk.pop_front()
            }
            Ok(_) => waiter::next(&self.queue),
        })
    }

    /// Whether there may be waiters other than `known` ones. Too often yes does no harm: the next server finds out. If it
    /// is no because one of the known has just left, that one has changed the word before ([`Line::leave`]).
    fn others_wait(&self, known: usize) -> bool {
        self.waiting.get() > known
    }

    /// Calls the first releaser in its line; false if there is none.
    fn call_releaser(&self, wakes: &mut Wakes) -> bool {
        core::iter::from_fn(|| waiter::next(&self.room))
            .find_map(|waiter| waiter.tell(Phase::Called).ok())
            .map(|waker| wakes.push(waker))
            .is_some()
    }

    /// Calls all who wait for all tokens to be back. They are until the last one has been told: nobody has lined up since who
    /// holds one.
    fn call_watchers(&self, wakes: &mut Wakes) {
        for waiter in core::iter::from_fn(|| waiter::next(&self.whole)) {
            wakes.push(waiter.tell(Phase::Called).ok().flatten());
        }
    }
}

impl Place {
    fn new(waiter: Arc<Waiter>, event: &Event) -> Self {
        let (waiter, listener) = waiter.listen(event);
        Self { waiter, listener }
    }

    /// Gives up the place of a waiter that has got its tokens: nothing but the listener is left to be cleared away.
    #[cold]
    pub(crate) fn leave_served(self) {
        self.listener.discard();
    }

    /// Whether one who is not to be granted anything still waits, then with `waker`. If not, it has been called.
    #[cold]
    pub(crate) fn waits(&self, waker: &Waker) -> bool {
        self.waiter.set_waker(waker);
        self.waiter.phase.load() == Phase::Waiting
    }
}

impl Taken<'_> {
    fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.line.give(self.count as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_was_aside_leaves_nothing_in_the_word() {
        let line = Line::new(8, 2);
        let mut places = [3, 4].map(|n| {
            line.enqueue(n, Waker::noop())
                .map(|(place, action)| {
                    line.act(action);
                    Some(place)
                })
                .unwrap()
        });
        line.take(1).unwrap();
        line.give(1);
        for place in &mut places {
            assert_ne!(line.state(), State::new(2));
            line.cancel(place.take().unwrap());
        }
        assert_eq!(line.state(), State::new(2));
    }

    /// ASIDE stays no longer than there is need, for with it no return of tokens is a plain one.
    #[test]
    fn one_who_watched_leaves_nothing_in_the_word() {
        let line = Line::new(2, 2);
        for leaves_early in [true, false] {
            line.take(1).unwrap();
            let place = line.watch(Waker::noop()).expect("one is out");
            if leaves_early {
                line.unwatch(place);
                line.give(1);
            } else {
                line.give(1);
                line.unwatch(place);
                line.take(1).unwrap();
                line.give(1);
            }
            assert_eq!(line.state(), State::new(2));
        }
    }
}
