//! The word: capacity, available tokens and what is known of the waiting line, in 64 bits.
//!
//! This file is the first of the crate's three arguments: *the arithmetic is right*. Every change of a bucket is
//! one pure function `State -> State` here, together with the [`Action`] that it asks for. Nothing in this file
//! touches memory that is shared; `atomic.rs` makes the changes atomic, `line.rs` carries the actions out.
//!
//! ```text
//!  63            35 34           7   6     5     4       3      2     1      0
//! +----------------+--------------+-----+----+-----+-------+----+------+------+
//! | available (29) | capacity (28)|ASIDE|ROOM|AGAIN|SERVING|SHUT|QUEUED|CLOSED|
//! +----------------+--------------+-----+----+-----+-------+----+------+------+
//!       signed
//! ```
//!
//! Available stands on top, as a signed number, so that to have `n` is one comparison with the word, and to change by
//! `n` one addition to it.
//!
//! | bit     | meaning                                                                    | set by                | cleared by  |
//! |---------|----------------------------------------------------------------------------|-----------------------|-------------|
//! | CLOSED  | no take, release or resize succeeds any more                               | `close`               | nobody      |
//! | QUEUED  | a taker may be waiting: tokens that come back are to be shown to the line  | `enqueue`, the server | the server  |
//! | SHUT    | newcomers may not take, not even what is there                             | the above, `show`, `set_capacity` | the server |
//! | SERVING | somebody, the *server*, is looking after the line and owns it              | whoever is to serve   | the server  |
//! | AGAIN   | the line has changed while it was served: look again before leaving        | everybody else        | the server  |
//! | ROOM    | a releaser may be waiting for room                                         | `enqueue_release`     | the server  |
//! | ASIDE   | somebody waits for more than the capacity is, or for all tokens to be back | the server, `await_all` | the server |
//!
//! Invariants, kept by every transition and checked by the property tests below:
//!
//! * **S1** 0 ≤ capacity ≤ max, and capacity − max ≤ available ≤ max.
//! * **S2** A transition that refuses has no new state: the word stays as it is, bit for bit.
//! * **S3** CLOSED is never cleared, and nothing but a return of tokens changes a closed word's numbers.
//! * **S4** AGAIN is set only while SERVING is.
//! * **S5** Whatever could let a waiter on yields [`Action::Serve`] or [`Action::Call`], or leaves AGAIN to the server
//!   that is at work: a return with QUEUED, a resize or the last return with ASIDE, a shrink or take with ROOM, a close.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "fields are cut out of the word, and S1 bounds what is put in"
)]

use core::fmt;

const FLAG_BITS: u32 = 7;
const AVAILABLE_BITS: u32 = 29;
const CAPACITY_BITS: u32 = 28;
const _: () = assert!(FLAG_BITS + AVAILABLE_BITS + CAPACITY_BITS == u64::BITS);

const CAPACITY_SHIFT: u32 = FLAG_BITS;
const AVAILABLE_SHIFT: u32 = FLAG_BITS + CAPACITY_BITS;
const CAPACITY_MASK: u64 = ((1 << CAPACITY_BITS) - 1) << CAPACITY_SHIFT;
const FLAGS: u64 = (1 << FLAG_BITS) - 1;

/// One available token, as a difference of two words.
const ONE_TOKEN: u64 = 1 << AVAILABLE_SHIFT;

const CLOSED: u64 = 1;
const QUEUED: u64 = 1 << 1;
const SHUT: u64 = 1 << 2;
const SERVING: u64 = 1 << 3;
const AGAIN: u64 = 1 << 4;
const ROOM: u64 = 1 << 5;
const ASIDE: u64 = 1 << 6;
const _: () = assert!(ASIDE << 1 == FLAGS + 1);

const FLAG_NAMES: [(u64, &str); FLAG_BITS as usize] = [
    (CLOSED, "CLOSED"),
    (QUEUED, "QUEUED"),
    (SHUT, "SHUT"),
    (SERVING, "SERVING"),
    (AGAIN, "AGAIN"),
    (ROOM, "ROOM"),
    (ASIDE, "ASIDE"),
];

/// The largest capacity that a bucket can have.
pub(crate) const MAX_CAPACITY: u32 = (1 << CAPACITY_BITS) - 1;
// Available lies in -MAX_CAPACITY..=MAX_CAPACITY.
const _: () = assert!((MAX_CAPACITY as i64) < 1 << (AVAILABLE_BITS - 1));

/// The word of a bucket, as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

/// What a transition leaves to be done.
#[must_use = "somebody may be waiting for this"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: nobody waits, nobody can go on, or the server at work will see it.
    Nothing,
    /// SERVING has been set for the caller: serve the line.
    Serve,
    /// Tokens are there and the line may be barged past: see whether a waiter is on its way already, else [`State::call`].
    Call,
}

/// Why a take or a deposit did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    /// Not enough tokens, or not enough room.
    NotNow,
    /// More than there can ever be. (No transition is asked for that.)
    ExceedsMax,
}

/// What the server leaves in the word when it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are bits of the word")]
pub(crate) struct Rest {
    pub(crate) queued: bool,
    pub(crate) shut: bool,
    pub(crate) room: bool,
    pub(crate) aside: bool,
}

impl State {
    pub(crate) const fn new(capacity: u32) -> Self {
        Self::pack(capacity, capacity as i64, 0)
    }

    const fn pack(capacity: u32, available: i64, flags: u64) -> Self {
        debug_assert!(capacity <= MAX_CAPACITY && available.abs() <= MAX_CAPACITY as i64 && flags <= FLAGS);
        Self(((available as u64) << AVAILABLE_SHIFT) | ((capacity as u64) << CAPACITY_SHIFT) | flags)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) const fn capacity(self) -> u32 {
        ((self.0 & CAPACITY_MASK) >> CAPACITY_SHIFT) as u32
    }

    /// The tokens in the bucket; below 0 by what a shrink has asked back.
    #[inline]
    pub(crate) const fn available(self) -> i64 {
        (self.0 as i64) >> AVAILABLE_SHIFT
    }

    /// `available ≥ n`: what stands below available in the word cannot make up for a token.
    #[inline]
    const fn has_available(self, n: u32) -> bool {
        self.0 as i64 >= (n as i64) << AVAILABLE_SHIFT
    }

    #[inline]
    pub(crate) const fn is_closed(self) -> bool {
        self.has(CLOSED)
    }

    pub(crate) const fn is_changed(self) -> bool {
        self.has(AGAIN)
    }

    pub(crate) const fn has_releasers(self) -> bool {
        self.has(ROOM)
    }

    /// Whether no token is out.
    pub(crate) fn is_whole(self) -> bool {
        self.available() >= i64::from(self.capacity())
    }

    /// Whether no token is out, and none goes out until the server has changed the word.
    pub(crate) fn stays_whole(self) -> bool {
        self.is_whole() && self.0 & (SHUT | CLOSED) != 0
    }

    /// Whether a request for `n` can be served without growth: it is within the capacity, or even there.
    pub(crate) fn reaches(self, n: u32) -> bool {
        i64::from(n) <= i64::from(self.capacity()).max(self.available())
    }

    // Transitions of takers.

    /// [`take`](Self::take), where nobody has to hear of it.
    #[inline]
    pub(crate) const fn take_plainly(self, n: u32) -> Option<Self> {
        if self.0 & (CLOSED | SHUT | ROOM) == 0 && self.has_available(n) { Some(Self(self.0 - n as u64 * ONE_TOKEN)) } else { None }
    }

    /// `available ≥ n, not SHUT → available - n`; with ROOM the line is to be served, for there is room now.
    pub(crate) fn take(self, n: u32) -> Result<(Self, Action), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        if self.has(SHUT) || !self.has_available(n) {
            return Err(Refused::NotNow);
        }
        let taken = Self(self.0 - u64::from(n) * ONE_TOKEN);
        Ok(if self.has(ROOM) { taken.summon() } else { (taken, Action::Nothing) })
    }

    /// `1 ≤ available, not SHUT → available - min(available, n)`; says how many.
    pub(crate) fn take_up_to(self, n: u32) -> Result<(Self, (Action, u32)), Refused> {
        let n = u32::try_from(self.available().clamp(1, i64::from(n))).unwrap_or(n);
        self.take(n).map(|(state, action)| (state, (action, n)))
    }

    /// A taker has lined up. It cannot be lost: whoever cleared QUEUED before looked at the line before.
    ///
    /// `→ QUEUED` (and SHUT, if newcomers may not pass). To be served at once if there are tokens that the line has not seen.
    pub(crate) fn enqueue(self, shut: bool) -> Result<(Self, Action), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        let queued = Self(self.0 | QUEUED | if shut { SHUT } else { 0 });
        let unseen = !self.has(QUEUED) && self.available() > 0;
        Ok(if self.has(SERVING) || unseen { queued.summon() } else { (queued, Action::Nothing) })
    }

    // Transitions of those who give back.

    /// [`give`](Self::give), where nobody has to hear of it and all fit.
    #[inline]
    pub(crate) const fn give_plainly(self, n: usize, max: u32) -> Option<Self> {
        // Room is never negative (S1).
        let room = (max as i64 - self.available()) as u64;
        if self.0 & (QUEUED | ASIDE) == 0 && n as u64 <= room {
            Some(Self(self.0.wrapping_add((n as u64) << AVAILABLE_SHIFT)))
        } else {
            None
        }
    }

    /// `→ min(available + n, max)`; says how many fitted.
    pub(crate) fn give(self, n: usize, max: u32) -> (Self, (Action, usize)) {
        let room = (i64::from(max) - self.available()) as u64;
        let fitted = room.min(n as u64);
        let given = Self(self.0.wrapping_add(fitted << AVAILABLE_SHIFT));
        let (state, action) = given.show();
        (state, (action, fitted as usize))
    }

    /// `→ max(available, min(available + n, capacity))`; says how many fitted.
    pub(crate) fn top_up(self, n: usize) -> (Self, (Action, usize)) {
        let room = (i64::from(self.capacity()) - self.available()).max(0) as u64;
        let fitted = room.min(n as u64) as usize;
        // Nothing that fits is nothing to show.
        if fitted == 0 { (self, (Action::Nothing, 0)) } else { self.give(fitted, MAX_CAPACITY) }
    }

    /// `available + n ≤ max → available + n`, else refused.
    pub(crate) fn release(self, n: usize, max: u32) -> Result<(Self, Action), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        let (state, (action, fitted)) = self.give(n, max);
        if fitted == n { Ok((state, action)) } else { Err(Refused::NotNow) }
    }

    /// A releaser of one has lined up: `available < max → available + 1`, else `→ ROOM`. True if it is in the bucket.
    pub(crate) fn enqueue_release(self, max: u32) -> Result<(Self, (Action, bool)), Refused> {
        match self.release(1, max) {
            Ok((state, action)) => Ok((state, (action, true))),
            // No AGAIN: a server clears ROOM only in a word with room, and the take that made the room sets AGAIN.
            Err(Refused::NotNow) => Ok((Self(self.0 | ROOM), (Action::Nothing, false))),
            Err(refused) => Err(refused),
        }
    }

    /// A releaser that had been called is done, or has gone: the next one may go on if there is room.
    pub(crate) fn pass_room(self, max: u32) -> (Self, Action) {
        if self.has(ROOM) && self.available() < i64::from(max) { self.summon() } else { (self, Action::Nothing) }
    }

    /// One waits for all tokens to be back: `available < capacity → ASIDE`. True if they are.
    pub(crate) fn await_all(self) -> (Self, bool) {
        let again = if self.has(SERVING) { AGAIN } else { 0 };
        if self.is_whole() { (self, true) } else { (Self(self.0 | ASIDE | again), false) }
    }

    // Resize and close.

    /// `capacity → c, available → min(available + (c - capacity), max)`.
    ///
    /// If newcomers may not pass (`shut`), a growth shuts them out until the server has seen whether it is for somebody ASIDE.
    #[inline]
    pub(crate) fn set_capacity(self, capacity: u32, max: u32, shut: bool) -> Result<(Self, Action), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        let change = i64::from(capacity) - i64::from(self.capacity());
        let available = (self.available() + change).min(i64::from(max));
        if self.0 & FLAGS == 0 {
            // Nobody has to hear of it.
            return Ok((Self::pack(capacity, available, 0), Action::Nothing));
        }
        let shut = if shut && change > 0 && self.has(ASIDE) { SHUT } else { 0 };
        Ok(Self::pack(capacity, available, self.0 & FLAGS | shut).resume(max))
    }

    /// `→ CLOSED`. True if it was open.
    pub(crate) fn close(self) -> (Self, (Action, bool)) {
        let closed = Self(self.0 | CLOSED);
        let (state, action) = if self.0 & (QUEUED | ASIDE | ROOM) != 0 { closed.summon() } else { (closed, Action::Nothing) };
        (state, (action, !self.is_closed()))
    }

    // Who serves.

    /// `SERVING → AGAIN`, else `→ SERVING`, and the caller serves.
    pub(crate) fn summon(self) -> (Self, Action) {
        if self.has(SERVING) { (Self(self.0 | AGAIN), Action::Nothing) } else { (Self(self.0 | SERVING), Action::Serve) }
    }

    /// Tokens have come; the line is to see them. Where newcomers may pass anyway, a waiter that is on its way will do.
    ///
    /// If they may be for somebody ASIDE who wants more than the capacity, newcomers are SHUT out until the server has seen it.
    fn show(self) -> (Self, Action) {
        let (available, capacity) = (self.available(), i64::from(self.capacity()));
        if self.has(ASIDE) && available > capacity {
            self.shut().summon()
        } else if self.has(ASIDE) && available == capacity {
            self.summon()
        } else if !self.has(QUEUED) || available <= 0 {
            (self, Action::Nothing)
        } else if self.0 & (SHUT | SERVING) == 0 {
            (self, Action::Call)
        } else {
            self.summon()
        }
    }

    /// Nobody is on its way, or somebody has left: the line is to be served if there is anything for it, or for the server to clear up.
    pub(crate) fn call(self) -> (Self, Action) {
        if self.has(ASIDE) || (self.has(QUEUED) && self.available() > 0) { self.summon() } else { (self, Action::Nothing) }
    }

    /// The line is to be served if anybody in it may be able to go on.
    pub(crate) fn resume(self, max: u32) -> (Self, Action) {
        let available = self.available();
        let due =
            self.0 & (CLOSED | ASIDE) != 0 || (self.has(QUEUED) && available > 0) || (self.has(ROOM) && available < i64::from(max));
        if due { self.summon() } else { (self, Action::Nothing) }
    }

    // Transitions of the server.

    /// `AGAIN →`: the server looks at the line from here on.
    pub(crate) const fn attend(self) -> Self {
        Self(self.0 & !AGAIN)
    }

    /// `available → available - n` for the head of the line, whom SHUT does not concern.
    pub(crate) fn grant(self, n: u32) -> Self {
        debug_assert!(self.has(SERVING) && self.has_available(n));
        Self(self.0 - u64::from(n) * ONE_TOKEN)
    }

    /// `→ SHUT`
    pub(crate) const fn shut(self) -> Self {
        Self(self.0 | SHUT)
    }

    /// `SERVING →`, with what is left to be known about the line.
    pub(crate) const fn rest(self, rest: Rest) -> Self {
        debug_assert!(self.has(SERVING) && !self.has(AGAIN));
        let mut word = self.0 & !(SERVING | QUEUED | SHUT | ROOM | ASIDE);
        if rest.queued {
            word |= QUEUED;
        }
        if rest.shut {
            word |= SHUT;
        }
        if rest.room {
            word |= ROOM;
        }
        if rest.aside {
            word |= ASIDE;
        }
        Self(word)
    }

    /// `SERVING, AGAIN → QUEUED SHUT`, before the line has been seen whole: whoever brings tokens serves, and nobody takes any.
    ///
    /// To be followed by [`resume`](Self::resume).
    pub(crate) const fn step_back(self) -> Self {
        Self(self.0 & !(SERVING | AGAIN) | QUEUED | SHUT)
    }

    #[inline]
    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} of {}", self.available(), self.capacity())?;
        for (_, name) in FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)) {
            write!(f, " {name}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
