//! The combiner: who may touch the wait queue, and why no wake-up is lost.
//!
//! The last of the crate's three arguments: *a thread whose change lets a waiter proceed makes sure that the waiter does*. The
//! technique is known as flat combining.
//!
//! The wait queue lies in a slot. **Taking it out of the slot is owning it**: one swap to own it, one to leave it. A thread whose
//! change of the word concerns waiters makes the change as the owner, and serves the queue before it leaves. If the queue is owned
//! by another thread, and still is after a few tries, it sets RECHECK in the same step as its change, and that owner serves for it.
//! Hence no thread waits for an owner that was suspended.
//!
//! A waiter that cannot reach the queue after a few tries listens on an event, the *inbox*, and sets RECHECK then. The owner moves
//! the inbox into the queue each time it finds RECHECK.
//!
//! Invariants:
//!
//! * **C1** *One owner.* The queue is in the slot or with one thread. While a thread has it, no user code runs in that thread: no
//!   waker is woken, cloned or dropped, and nothing panics.
//! * **C2** *The flags show every waiter.* When the owner leaves, HAS_WAITERS, HAS_RELEASERS and HAS_DEFERRED are set if there
//!   are such entries in the queue, NO_BARGING if the head is due. Only the owner clears them, in a step that [`State::settle`]
//!   refuses if RECHECK is set or tokens, room or capacity have come since it looked. So no change that concerns a waiter can
//!   mistake itself for one that does not:
//!   1. the owner looks, and no token is available; 2. a plain return adds one; 3. the owner sets HAS_WAITERS, and leaves: this
//!      does not happen, as step 3 is refused.
//! * **C3** *RECHECK is never overlooked.* A thread that finds the queue owned sets RECHECK **and then tries once more** to own
//!   it; an owner puts the queue back **and then looks** for RECHECK. Both put-back and try are read-modify-writes of the slot. If
//!   the try comes first, the put-back acquires what came before it, so the owner finds RECHECK. Else the try succeeds.
//! * **C4** *An arrival is seen.* A waiter listens on the inbox before it sets RECHECK. An owner clears RECHECK before it empties
//!   the inbox.
//! * **C5** *A token is in the word, or granted, or held*, or an owner is just granting it. A grant changes the waiter's phase,
//!   which succeeds once. If the waiter has left before, the owner gives the tokens back; if it leaves afterwards, the waiter does.
//! * **C6** *No newcomer takes what has just come.* A change that finds the queue owned sets NO_BARGING together with RECHECK,
//!   and a loss of the head is recorded by the newcomer's own step (BYPASSED). So a head loses [`STARVING_AFTER`] times at most.
//!   (Takes between two returns are one loss.)
//! * **C7** *An owner comes to an end.* After [`MAX_ROUNDS`] rounds that other threads caused, it puts the queue back for a
//!   while, and continues only if it is free then.
//! * **C8** *An answer is seen.* A waiter that was woken and sleeps again changes its phase, leaves its ticket, **and then**
//!   changes the word. If that shows tokens, it asks for service. Else tokens come by a later change, and the owner that serves for
//!   that change finds the ticket, unless an earlier one has. Either sees that the waiter sleeps. There is room for one ticket; a
//!   waiter that finds none asks for service.
//!
//! [`STARVING_AFTER`]: crate::queue::STARVING_AFTER

#![allow(clippy::doc_markdown, reason = "the flags are in capitals, as in `state.rs`")]
#![allow(clippy::single_match_else, reason = "both arms are of one kind")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem;

use event_listener::Event;

use crate::Fairness;
use crate::atomic::{Answer, AtomicState, Count, Flag, Once, Phase};
use crate::queue::{Next, WaitQueue};
use crate::state::{Kind, State};
use crate::sync::{Backoff, Slot, const_fn, loom_or};
use crate::waiter::{Waiter, WakeList, empty_inbox};

mod change;
mod wait;

/// How often an owner serves at the request of other threads before it offers them the queue.
const MAX_ROUNDS: u32 = loom_or(2, 8);

/// How often a thread that finds the queue owned tries again: it only spins.
const TRIES: u32 = loom_or(0, 6);
/// As [`TRIES`], before a waiter goes to the inbox: the last tries yield the processor.
const TRIES_TO_ENQUEUE: u32 = loom_or(0, 11);

type Queue = Box<WaitQueue<Arc<Waiter>>>;

pub(crate) struct Combiner {
    state: AtomicState,
    max: u32,
    fairness: Fairness,
    /// Empty while a thread owns the queue, and before the first waiter comes.
    queue: Slot<Queue>,
    queue_exists: Once,
    /// Where waiters go that find the queue owned.
    inbox: Event,
    /// Entries of takers in the queue; how many of them, and of all others, are dead.
    takers: Count,
    dead_takers: Count,
    dead_others: Count,
    /// The ticket of a taker that was woken and sleeps again (**C8**).
    answer: Answer,
    /// Waiters have answered or left while the queue was owned, and have left no ticket.
    unseen_answers: Flag,
}

/// Runs user code. If that panics, disposes of the tokens for which there is no guard yet.
#[inline]
pub(crate) fn on_unwind(dispose: impl FnMut(), run: impl FnOnce()) {
    struct Unwinding<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Unwinding<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let unwinding = Unwinding(dispose);
    run();
    mem::forget(unwinding);
}

impl Combiner {
    const_fn! {
        pub(crate) const fn new(max: u32, capacity: u32) -> Self {
            Self {
                state: AtomicState::new(State::new(capacity)),
                max,
                fairness: Fairness::Fifo,
                queue: Slot::new(None),
                queue_exists: Once::new(),
                inbox: Event::new(),
                takers: Count::new(),
                dead_takers: Count::new(),
                dead_others: Count::new(),
                answer: Answer::new(),
                unseen_answers: Flag::new(),
            }
        }
    }

    pub(crate) const fn set_fairness(&mut self, fairness: Fairness) {
        self.fairness = fairness;
    }

    pub(crate) const fn fairness(&self) -> Fairness {
        self.fairness
    }

    const fn is_fifo(&self) -> bool {
        matches!(self.fairness, Fairness::Fifo)
    }

    #[inline]
    pub(crate) const fn max(&self) -> u32 {
        self.max
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.load()
    }

    /// Takers in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.takers.get().saturating_sub(self.dead_takers.get())
    }

    // Ownership.

    /// Owns the queue if it is free.
    #[inline]
    fn try_own(&self) -> Option<Queue> {
        self.queue.take().or_else(|| self.create())
    }

    /// Owns the queue, if necessary after a few more tries: another thread owns it for a moment only, unless it was suspended.
    ///
    /// RECHECK would cost more: it shuts newcomers out until the owner has served once more.
    #[inline]
    fn own(&self) -> Option<Queue> {
        self.own_within(TRIES)
    }

    #[inline]
    fn own_within(&self, more_tries: u32) -> Option<Queue> {
        self.try_own().or_else(|| self.keep_trying(more_tries))
    }

    #[cold]
    fn keep_trying(&self, tries: u32) -> Option<Queue> {
        let backoff = Backoff::new();
        (0..tries).find_map(|_| {
            backoff.snooze();
            self.try_own()
        })
    }

    #[cold]
    fn create(&self) -> Option<Queue> {
        if self.queue_exists.claim() { Some(Box::new(WaitQueue::new(self.is_fifo()))) } else { None }
    }

    /// RECHECK has been set because the queue was owned: serves it if it is not any more (**C3**).
    fn serve_if_free(&self, wakes: &mut WakeList) {
        if let Some(queue) = self.try_own() {
            self.serve(queue, self.state.load_exact(), wakes);
        }
    }

    /// A waiter was woken and has answered, or has left: the queue is looked at by this thread, or by the one that owns it.
    #[cold]
    fn request_service(&self, waiter: &Arc<Waiter>, wakes: &mut WakeList) {
        match self.own() {
            Some(mut queue) => {
                self.note_answer(&mut queue, waiter);
                self.serve(queue, self.state.load_exact(), wakes);
            }
            None => self.recheck_answer(wakes),
        }
    }

    /// A waiter has answered or left while the queue was owned: the owner looks at all of them again.
    fn recheck_answer(&self, wakes: &mut WakeList) {
        self.unseen_answers.raise();
        self.state.change(|state| (state.request_recheck(), ()));
        self.serve_if_free(wakes);
    }

    /// Puts the queue back; it is returned if the caller has to serve again.
    #[inline]
    fn leave(&self, queue: Queue) -> Option<Queue> {
        self.put_back(queue);
        // C3: first the queue, then the word.
        if self.state.load_exact().needs_recheck() { self.try_own() } else { None }
    }

    /// As [`leave`](Self::leave), and gives other threads time to take over (**C7**).
    #[cold]
    fn yield_ownership(&self, queue: Queue) -> Option<Queue> {
        // The next owner looks at everything, whatever it has come for. Until then, the flags show every waiter (C2).
        let summary = queue.summary();
        self.state.change(|state| (state.request_recheck_of(summary), ()));
        self.put_back(queue);
        let backoff = Backoff::new();
        while !backoff.is_completed() {
            backoff.snooze();
        }
        self.try_own()
    }

    #[inline]
    fn put_back(&self, mut queue: Queue) {
        self.takers.set(queue.takers());
        if let Some((takers, others)) = queue.take_removed() {
            self.dead_takers.sub(takers);
            self.dead_others.sub(others);
        }
        let empty = self.queue.swap(Some(queue));
        debug_assert!(empty.is_none(), "there is one queue (C1)");
    }

    // Serving.

    /// Serves the queue until no waiter can proceed, and leaves. `seen` is a word that this thread has seen since it owns the
    /// queue.
    fn serve(&self, mut queue: Queue, mut seen: State, wakes: &mut WakeList) {
        let mut rounds = 0;
        loop {
            if seen.needs_recheck() {
                seen = self.recheck(&mut queue);
            }
            if let Some(ticket) = self.answer.take() {
                queue.unclaim(ticket);
            }
            if !seen.is_closed() {
                seen = self.serve_takers(&mut queue, seen, wakes);
            }
            if seen.is_closed() {
                // Even if it was closed while waiters were served: `settle` compares with this word, and would not notice.
                Self::close_waiters(&mut queue, wakes);
            }
            if queue.others() > 0 {
                self.serve_others(&mut queue, seen, wakes);
            }
            if queue.in_maps() > 0 {
                // A request may have left just when it was deferred, before HAS_DEFERRED was set.
                self.compact(&mut queue);
            }
            let Some(again) = self.settle_and_leave(queue, seen) else { return };
            (queue, seen) = again;
            rounds += 1;
            if rounds >= MAX_ROUNDS {
                let Some(again) = self.yield_ownership(queue) else { return };
                (queue, seen) = (again, self.state.load_exact());
            }
        }
    }

    /// As [`serve`](Self::serve), if no waiter can proceed with the tokens in `seen`.
    #[inline]
    fn finish(&self, queue: Queue, seen: State, wakes: &mut WakeList) {
        if let Some((queue, seen)) = self.settle_and_leave(queue, seen) {
            self.serve(queue, seen, wakes);
        }
    }

    /// Leaves, unless the word has changed in favour of a waiter. Returns the queue and a word if this thread has to serve again.
    #[inline]
    fn settle_and_leave(&self, queue: Queue, seen: State) -> Option<(Queue, State)> {
        match self.settle(&queue, seen) {
            Ok(()) => self.leave(queue).map(|queue| (queue, self.state.load_exact())),
            Err(actual) => Some((queue, actual)),
        }
    }

    /// Serves the queue to which a waiter of this kind has come, or which it has left: there is nothing to do for takers without
    /// tokens.
    #[inline]
    fn serve_for(&self, kind: Kind, queue: Queue, seen: State, wakes: &mut WakeList) {
        if kind == Kind::Take && !seen.allows_service() {
            self.finish(queue, seen, wakes);
        } else {
            self.serve(queue, seen, wakes);
        }
    }

    /// Moves the inbox into the queue.
    #[cold]
    fn recheck(&self, queue: &mut Queue) -> State {
        // C4: first RECHECK, then the inbox.
        let lost = self.state.change(|state| (state.clear_recheck(), state.is_bypassed()));
        empty_inbox(&self.inbox, |waiter| queue.push(waiter));
        // Afterwards, as the head may just have come.
        if lost {
            queue.count_loss();
        }
        if self.unseen_answers.take() {
            queue.rescan();
        }
        self.compact(queue);
        // Not the word from before: a watcher that has come since must not be notified of a state that had passed by then.
        self.state.load_exact()
    }

    /// Serves takers; returns the last word that was seen.
    fn serve_takers(&self, queue: &mut Queue, mut seen: State, wakes: &mut WakeList) -> State {
        loop {
            match queue.next(seen) {
                Next::Grant { heads, min, up_to, is_due } => {
                    let granted = self.state.update(|state| {
                        // Tokens or capacity have come meanwhile: an earlier request may fit again, or this one may try for itself.
                        if queue.has_restorable(state.satisfiable()) || !is_due && min <= state.capacity() {
                            return Err(state);
                        }
                        let (next, count) = state.grant(min, up_to)?;
                        Ok::<_, State>((next, (next, count)))
                    });
                    match granted {
                        Ok((next, count)) => seen = self.grant_to_heads(queue, heads, count, next, wakes),
                        Err(actual) if actual.is_closed() => return actual,
                        Err(actual) => seen = actual,
                    }
                }
                Next::Wake => {
                    let is_woken = queue.next_to_wake().is_some_and(|waiter| waiter.notify(Phase::Woken, wakes));
                    if is_woken && queue.mark_woken(seen.available()) {
                        break;
                    }
                }
                Next::Wait => break,
            }
        }
        seen
    }

    /// Gives that many heads the tokens that were taken for them. What was for those that have left goes back (**C5**).
    #[inline]
    fn grant_to_heads(&self, queue: &mut Queue, heads: usize, taken: u32, seen: State, wakes: &mut WakeList) -> State {
        let mut left = taken;
        for _ in 0..heads {
            let Some(head) = queue.pop_head() else { break };
            // One of several heads wants exactly `up_to`; a single one gets all.
            let count = taken.min(head.up_to);
            if head.notify(Phase::Granted(count), wakes) {
                left -= count;
            } else {
                queue.count_removed(Kind::Take);
            }
        }
        if left == 0 {
            return seen;
        }
        self.state.change(|state| {
            let (next, _) = state.give(left as usize, self.max);
            (next, next)
        })
    }

    /// Serves releasers and watchers. They come last: a token that goes on to a taker does not make the bucket idle.
    #[cold]
    fn serve_others(&self, queue: &mut Queue, seen: State, wakes: &mut WakeList) {
        while let Some(releaser) = queue.next_releaser(seen.room(self.max)) {
            releaser.notify(Phase::Woken, wakes);
        }
        for watcher in queue.take_watchers(seen) {
            if !watcher.notify(Phase::Granted(0), wakes) {
                queue.count_removed(watcher.kind);
            }
        }
    }

    #[cold]
    fn close_waiters(queue: &mut Queue, wakes: &mut WakeList) {
        for waiter in queue.take_all() {
            if !waiter.notify(Phase::Closed, wakes) {
                queue.count_removed(waiter.kind);
            }
        }
    }

    /// Makes the flags show the queue, unless the word has changed in favour of a waiter (**C2**).
    #[inline]
    fn settle(&self, queue: &Queue, seen: State) -> Result<(), State> {
        let summary = queue.summary();
        // Then they were right in `seen`, and are still. So every change since that concerns a waiter has set RECHECK.
        if seen.is_summarised_by(summary) {
            return Ok(());
        }
        self.state.update(|state| Ok((state.settle(seen, summary)?, ())))
    }

    // Dead entries.

    /// A woken waiter has answered, or a waiter has left.
    fn note_answer(&self, queue: &mut Queue, waiter: &Arc<Waiter>) {
        queue.note_answer(waiter);
        self.compact(queue);
    }

    /// Removes dead entries if that pays.
    fn compact(&self, queue: &mut Queue) {
        let dead = self.dead();
        if 2 * dead > queue.takers() + queue.others() {
            queue.compact();
        } else if dead > 0 {
            queue.compact_few();
        }
    }

    fn dead(&self) -> usize {
        self.dead_takers.get().saturating_add(self.dead_others.get())
    }
}

#[cfg(test)]
mod tests;
