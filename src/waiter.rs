//! A waiter: what the queue and the future share, and the bridge to `event-listener`.
//!
//! A waiter that cannot reach the queue listens on an event, the *inbox*. `event-listener` runs wakers under its lock, where user
//! code must not run. So what it wakes is the [`Waiter`] itself, which the [`mod@bridge`] carries to the thread that notified. The
//! waker of the user is run from a [`WakeList`] when that thread holds neither a lock nor the queue.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::iter;
use core::mem::{self, ManuallyDrop};
use core::pin::Pin;
use core::task::{Context, Waker};

use event_listener::{Event, EventListener, IntoNotification, Listener as _};

use crate::atomic::{AtomicPhase, Phase, Ticket};
use crate::queue::{Standing, Waits};
use crate::state::{Kind, Refused};
use crate::sync::{Slot, bridge};

/// How many waiters are taken out of the inbox at once.
const BATCH: usize = 16;

pub(crate) struct Waiter {
    pub(crate) kind: Kind,
    /// The fewest tokens that will do.
    pub(crate) min: u32,
    /// The most tokens that it takes.
    pub(crate) up_to: u32,
    pub(crate) phase: AtomicPhase,
    /// Its place in the queue.
    pub(crate) ticket: Ticket,
    waker: Slot<Waker>,
}

impl Waiter {
    #[inline]
    pub(crate) fn new(kind: Kind, min: u32, up_to: u32, waker: &Waker) -> Arc<Self> {
        Arc::new(Self {
            kind,
            min,
            up_to,
            phase: AtomicPhase::new(Phase::Waiting),
            ticket: Ticket::new(),
            waker: Slot::new(Some(waker.clone())),
        })
    }

    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.phase.load() == Phase::Waiting
    }

    /// How its wait has ended, if an owner has ended it.
    #[inline]
    pub(crate) fn outcome(&self) -> Option<Result<u32, Refused>> {
        match self.phase.load() {
            Phase::Granted(count) => Some(Ok(count)),
            Phase::Closed => Some(Err(Refused::Closed)),
            Phase::Waiting | Phase::Woken | Phase::Gone => None,
        }
    }

    /// Changes the phase, and adds the waker to those to be woken. False if the waiter has left, or was notified for good before.
    #[inline]
    pub(crate) fn notify(&self, to: Phase, wakes: &mut WakeList) -> bool {
        let mut from = Phase::Waiting;
        while let Err(phase) = self.phase.change(from, to) {
            match phase {
                // One that was woken may go back to sleep meanwhile, but only an owner wakes it again.
                Phase::Waiting | Phase::Woken => from = phase,
                _ => return false,
            }
        }
        wakes.push(self.waker.take());
        true
    }

    /// Makes `waker` the one to wake. The caller must look at the phase afterwards:
    ///
    /// 1. `notify` changes the phase, 2. it finds the old waker or none, 3. this puts the new one.
    ///
    /// The slot is only ever swapped, so if 3 comes after 2, the new phase is seen after 3; else 2 finds the new waker.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let waker = match self.waker.take() {
            Some(old) if old.will_wake(waker) => old,
            _ => waker.clone(),
        };
        drop(self.waker.swap(Some(waker)));
    }

    /// As [`set_waker`](Self::set_waker), for a waiter that was woken: its old waker is gone, or is about to be. (If the owner
    /// takes this one instead, that is one wake-up too many, and this waiter is polled once more.)
    pub(crate) fn restore_waker(&self, waker: &Waker) {
        drop(self.waker.swap(Some(waker.clone())));
    }

    /// Takes the waker, so that the waiter's own thread drops it, and not the owner of the queue.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.waker.take()
    }
}

impl Waits for Arc<Waiter> {
    #[inline]
    fn kind(&self) -> Kind {
        self.kind
    }

    #[inline]
    fn min(&self) -> u32 {
        self.min
    }

    #[inline]
    fn up_to(&self) -> u32 {
        self.up_to
    }

    #[inline]
    fn standing(&self) -> Standing {
        match self.phase.load() {
            Phase::Waiting => Standing::Waiting,
            Phase::Woken => Standing::Woken,
            Phase::Granted(_) | Phase::Closed | Phase::Gone => Standing::Gone,
        }
    }

    #[inline]
    fn ticket(&self) -> u64 {
        self.ticket.get()
    }

    #[inline]
    fn set_ticket(&self, ticket: u64) {
        self.ticket.set(ticket);
    }
}

/// What a waiting future holds: its waiter, and its listener if it went through the inbox.
///
/// It must be given up through the combiner and never just dropped, because a listener that is dropped after it was notified
/// notifies another one.
pub(crate) struct Registration {
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) listener: Option<EventListener>,
}

impl Registration {
    /// Listens on the inbox.
    #[cold]
    pub(crate) fn listen(waiter: Arc<Waiter>, inbox: &Event) -> Self {
        loop {
            let mut listener = inbox.listen();
            let waker = Waker::from(Arc::clone(&waiter));
            // Ready if it was notified before the event knew the waker: then the owner has not seen this waiter.
            if Pin::new(&mut listener).poll(&mut Context::from_waker(&waker)).is_pending() {
                return Self { waiter, listener: Some(listener) };
            }
        }
    }

    /// Clears the listener away; false if the waiter never left the inbox, so that no owner knows of it.
    #[inline]
    pub(crate) fn discard_listener(&mut self) -> bool {
        self.listener.take().is_none_or(EventListener::discard)
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        bridge::push(self);
    }
}

/// Takes all waiters out of the inbox, in the order in which they came.
#[cold]
pub(crate) fn empty_inbox(inbox: &Event, mut receive: impl FnMut(Arc<Waiter>)) {
    loop {
        // The room is reserved before: nothing is allocated under the event's lock.
        let (notified, waiters) = bridge::capture(Vec::with_capacity(BATCH), || inbox.notify(BATCH.additional().relaxed()));
        waiters.into_iter().for_each(&mut receive);
        // A waiter that comes later sets RECHECK.
        if notified < BATCH {
            return;
        }
    }
}

/// Wakers to be woken when the list goes out of scope: the first one, and the rest.
// Emptied by `drop`, so there is nothing to be dropped after that.
pub(crate) struct WakeList {
    first: ManuallyDrop<Option<Waker>>,
    rest: ManuallyDrop<Vec<Waker>>,
}

impl WakeList {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { first: ManuallyDrop::new(None), rest: ManuallyDrop::new(Vec::new()) }
    }

    #[inline]
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            if self.first.is_none() {
                *self.first = Some(waker);
            } else {
                self.push_more(waker);
            }
        }
    }

    #[cold]
    fn push_more(&mut self, waker: Waker) {
        self.rest.push(waker);
    }
}

impl Drop for WakeList {
    #[inline]
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            if self.rest.is_empty() {
                first.wake();
            } else {
                wake_all(first, mem::take(&mut self.rest));
            }
        }
    }
}

#[cold]
fn wake_all(first: Waker, rest: Vec<Waker>) {
    wake_each(&mut iter::once(first).chain(rest));
}

fn wake_each<I: Iterator<Item = Waker>>(wakers: &mut I) {
    /// Wakes the rest if one of the wakers panics.
    struct Rest<'a, I: Iterator<Item = Waker>>(&'a mut I);
    impl<I: Iterator<Item = Waker>> Drop for Rest<'_, I> {
        fn drop(&mut self) {
            wake_each(self.0);
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
    use super::*;

    /// An owner cannot know a waiter that has only just begun to listen. It still finds those behind it.
    #[test]
    fn waiters_behind_an_unknown_listener_are_found() {
        let inbox = Event::new();
        let unknown = [inbox.listen(), inbox.listen()];
        let third = Registration::listen(Waiter::new(Kind::Take, 1, 1, Waker::noop()), &inbox);
        let mut found = Vec::new();
        empty_inbox(&inbox, |waiter| found.push(waiter));
        assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &third.waiter));
        empty_inbox(&inbox, |_| panic!("the inbox is empty"));
        assert!(third.listener.expect("it listens").discard());
        drop(unknown);
    }

    #[test]
    fn more_waiters_than_a_batch_come_out_in_order() {
        let inbox = Event::new();
        let count = u32::try_from(3 * BATCH + 1).unwrap();
        let waiters: Vec<_> =
            (0..count).map(|n| Registration::listen(Waiter::new(Kind::Take, n, n, Waker::noop()), &inbox)).collect();
        let mut found = Vec::new();
        empty_inbox(&inbox, |waiter| found.push(waiter.min));
        assert!(found.iter().copied().eq(0..count));
        for mut waiter in waiters {
            assert!(waiter.discard_listener());
        }
    }
}
