//! How a request waits: as a future, with the sleep of any runtime, or by blocking a thread.

use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::time::Instant;

use futures_core::future::FusedFuture;

use super::RateLimiter;
use super::schedule::{Request, Stage, Turn};
use crate::sync::coop;
use crate::{LimitError, WaitError, block};

/// The longest sleep of a leader: runtimes differ in the durations that they can represent.
const MAX_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// A request and its limiter. Dropping it cancels the request.
pub(super) struct Attempt<'a> {
    limiter: &'a RateLimiter,
    pub(super) request: Request,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(limiter: &'a RateLimiter, n: usize) -> Self {
        Self { limiter, request: Request::new(n) }
    }

    /// The poll of a task without budget: if the request is new and can wait, it takes its place in the queue.
    #[cold]
    fn join(&mut self, now: Duration, waker: &Waker) {
        let mut waker = Some(waker.clone());
        self.limiter.with(now, |schedule, _| schedule.join(&mut self.request, &mut waker));
    }

    pub(super) fn poll(&mut self, now: Duration, waker: &Waker) -> Turn {
        // Cloned before the lock is taken. If it is not used, it is dropped afterwards.
        let mut waker = Some(waker.clone());
        self.limiter.with_tick(now, |schedule, outbox| schedule.poll(&mut self.request, &mut waker, outbox))
    }
}

impl Drop for Attempt<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Waiting(_) = self.request.stage {
            let limiter = self.limiter;
            limiter.with(limiter.now(), |schedule, outbox| schedule.cancel(&mut self.request, outbox));
        }
    }
}

/// A future that waits for tokens, returned by [`RateLimiter::take`].
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::RateLimiter;
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
/// let request = limiter.take(2, tokio::time::sleep);
/// assert_eq!(limiter.available(), 5); // nothing is taken before the first poll
/// request.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It takes its place in the queue when it is first polled.
///
/// # Panics
///
/// If it is polled again after it has completed.
///
/// # Cancel safety
///
/// See [`RateLimiter::take`].
#[must_use = "futures do nothing unless polled or awaited"]
pub struct RateTake<'a, S, F> {
    attempt: Attempt<'a>,
    sleep: S,
    timer: Option<Timer<F>>,
}

/// A sleep, and the time at which it ends.
struct Timer<F> {
    alarm: Duration,
    sleep: Pin<Box<F>>,
}

impl<'a, S, F> RateTake<'a, S, F> {
    pub(super) fn new(limiter: &'a RateLimiter, n: usize, sleep: S) -> Self {
        Self { attempt: Attempt::new(limiter, n), sleep, timer: None }
    }
}

/// Neither is pinned: a sleep is pinned in its box.
impl<S, F> Unpin for RateTake<'_, S, F> {}

impl<S, F> Future for RateTake<'_, S, F>
where
    S: Fn(Duration) -> F,
    F: Future,
{
    type Output = Result<(), LimitError>;

    #[inline]
    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let limiter = this.attempt.limiter;
        let Poll::Ready(budget) = coop::poll_proceed(cx) else {
            this.attempt.join(limiter.now(), cx.waker());
            return Poll::Pending;
        };
        let polled = match this.attempt.request.stage {
            Stage::New if limiter.take_now(this.attempt.request.need) => {
                this.attempt.request.stage = Stage::Done;
                Poll::Ready(Ok(()))
            }
            Stage::New | Stage::Waiting(_) => this.poll_waiting(cx),
            Stage::Done => panic!("`RateTake` polled after it completed"),
        };
        budget.spend_if_ready(polled)
    }
}

impl<S, F> RateTake<'_, S, F>
where
    S: Fn(Duration) -> F,
    F: Future,
{
    #[cold]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LimitError>> {
        // A sleep that ended early is followed by another one. If that one ends at once, too, other tasks get a turn first.
        for _ in 0..2 {
            let alarm = match self.attempt.poll(self.attempt.limiter.now(), cx.waker()) {
                Turn::Pending(Some(alarm)) => alarm,
                Turn::Pending(None) => {
                    self.timer = None;
                    return Poll::Pending;
                }
                Turn::Done(result) => {
                    self.timer = None;
                    return Poll::Ready(result);
                }
            };
            if self.set_timer(alarm).as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns the sleep until `alarm`, which may have begun already.
    fn set_timer(&mut self, alarm: Duration) -> &mut Pin<Box<F>> {
        let timer = self.timer.take().filter(|timer| timer.alarm == alarm);
        let timer = timer.unwrap_or_else(|| {
            let wait = alarm.saturating_sub(self.attempt.limiter.now()).min(MAX_SLEEP);
            Timer { alarm, sleep: Box::pin((self.sleep)(wait)) }
        });
        &mut self.timer.insert(timer).sleep
    }
}

impl<S, F> FusedFuture for RateTake<'_, S, F>
where
    S: Fn(Duration) -> F,
    F: Future,
{
    fn is_terminated(&self) -> bool {
        matches!(self.attempt.request.stage, Stage::Done)
    }
}

impl<S, F> fmt::Debug for RateTake<'_, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { need, stage } = &self.attempt.request;
        let stage = match stage {
            Stage::New => "new",
            Stage::Waiting(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("RateTake").field("count", need).field("stage", &format_args!("{stage}")).finish_non_exhaustive()
    }
}

impl RateLimiter {
    pub(super) fn wait_until(&self, n: usize, deadline: Option<Instant>) -> Result<(), WaitError<LimitError>> {
        block::in_time(self.block(n, deadline))
    }

    /// Blocks this thread until `n` tokens are granted; `None` if the deadline passes first.
    pub(super) fn block(&self, n: usize, deadline: Option<Instant>) -> Option<Result<(), LimitError>> {
        if self.take_now(n) {
            return Some(Ok(()));
        }
        let mut attempt = Attempt::new(self, n);
        block::park_until(deadline, |waker| match attempt.poll(self.now(), waker) {
            Turn::Done(result) => ControlFlow::Break(result),
            Turn::Pending(alarm) => ControlFlow::Continue(alarm.and_then(|alarm| self.origin.checked_add(alarm))),
        })
    }
}
