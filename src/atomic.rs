//! The atomic cells: the only file that names an [`Ordering`].
//!
//! This file is the second of the crate's three arguments: *what was done before is seen*.
//!
//! * The word is changed by read-modify-writes only, so a change never starts from a stale word. Each releases what its
//!   thread did before and acquires what every earlier change released (an unbroken chain of read-modify-writes is one
//!   release sequence). A take therefore happens after the return, refill or resize that made its tokens available.
//! * A waiter's phase carries that on from the server, who granted, to the waiter, who finds the grant.
//! * Counters carry no data. Whoever acts on one has ordered it by the word, as told at each.

use crate::state::State;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{const_fn, look};

/// The word.
pub(crate) struct AtomicState(AtomicU64);

impl AtomicState {
    const_fn! {
        pub(crate) const fn new(state: State) -> Self {
            Self(AtomicU64::new(state.bits()))
        }
    }

    /// A recent word; whoever acts on it passes by [`update`](Self::update) or [`replace`](Self::replace).
    #[inline]
    pub(crate) fn load(&self) -> State {
        // ORDERING: Acquire, with the Release half of every change: a getter that shows tokens to be back shows
        // what was done before they came back, and a refusal is ordered after what it is based on.
        State::from_bits(self.0.load(Ordering::Acquire))
    }

    /// As [`load`](Self::load), for the server.
    pub(crate) fn look(&self) -> State {
        State::from_bits(look(&self.0))
    }

    /// Applies a transition, or leaves the word as it is where that refuses.
    ///
    /// The word is written even if the transition leaves it equal: that it was read at its newest is what counts.
    #[inline]
    pub(crate) fn update<R, E>(&self, mut transition: impl FnMut(State) -> Result<(State, R), E>) -> Result<R, E> {
        let mut seen = self.load();
        loop {
            let (next, result) = transition(seen)?;
            match self.replace_weak(seen, next) {
                Ok(()) => return Ok(result),
                Err(actual) => seen = actual,
            }
        }
    }

    #[inline]
    fn replace_weak(&self, seen: State, next: State) -> Result<(), State> {
        // ORDERING: AcqRel, with itself: tokens that come back release, the take that gets them acquires.
        // On failure Acquire, as in `load`, for the transition may refuse on the strength of it.
        self.0
            .compare_exchange_weak(seen.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(State::from_bits)
    }

    /// As [`update`](Self::update), for a transition without a result; false if it refuses.
    #[inline]
    pub(crate) fn try_change(&self, mut transition: impl FnMut(State) -> Option<State>) -> bool {
        self.update(|state| transition(state).map(|next| (next, ())).ok_or(())).is_ok()
    }

    /// As [`update`](Self::update), for a transition that is never refused.
    pub(crate) fn change<R>(&self, mut transition: impl FnMut(State) -> (State, R)) -> R {
        let Ok(result) = self.update(|state| Ok::<_, core::convert::Infallible>(transition(state)));
        result
    }

    /// Replaces exactly the word that the server has looked at; false if it is another one by now.
    pub(crate) fn replace(&self, seen: State, next: State) -> bool {
        // ORDERING: AcqRel, as in `replace_weak`: the server's grant stands between a return and a waiter. On failure
        // Relaxed, as the word is looked at anew.
        self.0.compare_exchange(seen.bits(), next.bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Where a waiter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// In the line.
    Waiting,
    /// Woken to try for itself; still at its place in the line.
    Called,
    /// It has what it asked for.
    Granted,
    /// The bucket was closed.
    Closed,
    /// It has left: served, or dropped.
    Gone,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Waiting, Self::Called, Self::Granted, Self::Closed, Self::Gone];
}

pub(crate) struct AtomicPhase(AtomicU8);

impl AtomicPhase {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    #[inline]
    pub(crate) fn load(&self) -> Phase {
        // ORDERING: Acquire, with the Release of `change`: a waiter that finds itself granted sees what the
        // server saw, which is what was done before its tokens came back.
        Phase::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }

    /// `from → to`, if it stands there.
    pub(crate) fn change(&self, from: Phase, to: Phase) -> Result<(), Phase> {
        // ORDERING: Release, with `load`. Nothing is acquired, nor on failure: what goes with a phase is in a `Slot`.
        self.0
            .compare_exchange(from as u8, to as u8, Ordering::Release, Ordering::Relaxed)
            .map(drop)
            .map_err(|phase| Phase::ALL[usize::from(phase)])
    }

    /// Leaves the line, and says where the waiter stood.
    pub(crate) fn leave(&self) -> Phase {
        // ORDERING: Relaxed: a grant that is given back goes through the word, which has the rest.
        Phase::ALL[usize::from(self.0.swap(Phase::Gone as u8, Ordering::Relaxed))]
    }
}

/// How many there are of something: a hint, or ordered by the word where a decision hangs on it.
pub(crate) struct Count(AtomicUsize);

impl Count {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicUsize::new(0))
        }
    }

    // ORDERING: Relaxed for all, as the word orders them. One more is counted before a change of the word: who has seen the change
    // sees the count. One less is counted after a change of the word. If that comes after a change that the reader made later, it
    // has acquired that one, so what the reader read came before the count. So a reader who saw the count finds the word changed.

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: usize) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A flag of the server's own.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    const_fn! {
        pub(crate) const fn new(value: bool) -> Self {
            Self(AtomicBool::new(value))
        }
    }

    // ORDERING: Relaxed for both: servers follow each other by the word.

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// How many returns of tokens may still pass before somebody else is called than the waiter that is on its way.
pub(crate) struct Patience(AtomicU32);

impl Patience {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    // ORDERING: Relaxed for all: whoever ends the wait changes the word afterwards, and whoever spends patience
    // has changed the word before, so one of the two sees the other.

    pub(crate) fn set(&self, returns: u32) {
        // A swap, for loom takes it that a store may also come before the change which `spend` makes to an older one.
        self.0.swap(returns, Ordering::Relaxed);
    }

    pub(crate) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Lets one return pass; false if there is no patience left.
    pub(crate) fn spend(&self) -> bool {
        let mut left = self.0.load(Ordering::Relaxed);
        while left > 0 {
            match self.0.compare_exchange_weak(left, left - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(actual) => left = actual,
            }
        }
        false
    }
}
