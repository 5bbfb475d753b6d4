//! Changes of the word, as the owner of the queue or beside it.

use core::convert::Infallible;

use super::{Combiner, Queue, on_unwind};
use crate::atomic::Phase;
use crate::state::{Given, Kind, Refused, State};
use crate::waiter::WakeList;

impl Combiner {
    /// Takes `n` tokens if that is one plain step; else the error is the word in which it is not.
    #[inline]
    pub(crate) fn try_take_fast(&self, n: u32) -> Result<(), State> {
        self.state.update(|state| Ok((state.take_fast(n).ok_or(state)?, ())))
    }

    #[inline]
    pub(crate) fn try_take(&self, n: u32) -> Result<(), Refused> {
        match self.try_take_fast(n) {
            Ok(()) => Ok(()),
            Err(seen) if seen.lacks(n) => Err(Refused::NotNow),
            Err(_) => self.try_take_up_to(n, n).map(drop),
        }
    }

    /// Takes what is available, from `min` to `up_to`.
    #[cold]
    pub(crate) fn try_take_up_to(&self, min: u32, up_to: u32) -> Result<u32, Refused> {
        let mut wakes = WakeList::new();
        let taken = self.update(&mut wakes, |state| state.take(min, up_to))?;
        on_unwind(|| self.give(taken as usize), || drop(wakes));
        Ok(taken)
    }

    /// Puts back what fits.
    #[inline]
    pub(crate) fn give(&self, n: usize) {
        if !self.state.try_update(|state| state.give_fast(n, self.max)) {
            self.give_and_serve(n);
        }
    }

    /// As [`give`](Self::give), and tells what became of the tokens.
    #[cold]
    pub(crate) fn give_and_serve(&self, n: usize) -> Given {
        let mut wakes = WakeList::new();
        let give = |state: State| Ok::<_, Infallible>(state.give(n, self.max));
        let owned = if self.state.load().is_awaited() { self.own() } else { None };
        let Ok(given) = match owned {
            Some(mut queue) => match self.hand_off(&mut queue, n, &mut wakes) {
                Some(seen) => {
                    self.finish(queue, seen, &mut wakes);
                    Ok(Given { restored: n, paid: 0 })
                }
                None => self.update_as_owner(queue, &mut wakes, give),
            },
            None => self.update(&mut wakes, give),
        };
        given
    }

    /// Puts in what fits of `n` tokens below the capacity, and tells how many that were.
    pub(crate) fn top_up(&self, n: usize) -> usize {
        self.change(|state| state.top_up(n)).fitted()
    }

    pub(crate) fn release(&self, n: usize) -> Result<(), Refused> {
        self.update_and_wake(|state| Ok((state.release(n, self.max)?, ())))
    }

    #[inline]
    pub(crate) fn set_capacity(&self, capacity: u32) -> Result<State, Refused> {
        self.update_and_wake(|state| {
            let next = state.set_capacity(capacity, self.max)?;
            Ok((next, next))
        })
    }

    /// As [`set_capacity`](Self::set_capacity), if the capacity is `from`. The error is the state in which that was refused.
    pub(crate) fn set_capacity_from(&self, from: u32, capacity: u32) -> Result<State, State> {
        self.update_and_wake(|state| match state.set_capacity(capacity, self.max) {
            Ok(next) if state.capacity() == from => Ok((next, next)),
            _ => Err(state),
        })
    }

    /// Makes room for `n` tokens more, which are the caller's. The error is the state in which that was refused.
    pub(crate) fn grow_and_take(&self, n: usize) -> Result<(), State> {
        let mut wakes = WakeList::new();
        self.update(&mut wakes, |state| match state.grow_and_take(n, self.max) {
            Ok(next) => Ok((next, ())),
            Err(_) => Err(state),
        })?;
        on_unwind(|| self.retire(n), || drop(wakes));
        Ok(())
    }

    pub(crate) fn retire(&self, n: usize) {
        self.change(|state| (state.retire(n), ()));
    }

    /// True for the call that closed the bucket.
    pub(crate) fn close(&self) -> bool {
        self.change(|state| (state.close(), !state.is_closed()))
    }

    /// Applies a transition, and serves the queue if that lets waiters proceed.
    #[inline]
    fn update_and_wake<R, E>(&self, mut transition: impl FnMut(State) -> Result<(State, R), E>) -> Result<R, E> {
        self.update_quietly(&mut transition).unwrap_or_else(|| self.update_and_serve(&mut WakeList::new(), transition))
    }

    /// As [`update_and_wake`](Self::update_and_wake), and the caller wakes the waiters when it is done with what must not be
    /// interrupted by a panic.
    pub(super) fn update<R, E>(
        &self,
        wakes: &mut WakeList,
        mut transition: impl FnMut(State) -> Result<(State, R), E>,
    ) -> Result<R, E> {
        self.update_quietly(&mut transition).unwrap_or_else(|| self.update_and_serve(wakes, transition))
    }

    /// As [`update_and_wake`](Self::update_and_wake), for a transition that is never refused.
    fn change<R>(&self, mut transition: impl FnMut(State) -> (State, R)) -> R {
        let Ok(result) = self.update_and_wake(|state| Ok::<_, Infallible>(transition(state)));
        result
    }

    /// Applies a transition that concerns waiters.
    #[cold]
    fn update_and_serve<R, E>(&self, wakes: &mut WakeList, transition: impl FnMut(State) -> Result<(State, R), E>) -> Result<R, E> {
        match self.own() {
            Some(queue) => self.update_as_owner(queue, wakes, transition),
            None => self.update_and_recheck(wakes, transition),
        }
    }

    /// Applies a transition if no waiter has to hear of it.
    #[inline]
    fn update_quietly<R, E>(&self, transition: &mut impl FnMut(State) -> Result<(State, R), E>) -> Option<Result<R, E>> {
        let changed = self.state.update(|state| match transition(state) {
            Ok((next, _)) if state.concerns_waiters(next, self.max) => Err(None),
            Ok(done) => Ok(done),
            Err(refused) => Err(Some(refused)),
        });
        match changed {
            Ok(result) => Some(Ok(result)),
            Err(refused) => refused.map(Err),
        }
    }

    #[cold]
    pub(super) fn update_as_owner<R, E>(
        &self,
        mut queue: Queue,
        wakes: &mut WakeList,
        mut transition: impl FnMut(State) -> Result<(State, R), E>,
    ) -> Result<R, E> {
        let changed = self.state.update(|state| {
            let (next, result) = transition(state)?;
            // BYPASSED is about to be counted as one loss more: is that the last one? Computed for each try, as the head may have
            // left meanwhile.
            let is_starving = queue.losses_until_due() <= u32::from(state.is_bypassed());
            let next = state.owners_change(next, is_starving);
            Ok((next, (state.is_bypassed() && !next.is_bypassed(), next, result)))
        });
        let (seen, result) = match changed {
            Ok((lost, next, result)) => {
                if lost {
                    queue.count_loss();
                }
                (next, Ok(result))
            }
            Err(refused) => (self.state.load_exact(), Err(refused)),
        };
        self.serve(queue, seen, wakes);
        result
    }

    /// The queue was owned: the owner serves for this change, or this thread does if the owner has just left (**C3**).
    #[cold]
    fn update_and_recheck<R, E>(
        &self,
        wakes: &mut WakeList,
        mut transition: impl FnMut(State) -> Result<(State, R), E>,
    ) -> Result<R, E> {
        // C6: in one step.
        let result = self.state.update(|state| transition(state).map(|(next, result)| (next.recheck_exclusively(), result)))?;
        self.serve_if_free(wakes);
        Ok(result)
    }

    /// Hands `n` returned tokens to the head of the queue, past the word: it would first add them, and then subtract them.
    #[inline]
    fn hand_off(&self, queue: &mut Queue, n: usize, wakes: &mut WakeList) -> Option<State> {
        loop {
            // Each time anew: if a head has left, the bucket may have been shrunk or closed before that.
            let seen = self.state.load_exact();
            if !seen.allows_hand_off(n) {
                return None;
            }
            let (head, count) = queue.pop_for_hand_off(n)?;
            if head.notify(Phase::Granted(count), wakes) {
                return Some(seen);
            }
            queue.count_removed(Kind::Take);
        }
    }
}
