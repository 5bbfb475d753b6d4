//! Access to the schedule: the clock, the lock, and what each call does first and last.

use core::time::Duration;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use super::RateLimiter;
use super::schedule::{Outbox, Schedule};

impl RateLimiter {
    /// The limiter's clock.
    #[inline]
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The lock guards plain data, and no user code runs under it, so poison would mean nothing.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `n` tokens if they are available and no waiter comes first.
    #[inline]
    pub(super) fn take_now(&self, n: usize) -> bool {
        self.lock_and_tick(Instant::now()).take(n)
    }

    /// Locks for a caller that takes tokens. Ticks only if a token may have become due: comparing instants is cheaper.
    #[inline]
    pub(super) fn lock_and_tick(&self, now: Instant) -> MutexGuard<'_, Schedule> {
        let mut schedule = self.lock();
        if schedule.next_due.is_none_or(|due| now >= due) {
            schedule.tick(now.saturating_duration_since(self.origin));
            schedule.next_due = schedule.next_due().and_then(|due| self.origin.checked_add(due));
        }
        schedule
    }

    /// Grants what is due at `now`, calls `f`, and grants what that has made possible.
    pub(super) fn with<R>(&self, now: Duration, f: impl FnOnce(&mut Schedule, &mut Outbox) -> R) -> R {
        self.with_tick(now, |schedule, outbox| {
            schedule.settle(outbox);
            f(schedule, outbox)
        })
    }

    /// As [`with`](Self::with), where `f` grants what is due. User code runs afterwards, without the lock.
    pub(super) fn with_tick<R>(&self, now: Duration, f: impl FnOnce(&mut Schedule, &mut Outbox) -> R) -> R {
        let mut outbox = Outbox::new();
        let mut schedule = self.lock();
        schedule.tick(now);
        let result = f(&mut schedule, &mut outbox);
        schedule.settle(&mut outbox);
        schedule.wake_leader(&mut outbox);
        drop(schedule);
        drop(outbox);
        result
    }
}
