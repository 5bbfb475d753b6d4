//! The state word: capacity, available tokens and a summary of the wait queue, in 64 bits.
//!
//! The first of the crate's three arguments: *the arithmetic is right*. Each change of a bucket is one pure function
//! `State -> State` in this file. Nothing here touches shared memory: `atomic.rs` makes the changes atomic, and `combiner.rs`
//! decides who makes them.
//!
//! ```text
//!  63            35 34           7    6         5            4             3          2          1         0
//! +----------------+--------------+-------+------------+-------------+----------+--------+-----------+------+
//! | available (29) | capacity (28)|RECHECK|HAS_DEFERRED|HAS_RELEASERS|NO_BARGING|BYPASSED|HAS_WAITERS|CLOSED|
//! +----------------+--------------+-------+------------+-------------+----------+--------+-----------+------+
//!       signed
//! ```
//!
//! `available` is the most significant field and signed, so one comparison with the word tells whether `n` tokens are available,
//! and one addition to it changes their number.
//!
//! | flag          | meaning                                                            | set by                                                    | cleared by |
//! |---------------|--------------------------------------------------------------------|-----------------------------------------------------------|------------|
//! | CLOSED        | no take, release or resize succeeds any more                       | `close`                                                   | never      |
//! | HAS_WAITERS   | takers may be queued: a return must serve them                     | the owner, an arrival in the inbox                        | the owner  |
//! | BYPASSED      | tokens were taken ahead of the queue since the last return         | a take with HAS_WAITERS                                   | the owner  |
//! | NO_BARGING    | callers must queue even if tokens are available                    | as HAS_WAITERS, and a change that finds the queue owned   | the owner  |
//! | HAS_RELEASERS | releasers may be queued: a take from a full bucket must serve them | as HAS_WAITERS                                            | the owner  |
//! | HAS_DEFERRED  | requests above the capacity, or watchers, may be queued            | as HAS_WAITERS                                            | the owner  |
//! | RECHECK       | the owner of the queue must look at the bucket and the inbox again | a thread that finds the queue owned, an owner that yields | the owner  |
//!
//! The *owner* is the thread that holds the wait queue, see `combiner.rs`.
//!
//! Invariants, kept by every transition and checked by property tests:
//!
//! * **S1** 0 ≤ capacity ≤ max, and capacity − max ≤ available ≤ max.
//! * **S2** A transition that refuses has no new state: the word stays as it is, bit for bit.
//! * **S3** CLOSED is never cleared, and only returned tokens change the numbers of a closed bucket.
//! * **S4** No transition of a caller or waiter clears HAS_WAITERS, NO_BARGING, HAS_RELEASERS, HAS_DEFERRED or RECHECK.
//! * **S5** If a change allows a queued waiter to proceed, [`State::concerns_waiters`] says so, given the flags that summarise
//!   the queue.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "fields are cut out of the word, and S1 bounds what is put in"
)]
#![allow(clippy::doc_markdown, reason = "the flags are in capitals, here and in the diagram")]

const FLAG_BITS: u32 = 7;
const AVAILABLE_BITS: u32 = 29;
const CAPACITY_BITS: u32 = 28;

const CAPACITY_SHIFT: u32 = FLAG_BITS;
const AVAILABLE_SHIFT: u32 = u64::BITS - AVAILABLE_BITS;
const _: () = assert!(AVAILABLE_SHIFT == FLAG_BITS + CAPACITY_BITS, "the fields fill the word");
const CAPACITY_MASK: u64 = ((1 << CAPACITY_BITS) - 1) << CAPACITY_SHIFT;
const FLAGS: u64 = (1 << FLAG_BITS) - 1;

/// One available token, as a difference of two words.
const ONE_TOKEN: u64 = 1 << AVAILABLE_SHIFT;

const CLOSED: u64 = 1;
const HAS_WAITERS: u64 = 1 << 1;
const BYPASSED: u64 = 1 << 2;
const NO_BARGING: u64 = 1 << 3;
const HAS_RELEASERS: u64 = 1 << 4;
const HAS_DEFERRED: u64 = 1 << 5;
const RECHECK: u64 = 1 << 6;
const _: () = assert!(RECHECK << 1 == FLAGS + 1);

/// The flags that summarise the wait queue. Only the owner clears them.
const SUMMARY: u64 = HAS_WAITERS | NO_BARGING | HAS_RELEASERS | HAS_DEFERRED;

/// The largest capacity that a bucket can have.
pub(crate) const MAX_CAPACITY: u32 = (1 << CAPACITY_BITS) - 1;
// `available` lies in -MAX_CAPACITY..=MAX_CAPACITY.
const _: () = assert!((MAX_CAPACITY as i64) < 1 << (AVAILABLE_BITS - 1));

/// The word of a bucket, as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

/// Why a transition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    /// Not enough tokens, or not enough room.
    NotNow,
    /// More than the bucket can ever hold.
    ExceedsMax,
}

/// What became of returned tokens. The rest did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Tokens that are available again.
    pub(crate) restored: usize,
    /// Tokens that paid off a deficit.
    pub(crate) paid: usize,
}

impl Given {
    pub(crate) const fn fitted(self) -> usize {
        self.restored + self.paid
    }
}

/// The kinds of waiters, as far as the word tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Waits for tokens.
    Take,
    /// Waits for room.
    Release,
    /// Waits until no token is outstanding.
    Idle,
    /// Waits until no deficit is left.
    Settled,
}

/// The flags that describe a wait queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary(u64);

impl Summary {
    pub(crate) const HAS_WAITERS: Self = Self(HAS_WAITERS);
    pub(crate) const NO_BARGING: Self = Self(NO_BARGING);
    pub(crate) const HAS_RELEASERS: Self = Self(HAS_RELEASERS);
    pub(crate) const HAS_DEFERRED: Self = Self(HAS_DEFERRED);

    /// With the flags of `other`, if that holds.
    #[inline]
    pub(crate) const fn with(self, other: Self, holds: bool) -> Self {
        if holds { Self(self.0 | other.0) } else { self }
    }

    /// A waiter of this kind; if `shut`, no newcomer may overtake it.
    pub(crate) const fn of(kind: Kind, shut: bool) -> Self {
        match kind {
            Kind::Take => Self::HAS_WAITERS.with(Self::NO_BARGING, shut),
            Kind::Release => Self::HAS_RELEASERS,
            Kind::Idle | Kind::Settled => Self::HAS_DEFERRED,
        }
    }
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
    const fn has(self, flags: u64) -> bool {
        self.0 & flags != 0
    }

    #[inline]
    pub(crate) const fn capacity(self) -> u32 {
        ((self.0 & CAPACITY_MASK) >> CAPACITY_SHIFT) as u32
    }

    /// The tokens in the bucket; negative by the deficit.
    #[inline]
    pub(crate) const fn available(self) -> i64 {
        (self.0 as i64) >> AVAILABLE_SHIFT
    }

    /// `available ≥ n`, for an `n` that fits the field: the fields below it cannot make up for a token.
    #[inline]
    const fn has_available(self, n: u32) -> bool {
        self.0 as i64 >= (n as i64) << AVAILABLE_SHIFT
    }

    /// How many tokens fit.
    #[inline]
    pub(crate) const fn room(self, max: u32) -> u64 {
        // Never negative (S1).
        (max as i64 - self.available()) as u64
    }

    #[inline]
    pub(crate) const fn is_closed(self) -> bool {
        self.has(CLOSED)
    }

    pub(crate) const fn needs_recheck(self) -> bool {
        self.has(RECHECK)
    }

    pub(crate) const fn is_bypassed(self) -> bool {
        self.has(BYPASSED)
    }

    /// How many held tokens exceed the capacity.
    fn deficit(self) -> u64 {
        (-self.available()).max(0) as u64
    }

    fn check_open(self) -> Result<(), Refused> {
        if self.has(CLOSED) { Err(Refused::Closed) } else { Ok(()) }
    }

    /// Whether no token is outstanding.
    pub(crate) const fn is_idle(self) -> bool {
        self.available() >= self.capacity() as i64
    }

    /// Whether there is no deficit.
    pub(crate) const fn is_settled(self) -> bool {
        self.available() >= 0
    }

    /// Whether there are more tokens than the capacity, so that a request above it may be satisfiable.
    #[inline]
    const fn has_surplus(self) -> bool {
        self.available() > self.capacity() as i64
    }

    /// The largest request that can be served without growth.
    #[inline]
    pub(crate) const fn satisfiable(self) -> i64 {
        if self.has_surplus() { self.available() } else { self.capacity() as i64 }
    }

    /// Whether takers may wait for a returned token, and not only for a deficit to be paid off.
    #[inline]
    pub(crate) const fn is_awaited(self) -> bool {
        self.has(HAS_WAITERS) && self.available() >= 0
    }

    /// Whether `n` returned tokens may go straight to the head of the queue: the word would first add them and then subtract them.
    ///
    /// Not with a deficit, which is paid first; nor with tokens in the bucket, which go first; nor if the return itself
    /// makes a deferred request satisfiable; nor if the head takes its tokens for itself; nor if the bucket is closed, or the owner
    /// has to recheck.
    #[inline]
    pub(crate) const fn allows_hand_off(self, n: usize) -> bool {
        self.0 >> AVAILABLE_SHIFT == 0
            && n <= self.capacity() as usize
            && self.0 & (HAS_WAITERS | NO_BARGING | CLOSED | RECHECK) == HAS_WAITERS | NO_BARGING
    }

    /// Whether the owner may have anything to do for a taker: there are tokens, or the bucket is closed, or it must recheck.
    #[inline]
    pub(crate) const fn allows_service(self) -> bool {
        self.available() > 0 || self.has(CLOSED | RECHECK)
    }

    // Transitions of callers that take.

    /// Whether a take of `n` has to wait: there are too few tokens, or they are for the queue.
    #[inline]
    pub(crate) const fn lacks(self, n: u32) -> bool {
        !self.has(CLOSED) && (self.has(NO_BARGING) || !self.has_available(n))
    }

    /// As [`take`](Self::take), if no waiter has to hear of it.
    #[inline]
    pub(crate) const fn take_fast(self, n: u32) -> Option<Self> {
        if self.has(CLOSED | NO_BARGING) || !self.has_available(n) || self.take_may_unblock() { None } else { Some(self.taken(n)) }
    }

    /// Whether a take may let a waiter proceed: a releaser, or a taker that is held up by a request which only surplus tokens can
    /// serve.
    #[inline]
    const fn take_may_unblock(self) -> bool {
        self.has(HAS_RELEASERS) || self.has(HAS_WAITERS) && self.has_surplus()
    }

    /// `min ≤ available, not NO_BARGING → available − n`, BYPASSED if takers wait; `n` is at most `up_to`.
    pub(crate) fn take(self, min: u32, up_to: u32) -> Result<(Self, u32), Refused> {
        let n = self.allowed(min, up_to)?;
        Ok((self.taken(n), n))
    }

    /// How many tokens a caller or waiter may take.
    #[inline]
    fn allowed(self, min: u32, up_to: u32) -> Result<u32, Refused> {
        self.check_open()?;
        if self.has(NO_BARGING) || !self.has_available(min) {
            return Err(Refused::NotNow);
        }
        Ok(self.at_most(up_to))
    }

    #[inline]
    const fn taken(self, n: u32) -> Self {
        const _: () = assert!(HAS_WAITERS << 1 == BYPASSED);
        Self(self.less(n).0 | ((self.0 & HAS_WAITERS) << 1))
    }

    #[inline]
    const fn less(self, n: u32) -> Self {
        Self(self.0 - n as u64 * ONE_TOKEN)
    }

    /// `up_to`, or all available tokens if they are fewer.
    #[inline]
    const fn at_most(self, up_to: u32) -> u32 {
        if self.has_available(up_to) { up_to } else { self.available() as u32 }
    }

    // Transitions of callers that give back.

    /// As [`give`](Self::give), if all fit and no waiter has to hear of it.
    #[inline]
    pub(crate) const fn give_fast(self, n: usize, max: u32) -> Option<Self> {
        if !self.has(HAS_WAITERS | HAS_DEFERRED) && n as u64 <= self.room(max) {
            Some(Self(self.0.wrapping_add((n as u64) << AVAILABLE_SHIFT)))
        } else {
            None
        }
    }

    /// `→ min(available + n, max)`
    pub(crate) fn give(self, n: usize, max: u32) -> (Self, Given) {
        let fitted = self.room(max).min(n as u64);
        let paid = fitted.min(self.deficit());
        let given = Self(self.0.wrapping_add(fitted << AVAILABLE_SHIFT));
        (given, Given { restored: (fitted - paid) as usize, paid: paid as usize })
    }

    /// `→ max(available, min(available + n, capacity))`
    pub(crate) fn top_up(self, n: usize) -> (Self, Given) {
        if self.is_idle() { (self, Given::default()) } else { self.give(n, self.capacity()) }
    }

    /// `available + n ≤ max → available + n`
    pub(crate) fn release(self, n: usize, max: u32) -> Result<Self, Refused> {
        self.check_open()?;
        if n as u64 > self.room(max) {
            return Err(Refused::NotNow);
        }
        Ok(self.give(n, max).0)
    }

    // Resize and close.

    /// `capacity → c, available → min(available + (c − capacity), max)`
    #[inline]
    pub(crate) fn set_capacity(self, capacity: u32, max: u32) -> Result<Self, Refused> {
        self.check_open()?;
        let moved = self.available() + i64::from(capacity) - i64::from(self.capacity());
        Ok(Self::pack(capacity, moved.min(i64::from(max)), self.0 & FLAGS))
    }

    /// `capacity + n ≤ max, capacity + n − available ≤ max → capacity + n`; the new tokens are the caller's.
    ///
    /// With a deficit, more tokens are held than the capacity: a later shrink must be able to ask them all back (S1).
    pub(crate) fn grow_and_take(self, n: usize, max: u32) -> Result<Self, Refused> {
        self.check_open()?;
        // S1: capacity + deficit ≤ max.
        if n as u64 > u64::from(max - self.capacity()) - self.deficit() {
            return Err(Refused::ExceedsMax);
        }
        Ok(Self::pack(self.capacity() + n as u32, self.available(), self.0 & FLAGS))
    }

    /// `n` held tokens pay off the deficit; what is left of them vanishes together with as much capacity.
    pub(crate) fn retire(self, n: usize) -> Self {
        let paid = self.deficit().min(n as u64);
        let capacity = u64::from(self.capacity()).saturating_sub(n as u64 - paid) as u32;
        Self::pack(capacity, self.available() + paid as i64, self.0 & FLAGS)
    }

    /// `→ CLOSED`
    pub(crate) const fn close(self) -> Self {
        Self(self.0 | CLOSED)
    }

    /// Whether a waiter may be able to proceed after the change from `self` to `next`. (The flags are those of `self`.)
    pub(crate) const fn concerns_waiters(self, next: Self, max: u32) -> bool {
        if !self.has(SUMMARY) {
            return false;
        }
        let (before, after) = (self.available(), next.available());
        let (capacity, resized) = (next.capacity() as i64, next.capacity() != self.capacity());
        let gained = after > before || resized;
        // A resize, or a take of surplus tokens, may have made a request unsatisfiable: then those behind it can be served.
        (self.has(HAS_WAITERS) && (gained || self.has_surplus() && after < before) && after > 0)
            // A request that the capacity does not allow may fit now; no token may be outstanding; no deficit may be left.
            || (self.has(HAS_DEFERRED) && (resized || gained && (after >= capacity || before < 0 && after >= 0)))
            || (self.has(HAS_RELEASERS) && after < max as i64 && (after < before || resized))
            || (next.has(CLOSED) && !self.has(CLOSED))
    }

    // Transitions of waiters.

    /// As [`retry`](Self::retry), if no waiter has to hear of it.
    #[inline]
    pub(crate) fn retry_fast(self, min: u32, up_to: u32) -> Option<(Self, u32)> {
        self.retry(min, up_to).ok().filter(|_| !self.take_may_unblock())
    }

    /// As [`take`](Self::take), for a waiter that was woken: it bypasses none, unless it takes more than `min`, which is what it
    /// claims.
    #[inline]
    pub(crate) fn retry(self, min: u32, up_to: u32) -> Result<(Self, u32), Refused> {
        let n = self.allowed(min, up_to)?;
        Ok((if n > min { self.taken(n) } else { self.less(n) }, n))
    }

    /// `→ RECHECK`
    pub(crate) const fn request_recheck(self) -> Self {
        Self(self.0 | RECHECK)
    }

    /// `→ RECHECK`, and the flags of `summary`, which make callers look for these waiters: they are in the inbox, or in a queue
    /// that its owner leaves before it has settled.
    pub(crate) const fn request_recheck_of(self, summary: Summary) -> Self {
        Self(self.0 | summary.0 | RECHECK)
    }

    /// `→ RECHECK`, and `→ NO_BARGING` if takers may wait: no newcomer takes the tokens that have just come before the owner has
    /// looked.
    pub(crate) const fn recheck_exclusively(self) -> Self {
        let shut = if self.has(HAS_WAITERS | HAS_DEFERRED) { NO_BARGING } else { 0 };
        Self(self.0 | RECHECK | shut)
    }

    /// Whether a taker that leaves may let another one proceed, or is the reason for a flag that slows others down.
    pub(crate) const fn needs_service(self) -> bool {
        (self.has(HAS_WAITERS) && self.available() > 0) || self.has(HAS_DEFERRED)
    }

    // Transitions of the owner.

    /// `RECHECK →`: the owner looks at everything again from here on. `BYPASSED →`: it counts that as a loss of the head.
    pub(crate) const fn clear_recheck(self) -> Self {
        Self(self.0 & !(RECHECK | BYPASSED))
    }

    /// What the owner changes to `next`.
    ///
    /// * If that brings no token and leaves the capacity: no more than that.
    /// * If there may be waiters in the inbox: no newcomer takes the tokens before these are in the queue, and the loss is
    ///   counted then.
    /// * Else `BYPASSED →`, which the owner counts as a loss, and `→ NO_BARGING` if the head is starving, or if deferred requests
    ///   may regain their places or watchers may be notified.
    pub(crate) const fn owners_change(self, next: Self, is_starving: bool) -> Self {
        if next.available() <= self.available() && next.capacity() == self.capacity() {
            return next;
        }
        if self.has(RECHECK) {
            return next.recheck_exclusively();
        }
        let shut = if is_starving || self.has(HAS_DEFERRED) { NO_BARGING } else { 0 };
        Self((next.0 & !BYPASSED) | shut)
    }

    /// `min ≤ available → available − n`, for the head, which NO_BARGING protects; `n` is at most `up_to`.
    pub(crate) const fn grant(self, min: u32, up_to: u32) -> Result<(Self, u32), Self> {
        if self.has(CLOSED) || !self.has_available(min) {
            return Err(self);
        }
        let n = self.at_most(up_to);
        Ok((self.less(n), n))
    }

    #[inline]
    pub(crate) const fn is_summarised_by(self, summary: Summary) -> bool {
        self.0 & SUMMARY == summary.0
    }

    /// `→ summary`, unless the word has changed in favour of a waiter since it was `seen`.
    #[inline]
    pub(crate) const fn settle(self, seen: Self, summary: Summary) -> Result<Self, Self> {
        let unbypassed = if summary.0 & HAS_WAITERS == 0 { BYPASSED } else { 0 };
        let settled = Self((self.0 & !(SUMMARY | unbypassed)) | summary.0);
        // A shortcut: what follows would find the same.
        if self.0 == seen.0 && !self.has(RECHECK) {
            return Ok(settled);
        }
        let gained = self.available() > seen.available() || self.capacity() != seen.capacity();
        // A newcomer took tokens before the flags showed that there are waiters.
        let unblocked = self.available() < seen.available() && Self((seen.0 & !SUMMARY) | summary.0).take_may_unblock();
        if self.has(RECHECK) || (self.0 ^ seen.0) & CLOSED != 0 || gained || unblocked {
            return Err(self);
        }
        Ok(settled)
    }
}

#[cfg(test)]
mod tests;
