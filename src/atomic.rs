//! The atomic cells: except for `sync.rs`, no other file names an [`Ordering`].
//!
//! The second of the crate's three arguments: *what was done before is seen*.
//!
//! * The word is changed by read-modify-writes only, so a change never starts from a stale word. Each releases what its
//!   thread did before, and acquires what every earlier change released: an unbroken chain of read-modify-writes is one
//!   release sequence. Hence a take happens-after the return, refill or resize that made its tokens available.
//! * The queue's [`Slot`](crate::sync::Slot) is swapped as a whole, with acquire and release. Hence each owner sees what the
//!   owners before it did.
//! * A waiter's phase passes on what the owner has seen, to the waiter that finds its tokens granted.
//! * Two cells notify the owner of answers: the flag that some are unseen, and the ticket of one. They carry the phase of the
//!   waiter that has answered.
//! * Counters are hints.

use crate::state::State;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{const_fn, load_exact};

/// The word.
pub(crate) struct AtomicState(AtomicU64);

impl AtomicState {
    const_fn! {
        pub(crate) const fn new(state: State) -> Self {
            Self(AtomicU64::new(state.bits()))
        }
    }

    /// A recent word. A thread that acts on it must pass through [`update`](Self::update).
    #[inline]
    pub(crate) fn load(&self) -> State {
        // ORDERING: Acquire, with the Release half of every change: a getter that shows tokens to be back shows
        // what was done before they came back, and a refusal is ordered after what it is based on.
        State::from_bits(self.0.load(Ordering::Acquire))
    }

    /// As [`load`](Self::load). Under loom it always reads the newest word, see `sync.rs`.
    #[inline]
    pub(crate) fn load_exact(&self) -> State {
        State::from_bits(load_exact(&self.0))
    }

    /// Applies a transition, or leaves the word as it is where the transition refuses.
    #[inline]
    pub(crate) fn update<R, E>(&self, mut transition: impl FnMut(State) -> Result<(State, R), E>) -> Result<R, E> {
        let mut seen = self.load();
        loop {
            let (next, result) = transition(seen)?;
            // ORDERING: AcqRel, with itself: tokens that come back release, the take that gets them acquires.
            // On failure Acquire, as in `load`, for the transition may refuse because of it.
            match self.0.compare_exchange_weak(seen.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(result),
                Err(actual) => seen = State::from_bits(actual),
            }
        }
    }

    /// As [`update`](Self::update), for a transition without a result; false if it refuses.
    #[inline]
    pub(crate) fn try_update(&self, mut transition: impl FnMut(State) -> Option<State>) -> bool {
        self.update(|state| transition(state).map(|next| (next, ())).ok_or(())).is_ok()
    }

    /// As [`update`](Self::update), for a transition that is never refused.
    #[inline]
    pub(crate) fn change<R>(&self, mut transition: impl FnMut(State) -> (State, R)) -> R {
        let Ok(result) = self.update(|state| Ok::<_, core::convert::Infallible>(transition(state)));
        result
    }
}

/// Where a waiter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In the queue or the inbox.
    Waiting,
    /// Woken to try for itself; still at its place in the queue.
    Woken,
    /// It has what it waited for: that many tokens, or 0 where it waited for something else.
    Granted(u32),
    /// The bucket was closed.
    Closed,
    /// It has left: dropped, or served by itself. (A waiter that removed its own entry may stay `Woken`: its phase is not looked at
    /// again.)
    Gone,
}

/// A phase in 32 bits: the variant in the lowest three, the count above.
pub(crate) struct AtomicPhase(AtomicU32);

const PHASE_BITS: u32 = 3;
const _: () = assert!(crate::state::MAX_CAPACITY <= u32::MAX >> PHASE_BITS);

impl Phase {
    const fn bits(self) -> u32 {
        match self {
            Self::Waiting => 0,
            Self::Woken => 1,
            Self::Granted(count) => 2 | count << PHASE_BITS,
            Self::Closed => 3,
            Self::Gone => 4,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match bits & ((1 << PHASE_BITS) - 1) {
            0 => Self::Waiting,
            1 => Self::Woken,
            2 => Self::Granted(bits >> PHASE_BITS),
            3 => Self::Closed,
            _ => Self::Gone,
        }
    }
}

impl AtomicPhase {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(AtomicU32::new(phase.bits()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Phase {
        // ORDERING: Acquire, with the Release of `change`: a waiter that finds itself granted sees what the
        // owner saw, which is what was done before its tokens came back.
        Phase::from_bits(self.0.load(Ordering::Acquire))
    }

    /// `from → to`, if the waiter stands there.
    pub(crate) fn change(&self, from: Phase, to: Phase) -> Result<(), Phase> {
        // ORDERING: Release, with `load` and `leave`. On success nothing is acquired: what goes with a phase is in a `Slot`. On
        // failure Acquire, with `leave`.
        self.0.compare_exchange(from.bits(), to.bits(), Ordering::Release, Ordering::Acquire).map(drop).map_err(Phase::from_bits)
    }

    /// Leaves the queue, and tells where the waiter stood.
    pub(crate) fn leave(&self) -> Phase {
        // ORDERING: Acquire, with the Release of `change`: a waiter that leaves with a grant gives the tokens back, and a thread
        // that takes them then must see what was done before they were handed to this one, past the word. Release, with the failure
        // of `change`: an owner that finds the waiter gone sees what was changed before that. (No model shows either: the slot of
        // the queue orders the first, too, and loom reads the newest word.)
        Phase::from_bits(self.0.swap(Phase::Gone.bits(), Ordering::AcqRel))
    }
}

/// A counter.
pub(crate) struct Count(AtomicUsize);

impl Count {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicUsize::new(0))
        }
    }

    // ORDERING: Relaxed for all: such a number is a hint.

    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: usize) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number, or 0 if something was subtracted that is only about to be added.
    #[inline]
    pub(crate) fn get(&self) -> usize {
        let n = self.0.load(Ordering::Relaxed);
        if n > usize::MAX / 2 { 0 } else { n }
    }

    #[inline]
    pub(crate) fn set(&self, n: usize) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// A note for the owner of the queue: a waiter has changed its phase.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }
    }

    pub(crate) fn raise(&self) {
        // ORDERING: Release, with `take`: an owner that finds the flag raised sees the phase of the waiter that raised it. It may
        // find it before RECHECK is set, and does not find it a second time. (A swap: a store would hide what was released before
        // it.)
        self.0.swap(true, Ordering::Release);
    }

    /// Lowers it; true if it was raised.
    pub(crate) fn take(&self) -> bool {
        // ORDERING: Acquire, with `raise`.
        self.0.swap(false, Ordering::Acquire)
    }
}

/// A number that only owners of the queue set. A waiter gets its own once an owner has woken it.
pub(crate) struct Ticket(AtomicU64);

impl Ticket {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    // ORDERING: Relaxed for both, as owners follow each other by the slot of the queue, and a waiter has acquired the phase of the
    // owner that woke it.

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, ticket: u64) {
        self.0.store(ticket, Ordering::Relaxed);
    }
}

/// Room for the ticket of one waiter.
pub(crate) struct Answer(AtomicU64);

impl Answer {
    const NONE: u64 = u64::MAX;

    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicU64::new(Self::NONE))
        }
    }

    /// False if there is no room.
    pub(crate) fn put(&self, ticket: u64) -> bool {
        // ORDERING: Release, with `take`: an owner may find the ticket before the waiter has changed the word, and does not find it
        // a second time. So it must see the phase of the waiter, which sleeps.
        self.0.compare_exchange(Self::NONE, ticket, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<u64> {
        // ORDERING: Relaxed: an owner that acts on a word from after the waiter's change finds the ticket.
        match self.0.load(Ordering::Relaxed) {
            Self::NONE => None,
            // Only owners take. ORDERING: Acquire, with `put`.
            _ => Some(self.0.swap(Self::NONE, Ordering::Acquire)),
        }
    }
}

/// A right that is given out once.
pub(crate) struct Once(AtomicBool);

impl Once {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }
    }

    /// True for the first caller.
    pub(crate) fn claim(&self) -> bool {
        // ORDERING: Relaxed: it decides between callers, and carries nothing from one to another.
        !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Relaxed)
    }
}
