//! How far a future has come: what the futures for tokens, for room, and for an idle or settled bucket share.

use core::mem::{self, ManuallyDrop};
use core::task::{Context, Poll, Waker};

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

    /// Joins the queue if the future is new.
    #[inline]
    pub(crate) fn join(&mut self, bucket: &TokenBucket, waker: &Waker, wakes: &mut WakeList, (kind, min, up_to): (Kind, u32, u32)) {
        if let Self::Fresh = self {
            *self = Self::Queued(ManuallyDrop::new(bucket.combiner().enqueue(Waiter::new(kind, min, up_to, waker), wakes)));
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
        request: (Kind, u32, u32),
    ) -> Poll<Result<u32, Refused>> {
        let is_fresh = matches!(self, Self::Fresh);
        self.join(bucket, cx.waker(), wakes, request);
        match self {
            // A shortcut: the poll would find the same.
            Self::Queued(registration) if is_fresh && registration.waiter.is_waiting() => Poll::Pending,
            Self::Queued(registration) => bucket.combiner().poll(&registration.waiter, cx.waker(), is_fresh, wakes),
            Self::Fresh | Self::Done => unreachable!("it is queued"),
        }
    }
}
