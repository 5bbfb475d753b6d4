//! A waiter: what the line and the one who waits share, and how it is woken.
//!
//! `event-listener` runs wakers under its lock, where user code must not run. So what it wakes is the [`Waiter`]
//! itself, which then lies in the mailbox of the thread that notified, and the waker of the user is run from
//! [`Wakes`] when no lock and no right over the line is held any more.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::iter;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Waker};

use event_listener::{Event, EventListener, IntoNotification};

use crate::atomic::{AtomicPhase, Count, Phase};
use crate::few::Few;
use crate::sync::{Slot, mailbox};

mailbox!(mailbox, alloc::sync::Arc<super::Waiter>);

pub(crate) struct Waiter {
    /// The tokens it wants.
    pub(crate) need: u32,
    pub(crate) phase: AtomicPhase,
    /// How often it was woken in vain or passed over.
    pub(crate) strikes: Count,
    waker: Slot<Waker>,
}

impl Waiter {
    pub(crate) fn new(need: u32, waker: &Waker) -> Arc<Self> {
        Arc::new(Self {
            need,
            phase: AtomicPhase::new(Phase::Waiting),
            strikes: Count::new(),
            waker: Slot::new(Some(waker.clone())),
        })
    }

    /// `Waiting → phase`, and who is to be woken for it; an error says that the waiter has left.
    pub(crate) fn tell(&self, phase: Phase) -> Result<Option<Waker>, Phase> {
        self.phase.change(Phase::Waiting, phase)?;
        Ok(self.waker.take())
    }

    /// Makes `waker` the one to wake. The phase has to be looked at afterwards:
    ///
    /// 1. `tell` changes the phase, 2. finds the old waker or none, 3. this puts the new one.
    ///
    /// The waker's place is only ever swapped, so if 3 comes after 2, the new phase is seen after 3; else 2 finds the new one.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let waker = match self.waker.take() {
            Some(old) if old.will_wake(waker) => old,
            _ => waker.clone(),
        };
        drop(self.waker.swap(Some(waker)));
    }

    /// `Called → Waiting`, at the place that it has kept.
    pub(crate) fn return_to_line(&self) {
        let returned = self.phase.change(Phase::Called, Phase::Waiting);
        debug_assert!(returned.is_ok(), "only the waiter itself answers a call");
    }

    /// Takes the waker back, so that it is dropped by the one who waited, and not under a lock.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.waker.take()
    }

    /// Lines up at `event`.
    pub(crate) fn listen(mut self: Arc<Self>, event: &Event) -> (Arc<Self>, EventListener) {
        loop {
            let mut listener = event.listen();
            let bridge = Waker::from(self);
            let polled = Pin::new(&mut listener).poll(&mut Context::from_waker(&bridge));
            // To wake it is to get the `Arc` back that it was made of, with no count to be changed.
            let ((), waiter) = mailbox::collect(|| bridge.wake());
            self = waiter.expect("it lies in the mailbox of the thread that woke it");
            // Else it was notified before the notifier could know whom it notified.
            if polled.is_pending() {
                return (self, listener);
            }
        }
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        mailbox::post(self);
    }
}

/// Takes the next one out of the line at `event`, first come, first out. Whoever had only just lined up tries again.
pub(crate) fn next(event: &Event) -> Option<Arc<Waiter>> {
    loop {
        match mailbox::collect(|| event.notify(1.additional().relaxed())) {
            (0, _) => return None,
            (_, Some(waiter)) => return Some(waiter),
            (_, None) => {}
        }
    }
}

/// As [`next`], for at most `count`.
pub(crate) fn next_few(event: &Event, count: usize) -> Option<impl Iterator<Item = Arc<Waiter>>> {
    loop {
        match mailbox::collect_all(|| event.notify(count.additional().relaxed())) {
            (0, ..) => return None,
            (_, earlier, Some(last)) => return Some(earlier.into_iter().chain([last])),
            (_, _, None) => {}
        }
    }
}

/// Wakers to be woken when it goes out of scope.
pub(crate) struct Wakes(Few<Waker>);

impl Wakes {
    pub(crate) const fn new() -> Self {
        Self(Few::new())
    }

    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            self.0.push(waker);
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let Few { first, rest } = mem::replace(&mut self.0, Few::new());
        let Some(first) = first else { return };
        if rest.is_empty() {
            first.wake();
        } else {
            wake_all(&mut iter::once(first).chain(rest));
        }
    }
}

fn wake_all<I: Iterator<Item = Waker>>(wakers: &mut I) {
    /// Wakes the rest if one of the wakers panics.
    struct Rest<'a, I: Iterator<Item = Waker>>(&'a mut I);
    impl<I: Iterator<Item = Waker>> Drop for Rest<'_, I> {
        fn drop(&mut self) {
            wake_all(self.0);
        }
    }
    while let Some(waker) = wakers.next() {
        let rest = Rest(wakers);
        waker.wake();
        mem::forget(rest);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use event_listener::Listener as _;

    use super::*;

    /// Those who have only just lined up cannot be known yet: whoever is behind them is found all the same.
    #[test]
    fn those_behind_who_have_not_quite_lined_up_are_found() {
        let few = |event: &Event| next_few(event, 2).into_iter().flatten().collect();
        let one = |event: &Event| next(event).into_iter().collect();
        for take in [few, one] as [fn(&Event) -> Vec<Arc<Waiter>>; 2] {
            let event = Event::new();
            let starting = [event.listen(), event.listen()];
            let (third, place) = Waiter::new(1, Waker::noop()).listen(&event);
            let found = take(&event);
            assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &third));
            assert!(take(&event).is_empty());
            assert!(place.discard());
            drop(starting);
        }
    }
}
