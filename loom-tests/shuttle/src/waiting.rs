//! Futures that wait, and wakers that see to it that they are treated well.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use token_bucket::{Release, Take, Token, TokenBucket, Watch};

shuttle::thread_local! {
    /// The waiter that this thread polls or drops. Else no waker of it may be dropped here.
    static IN_HAND: std::cell::Cell<usize> = std::cell::Cell::new(usize::MAX);
}

/// When all threads have ended, the main thread may do as it likes.
static AT_REST: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_at_rest(at_rest: bool) {
    AT_REST.store(at_rest, Relaxed);
}

/// Woken at all, since the last poll.
type Woken = Arc<AtomicBool>;

struct Watchful {
    id: usize,
    woken: Woken,
    was_woken: AtomicBool,
}

impl Wake for Watchful {
    fn wake(self: Arc<Self>) {
        self.was_woken.store(true, Relaxed);
        self.woken.store(true, Relaxed);
    }
}

impl Drop for Watchful {
    fn drop(&mut self) {
        let in_hand = IN_HAND.try_with(std::cell::Cell::get).is_ok_and(|id| id == self.id);
        let is_right = in_hand || self.was_woken.load(Relaxed) || AT_REST.load(Relaxed);
        assert!(
            is_right || std::thread::panicking(),
            "the waker of {} was dropped by another thread: under ownership (C1)",
            self.id
        );
    }
}

pub(crate) enum Operation<'a> {
    Take(Take<'a>),
    Release(Release<'a>),
    Watch(Watch<'a>),
}

#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Tokens(Token<'a>),
    Released,
    Reached,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Take { min: usize, up_to: usize },
    Release,
    Idle,
    Settled,
}

pub(crate) struct Waiting<'a> {
    pub(crate) id: usize,
    pub(crate) kind: Kind,
    /// When the first poll began and ended.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    future: Option<Operation<'a>>,
    woken: Woken,
    /// Found by the poll of another thread.
    outcome: Option<Outcome<'a>>,
}

/// One thread at a time has it in hand; others must not wait for that, as shuttle does not know of this lock.
pub(crate) type Shared<'a> = Arc<Mutex<Waiting<'a>>>;

impl<'a> Waiting<'a> {
    pub(crate) fn new(bucket: &'a TokenBucket, id: usize, begin: usize, kind: Kind) -> Self {
        let future = match kind {
            Kind::Take { min, up_to } if min == up_to => Operation::Take(bucket.take_many(min)),
            Kind::Take { up_to, .. } => Operation::Take(bucket.take_up_to(up_to)),
            Kind::Release => Operation::Release(bucket.release()),
            Kind::Idle => Operation::Watch(bucket.idle()),
            Kind::Settled => Operation::Watch(bucket.settled()),
        };
        Self { id, kind, begin, end: usize::MAX, future: Some(future), woken: Woken::default(), outcome: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.future.is_none() && self.outcome.is_none()
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.outcome.is_some() || self.woken.load(Relaxed)
    }

    pub(crate) fn poll(&mut self) -> Poll<Outcome<'a>> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(outcome);
        }
        let Some(future) = &mut self.future else { return Poll::Pending };
        IN_HAND.with(|in_hand| in_hand.set(self.id));
        self.woken.store(false, Relaxed);
        let waker =
            Waker::from(Arc::new(Watchful { id: self.id, woken: Arc::clone(&self.woken), was_woken: AtomicBool::new(false) }));
        let mut cx = Context::from_waker(&waker);
        let polled = match future {
            Operation::Take(take) => Pin::new(take).poll(&mut cx).map(|taken| taken.map_or(Outcome::Closed, Outcome::Tokens)),
            Operation::Release(release) => {
                Pin::new(release).poll(&mut cx).map(|released| released.map_or(Outcome::Closed, |()| Outcome::Released))
            }
            Operation::Watch(watch) => Pin::new(watch).poll(&mut cx).map(|()| Outcome::Reached),
        };
        drop(waker);
        if polled.is_ready() {
            self.future = None;
        }
        IN_HAND.with(|in_hand| in_hand.set(usize::MAX));
        polled
    }

    /// For another thread, which leaves the outcome to the waiter's own.
    pub(crate) fn is_still_pending(&mut self) -> bool {
        if self.future.is_none() {
            return false;
        }
        match self.poll() {
            Poll::Ready(outcome) => {
                self.outcome = Some(outcome);
                false
            }
            Poll::Pending => true,
        }
    }

    /// What it had been given is returned.
    pub(crate) fn cancel(&mut self) -> Option<Outcome<'a>> {
        IN_HAND.with(|in_hand| in_hand.set(self.id));
        self.future = None;
        IN_HAND.with(|in_hand| in_hand.set(usize::MAX));
        self.outcome.take()
    }
}
