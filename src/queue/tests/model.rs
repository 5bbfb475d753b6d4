//! What the queue does, in a few lines: no dead entries, deferral as a set, and counts kept.

use super::*;

/// The takers that have not left, by arrival.
pub(super) struct Model {
    pub(super) fifo: bool,
    pub(super) takers: Vec<Taker>,
}

#[derive(Debug)]
pub(super) struct Taker {
    pub(super) id: usize,
    pub(super) min: u32,
    pub(super) up_to: u32,
    pub(super) losses: u32,
    pub(super) woken: bool,
    pub(super) deferred: bool,
}

impl Model {
    pub(super) fn head(&self) -> Option<usize> {
        self.takers.iter().position(|taker| !taker.deferred)
    }

    fn is_due(&self, losses: u32) -> bool {
        self.fifo || losses >= STARVING_AFTER
    }

    pub(super) fn losses_until_due(&self) -> u32 {
        self.head().map_or(u32::MAX, |head| STARVING_AFTER.saturating_sub(self.takers[head].losses))
    }

    /// Whether newcomers must queue.
    pub(super) fn is_shut(&self) -> bool {
        self.head().is_some_and(|head| self.is_due(self.takers[head].losses))
    }

    pub(super) fn count_loss(&mut self) {
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

    /// Waiters that regain their places in front of the head have lost as often.
    fn restore_deferred(&mut self, satisfiable: i64) {
        let head = self.head().unwrap_or(0);
        let losses = self.takers.get(head).map_or(0, |head| head.losses);
        for (at, taker) in
            self.takers.iter_mut().enumerate().filter(|(_, taker)| taker.deferred && i64::from(taker.min) <= satisfiable)
        {
            taker.deferred = false;
            taker.losses = if at < head { losses.max(taker.losses) } else { taker.losses };
        }
    }

    pub(super) fn serve(&mut self, mut state: State) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let (available, satisfiable) = (state.available(), state.satisfiable());
            self.restore_deferred(satisfiable);
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
