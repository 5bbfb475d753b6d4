//! What waiters do: they queue, are polled, try for themselves, and leave.

use alloc::sync::Arc;
use core::convert::Infallible;
use core::task::{Poll, Waker};

use super::{Combiner, TRIES_TO_ENQUEUE};
use crate::atomic::Phase;
use crate::state::{Kind, Refused, State, Summary};
use crate::waiter::{Registration, Waiter, WakeList};

impl Combiner {
    /// Queues a new waiter. The wakers are for when its registration is safe.
    #[cold]
    pub(crate) fn enqueue(&self, waiter: Arc<Waiter>, wakes: &mut WakeList) -> Registration {
        match self.own_within(TRIES_TO_ENQUEUE) {
            Some(mut queue) => {
                let seen = self.state.load_exact();
                if seen.needs_recheck() {
                    // Those in the inbox came first. And as RECHECK is cleared now, releasers and watchers rely on this owner.
                    let seen = self.recheck(&mut queue);
                    queue.push(Arc::clone(&waiter));
                    self.serve(queue, seen, wakes);
                } else {
                    queue.push(Arc::clone(&waiter));
                    self.serve_for(waiter.kind, queue, seen, wakes);
                }
                Registration { waiter, listener: None }
            }
            None => {
                let registration = Registration::listen(waiter, &self.inbox);
                // C4: first the inbox, then RECHECK.
                let summary = Summary::of(registration.waiter.kind, self.is_fifo());
                self.state.change(|state| (state.request_recheck_of(summary), ()));
                self.serve_if_free(wakes);
                registration
            }
        }
    }

    /// Whether the waiter may proceed, and with how many tokens. If not, `waker` is woken when it may; `registered`: the waiter has
    /// this waker.
    ///
    /// The caller wakes `wakes` when it has noted the result.
    #[cold]
    pub(crate) fn poll(
        &self,
        waiter: &Arc<Waiter>,
        waker: &Waker,
        mut registered: bool,
        wakes: &mut WakeList,
    ) -> Poll<Result<u32, Refused>> {
        // Whether this call has put the waker there: an owner may have come too early to take it. Then this thread drops it, as an
        // owner must not.
        let mut replaced = false;
        loop {
            let phase = waiter.phase.load();
            if phase == Phase::Waiting {
                if registered {
                    return Poll::Pending;
                }
                waiter.set_waker(waker);
                (registered, replaced) = (true, true);
                // The phase once more, as `set_waker` requires.
                continue;
            }
            if replaced {
                drop(waiter.take_waker());
            }
            match phase {
                Phase::Woken => {
                    if let Some(result) = self.retry(waiter, wakes) {
                        return Poll::Ready(result);
                    }
                    // First the waker, then the phase: from then on, an owner may wake this waiter.
                    waiter.restore_waker(waker);
                    (registered, replaced) = (true, true);
                    if waiter.phase.change(Phase::Woken, Phase::Waiting).is_ok() {
                        self.sleep_again(waiter, wakes);
                    }
                }
                Phase::Granted(count) => return Poll::Ready(Ok(count)),
                Phase::Waiting | Phase::Closed | Phase::Gone => return Poll::Ready(Err(Refused::Closed)),
            }
        }
    }

    /// A waiter that was woken tries for itself. `None` if it has to wait on, at the place that it has kept.
    fn retry(&self, waiter: &Arc<Waiter>, wakes: &mut WakeList) -> Option<Result<u32, Refused>> {
        let tried = match waiter.kind {
            Kind::Take => match self.state.update(|state| state.retry_fast(waiter.min, waiter.up_to).ok_or(state)) {
                Ok(count) => Ok(count),
                Err(seen) if seen.lacks(waiter.min) => Err(Refused::NotNow),
                Err(_) => self.update(wakes, |state| state.retry(waiter.min, waiter.up_to)),
            },
            _ => self.update(wakes, |state| state.release(1, self.max).map(|next| (next, 0))),
        };
        match tried {
            Ok(count) => {
                self.leave_served(waiter, wakes);
                Some(Ok(count))
            }
            Err(Refused::Closed) => Some(match self.leave_entry(waiter) {
                // An owner has been quicker than the close.
                Phase::Granted(count) => Ok(count),
                _ => Err(Refused::Closed),
            }),
            Err(_) => None,
        }
    }

    /// A waiter that has got what it waited for by itself leaves the queue, and those behind it are served.
    pub(super) fn leave_served(&self, waiter: &Arc<Waiter>, wakes: &mut WakeList) {
        let mut owned = self.own();
        // An owner that grants or closes removes the entry. If it is still there, the waiter has got nothing twice, and its phase
        // is not looked at again.
        let is_removed = owned.as_mut().is_some_and(|queue| queue.remove_head_if(|head| Arc::ptr_eq(head, waiter)));
        if !is_removed {
            if let Phase::Granted(twice) = self.leave_entry(waiter) {
                // An owner has been quicker: its tokens go back.
                let give = |state: State| Ok::<_, Infallible>(state.give(twice as usize, self.max));
                let Ok(_) = match owned {
                    Some(queue) => self.update_as_owner(queue, wakes, give),
                    None => self.update(wakes, give),
                };
                return;
            }
            match &mut owned {
                Some(queue) => self.note_answer(queue, waiter),
                None => return self.recheck_answer(wakes),
            }
        }
        if let Some(queue) = owned {
            let seen = self.state.load_exact();
            self.serve_for(waiter.kind, queue, seen, wakes);
        }
    }

    /// Gives up a registration, and the tokens that it may have been granted.
    #[cold]
    pub(crate) fn cancel(&self, mut registration: Registration) {
        let is_known = registration.discard_listener();
        let waiter = registration.waiter;
        let phase = waiter.phase.leave();
        // Dropped last: that may run user code, which may panic.
        let waker = waiter.take_waker();
        match phase {
            Phase::Granted(count) if count > 0 => self.give(count as usize),
            // No owner has heard of it.
            Phase::Waiting if !is_known => {}
            Phase::Woken | Phase::Waiting => {
                self.count_dead(waiter.kind);
                if phase == Phase::Woken || waiter.kind != Kind::Take || self.needs_service() || self.has_many_dead() {
                    self.request_service(&waiter, &mut WakeList::new());
                }
            }
            _ => {}
        }
        drop(waker);
    }

    /// Leaves, and tells where the waiter stood. Its entry is dead now, if it is still in the queue.
    fn leave_entry(&self, waiter: &Waiter) -> Phase {
        let phase = waiter.phase.leave();
        if let Phase::Waiting | Phase::Woken = phase {
            self.count_dead(waiter.kind);
        }
        phase
    }

    fn count_dead(&self, kind: Kind) {
        match kind {
            Kind::Take => self.dead_takers.increment(),
            Kind::Release | Kind::Idle | Kind::Settled => self.dead_others.increment(),
        }
    }

    /// A waiter that was woken has found its tokens taken, and sleeps again. Mostly that leaves nothing to do but to let the next
    /// owner know (**C8**).
    fn sleep_again(&self, waiter: &Arc<Waiter>, wakes: &mut WakeList) {
        let is_noted = waiter.kind == Kind::Take && self.answer.put(waiter.ticket.get());
        if !is_noted || self.needs_service() {
            self.request_service(waiter, wakes);
        }
    }

    /// Whether an owner may have something to do now that a waiter has changed its phase.
    fn needs_service(&self) -> bool {
        // A change even if it leaves an equal word: an owner that looked at the phase before has looked at the word before, so this
        // sees what that owner served.
        self.state.change(|state| (state, state.needs_service()))
    }

    /// Whether it pays to own the queue to [`compact`](Self::compact) it, for a taker that was not woken.
    fn has_many_dead(&self) -> bool {
        self.dead() > 16 && 2 * self.dead() > self.takers.get()
    }
}
