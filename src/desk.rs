//! The server's desk: waiters that it has taken out of the queue, and could not serve.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::atomic::{Flag, Phase};
use crate::few::Few;
use crate::state::State;
use crate::sync::{Slot, const_fn};
use crate::waiter::Waiter;

/// Where the desk stands while nobody serves. Only a server may [open](Self::open) it (**L1** in `line.rs`).
pub(crate) struct Desk {
    papers: Slot<Box<Papers>>,
    is_empty: Flag,
}

/// What lies on the desk. All on it came before all in the queue.
#[derive(Default)]
struct Papers {
    /// Who is next, in order.
    front: VecDeque<Arc<Waiter>>,
    /// Those who want more than there can be, in order. All of them came before all at the front.
    aside: Vec<Arc<Waiter>>,
    /// The least that any of those aside wants.
    least: u32,
    /// The number of those aside at which those who have left are thrown out.
    full: usize,
}

/// The desk in the hands of the server. As mostly nothing lies on it, it is taken up only if there is need.
pub(crate) struct OpenDesk<'a> {
    desk: &'a Desk,
    papers: Option<Box<Papers>>,
}

impl Desk {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { papers: Slot::new(None), is_empty: Flag::new(true) }
        }
    }

    pub(crate) fn open(&self) -> OpenDesk<'_> {
        OpenDesk { desk: self, papers: None }
    }
}

impl Papers {
    fn is_empty(&self) -> bool {
        self.front.is_empty() && self.aside.is_empty()
    }
}

impl OpenDesk<'_> {
    /// For something to be put on it.
    fn papers(&mut self) -> &mut Papers {
        self.papers.get_or_insert_with(|| self.desk.papers.take().unwrap_or_default())
    }

    /// For what lies on it, if anything does.
    fn stock(&mut self) -> Option<&mut Papers> {
        if self.papers.is_some() || !self.desk.is_empty.get() { Some(self.papers()) } else { None }
    }

    pub(crate) fn pop_front(&mut self) -> Option<Arc<Waiter>> {
        self.stock()?.front.pop_front()
    }

    pub(crate) fn push_front(&mut self, waiter: Arc<Waiter>) {
        self.papers().front.push_front(waiter);
    }

    /// Puts those to the back of the front who have just come from the queue.
    pub(crate) fn push_back(&mut self, waiters: impl Iterator<Item = Arc<Waiter>>) {
        self.papers().front.extend(waiters);
    }

    /// Puts those back who were at the front, in order.
    pub(crate) fn put_back(&mut self, waiters: Few<Arc<Waiter>>) {
        for waiter in waiters.rest.into_iter().rev().chain(waiters.first) {
            self.push_front(waiter);
        }
    }

    /// Puts one aside who wants more than there can be.
    pub(crate) fn put_aside(&mut self, waiter: Arc<Waiter>) {
        let papers = self.papers();
        if papers.aside.len() >= papers.full {
            papers.aside.retain(|waiter| waiter.phase.load() == Phase::Waiting);
            papers.full = 2 * papers.aside.len() + 8;
        }
        papers.least = if papers.aside.is_empty() { waiter.need } else { papers.least.min(waiter.need) };
        papers.aside.push(waiter);
    }

    /// Puts those aside back to the front, in order, if one of them can be served now.
    pub(crate) fn bring_back(&mut self, seen: State) {
        let Some(papers) = self.stock() else { return };
        if !papers.aside.is_empty() && seen.reaches(papers.least) {
            for waiter in papers.aside.drain(..).rev() {
                papers.front.push_front(waiter);
            }
        }
    }

    /// Everybody, in order. They are off the desk then.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Arc<Waiter>> + use<'_> {
        self.stock().into_iter().flat_map(|papers| papers.aside.drain(..).chain(papers.front.drain(..)))
    }

    /// Whether anybody waits aside. As long as it seems so, no return of tokens is a plain one.
    pub(crate) fn has_aside(&mut self) -> bool {
        let Some(papers) = self.stock() else { return false };
        while papers.aside.last().is_some_and(|waiter| waiter.phase.load() != Phase::Waiting) {
            papers.aside.pop();
        }
        !papers.aside.is_empty()
    }

    /// Leaves the desk to the next server. If there is none, it can still be used.
    pub(crate) fn close(&mut self) {
        if let Some(papers) = self.papers.take() {
            self.desk.is_empty.set(papers.is_empty());
            self.desk.papers.swap(Some(papers));
        }
    }
}
