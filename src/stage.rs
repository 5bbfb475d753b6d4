//! How far a future has come: what the futures for tokens, for room, and for an idle or settled bucket share.

use core::mem::{self, ManuallyDrop};
use core::task::{Context, Poll};

use crate::TokenBucket;
use crate::state::{Kind, Refused};
use crate::waiter::{Registration, Waiter, WakeList};

pub(crate) enum Stage {
    /// Not polled yet.
    Fresh,
    /// In the queue, which it must leave: a registration is never just dropped.
    Queued(ManuallyDrop<Registration>),
    Done,
}

impl Stage {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "new",
            Self::Queued(_) => "waiting",
            Self::Done => "done",
        }
    }

    #[inline]
    pub(crate) fn queued(registration: Registration) -> Self {
        Self::Queued(ManuallyDrop::new(registration))
    }

    /// Leaves the queue, if the future is in it.
    #[cold]
    pub(crate) fn cancel(&mut self, bucket: &TokenBucket) {
        if let Self::Queued(registration) = mem::replace(self, Self::Done) {
            bucket.combiner().cancel(ManuallyDrop::into_inner(registration));
        }
    }

    /// Done: the wait has ended. What is left of the waiter is cleared away.
    #[inline]
    pub(crate) fn finish(&mut self) {
        if let Self::Queued(registration) = mem::replace(self, Self::Done) {
            ManuallyDrop::into_inner(registration).discard_listener();
        }
    }

    /// Joins the queue if necessary, and polls the waiter in it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call more costs a tenth of a hand-over")]
    pub(crate) fn poll_queued(
        &mut self,
        bucket: &TokenBucket,
        cx: &mut Context<'_>,
        wakes: &mut WakeList,
        (kind, min, up_to): (Kind, u32, u32),
    ) -> Poll<Result<u32, Refused>> {
        let combiner = bucket.combiner();
        let mut registered = false;
        if let Self::Fresh = self {
            let registration = combiner.enqueue(Waiter::new(kind, min, up_to, cx.waker()), wakes);
            let is_waiting = registration.waiter.is_waiting();
            *self = Self::queued(registration);
            if is_waiting {
                return Poll::Pending;
            }
            registered = true;
        }
        match self {
            Self::Queued(registration) => combiner.poll(&registration.waiter, cx.waker(), registered, wakes),
            Self::Fresh | Self::Done => unreachable!("it is queued"),
        }
    }
}
