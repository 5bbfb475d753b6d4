//! [`RateLimiter`]: a limit on how many tokens are granted per unit of time. One waiter sleeps for all.

mod access;
mod schedule;
mod wait;

use alloc::boxed::Box;
use core::error::Error;
use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::{Closed, LimitError, NotYet, RateError, Refill, WaitError};
use schedule::Schedule;
pub use wait::RateTake;

/// Limits how many tokens are taken per unit of time, on any runtime and on threads.
///
/// ```
/// use std::time::Duration;
/// use token_bucket::{NotYet, RateLimiter};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// // 100 a second, in bursts of at most 5
/// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
///
/// for _ in 0..10 {
///     limiter.take(1, tokio::time::sleep).await?; // 5 at once, then one every 10 ms
/// }
///
/// match limiter.try_take(2) {
///     Ok(()) => println!("granted"),
///     Err(NotYet::RetryAfter(wait)) => println!("Retry-After: {}", wait.as_secs() + 1),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Threads wait in the same queue:
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use token_bucket::RateLimiter;
/// let limiter = RateLimiter::new(200, Duration::from_secs(1), 1)?;
/// let start = Instant::now();
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| limiter.wait(1));
///     }
/// });
/// assert!(start.elapsed() >= Duration::from_millis(15)); // 1 at once, then 1 every 5 ms
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A limiter is a bucket of `burst` tokens that starts full and regains `rate` tokens per `per`, evenly spread, up to `burst`. **A
/// taken token comes back by time alone**: there is no guard to hold or to forget, and no driver to run.
///
/// Use [`try_take`](Self::try_take) to refuse a request, with the time after which to retry; [`take`](Self::take) to wait in async
/// code; and [`wait`](Self::wait) to block a thread. Rate and burst can be changed at any time, even to 0, which is a pause.
///
/// # Waiting
///
/// All waiters share one queue, whatever their runtime. No task, thread or timer runs in the background: the waiter at the head of
/// the queue, the *leader*, sleeps until its tokens are due, with the timer of its own runtime. When it is granted its tokens or is
/// dropped, the next waiter takes over. Nothing runs while the queue is empty.
///
/// Every poll of a waiter, and every call on the limiter but `rate`, `burst` and `is_closed`, first grants what is due, in order.
/// If the leader is late, tokens are lost only while the limiter is full.
///
/// A timer is rarely exact: tokio's is up to 2 ms late. To make full use of the rate, let the burst be at least the largest request
/// plus what becomes due in that time.
///
/// **Poll or drop what you started.** A leader that is kept without being polled, or leaked
/// ([`mem::forget`](core::mem::forget)), is granted its tokens by the next call of another task or thread on the limiter. Until
/// then, all waiters behind it sleep, blocked threads too: for good if no call comes.
///
/// # Exactness
///
/// In any time T, at most rate × T tokens (rounded up) plus one burst are granted, whatever is cancelled, late or concurrent. The
/// fraction of a token that is due carries over, so that the long-run rate is exact.
///
/// If the rate changes, "rate × T" is the sum over the rates that were in force. If the burst changes, "one burst" is the largest
/// one that was in force; see [`set_burst`](Self::set_burst).
///
/// The time of a grant is that of the call that made it. A future that has been granted its tokens and is polled later, or a thread
/// that gets to run later, uses them later. Time is what [`Instant`] measures, so under tokio's paused clock, which ends each
/// sleep at once, a future polls again and again until the time has really passed.
///
/// # Fairness
///
/// Waiters are granted their tokens in the order in which they were first polled (or first blocked), even if they ask for different
/// numbers of tokens. No caller, not even `try_take`, can overtake a waiter. There is one exception: waiters that ask for more than
/// the burst, because it was lowered after they had queued, are deferred without blocking the others, and regain their places once
/// the burst is large enough.
///
/// # Memory ordering
///
/// Every call happens-after the calls that came before it in the (single, total) order in which they locked the limiter.
///
/// # Panics
///
/// No argument causes a panic. If a [`Waker`](core::task::Waker) panics in a call that wakes it, the other waiters are still woken,
/// and the panic continues in that call; tokens that the call had taken come back by time, and a future that became ready in it
/// has completed. The limiter stays usable. Wakers and
/// `sleep` functions run without a lock held, and may call the limiter. (If two wakers panic in one call, the process aborts, as
/// after any second panic during unwinding. If a waker drops its own pending future, the grants recurse; many thousands of such
/// waiters can overflow the stack.)
pub struct RateLimiter {
    origin: Instant,
    schedule: Mutex<Schedule>,
}

impl RateLimiter {
    /// Creates a limiter of `rate` tokens per `per`, evenly spread, and at most `burst` at once. It starts with `burst` tokens.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{RateError, RateLimiter};
    /// let limiter = RateLimiter::new(64 << 20, Duration::from_secs(1), 1 << 20)?; // 64 MiB a second
    /// assert_eq!(limiter.available(), 1 << 20);
    /// assert!(matches!(RateLimiter::new(10, Duration::ZERO, 1), Err(RateError::PeriodIsZero)));
    /// # Ok::<(), RateError>(())
    /// ```
    ///
    /// In a `static`, put it in a [`LazyLock`](std::sync::LazyLock):
    ///
    /// ```
    /// # use std::sync::LazyLock;
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// static MAILS: LazyLock<RateLimiter> = LazyLock::new(|| RateLimiter::new(10, Duration::from_secs(60), 2).unwrap());
    /// assert!(MAILS.try_take(1).is_ok());
    /// ```
    ///
    /// Any `rate` and any `burst` are accepted. At a rate of 0, no tokens come back; while the burst is 0, none are granted.
    ///
    /// # Errors
    ///
    /// If `per` is 0 or above [`Refill::MAX_PERIOD`].
    pub fn new(rate: usize, per: Duration, burst: usize) -> Result<Self, RateError> {
        let schedule = Schedule::new(Refill::new(rate, per)?, burst);
        Ok(Self { origin: Instant::now(), schedule: Mutex::new(schedule) })
    }

    /// Takes `n` tokens if they are available and no waiter comes first. Never waits for tokens.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{NotYet, RateLimiter};
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
    /// limiter.try_take(1)?;
    /// let Err(NotYet::RetryAfter(wait)) = limiter.try_take(1) else { panic!("granted") };
    /// assert!(wait <= Duration::from_secs(60));
    /// assert!(matches!(limiter.try_take(2), Err(NotYet::ExceedsBurst { burst: 1, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotYet::RetryAfter`] says how long it takes until the tokens are available, after those of all queued waiters, if nothing
    /// else changes. [`NotYet::Paused`] if that is unknown, because the rate or the burst is 0. [`NotYet::ExceedsBurst`] and
    /// [`NotYet::Closed`]. Nothing is taken in any of these cases.
    #[inline]
    pub fn try_take(&self, n: usize) -> Result<(), NotYet> {
        let now = Instant::now();
        let mut schedule = self.lock_and_tick(now);
        if schedule.take(n) { Ok(()) } else { self.try_take_slow(schedule, n, now) }
    }

    #[cold]
    fn try_take_slow(&self, mut schedule: MutexGuard<'_, Schedule>, n: usize, now: Instant) -> Result<(), NotYet> {
        let now = now.saturating_duration_since(self.origin);
        if schedule.waiting() == 0 {
            schedule.tick(now);
            return schedule.try_take(n);
        }
        drop(schedule);
        self.with(now, |schedule, _| schedule.try_take(n))
    }

    /// Takes `n` tokens, and waits for them in the queue if necessary. `sleep` is the timer of the runtime: `tokio::time::sleep`,
    /// `smol::Timer::after`, or any other function that returns a future which is ready after the given time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// # smol::block_on(async {
    /// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
    /// limiter.take(3, smol::Timer::after).await?;
    /// limiter.take(3, smol::Timer::after).await?; // waits for the sixth token
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// The future calls `sleep` only while it is the leader. A sleep may end early or late: the future then sleeps again, or is
    /// granted what has become due.
    ///
    /// # Errors
    ///
    /// The future is ready with [`LimitError::ExceedsBurst`] at once if `n` is above the burst,
    /// unless the burst is 0, and with [`LimitError::Closed`] as soon as the limiter is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place in the queue, and tokens that it has just been granted go to the next waiters.
    /// (If the limiter would have been full in the meantime without undelivered grants, cancelled tokens come back by time alone.)
    /// So use the runtime's own timeout:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let limiter = RateLimiter::new(1, Duration::from_secs(3600), 1)?;
    /// limiter.take(1, tokio::time::sleep).await?;
    ///
    /// let limit = Duration::from_millis(10);
    /// let second = tokio::time::timeout(limit, limiter.take(1, tokio::time::sleep)).await;
    /// assert!(second.is_err()); // the next token is due in an hour
    /// assert_eq!(limiter.waiting(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take<S, F>(&self, n: usize, sleep: S) -> RateTake<'_, S, F>
    where
        S: Fn(Duration) -> F,
        F: Future,
    {
        RateTake::new(self, n, sleep)
    }

    /// Takes `n` tokens, and blocks this thread until they are granted.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
    /// for _ in 0..7 {
    ///     limiter.wait(1)?; // 5 at once, then one every 10 ms
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A method of the limiter: a future would need a `sleep`, and a thread needs none. **Do not call this from an async task**: it
    /// would block the executor.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    pub fn wait(&self, n: usize) -> Result<(), LimitError> {
        match self.block(n, None) {
            Some(result) => result,
            None => unreachable!("without a deadline there is no timeout"),
        }
    }

    /// Takes `n` tokens, and blocks this thread until they are granted, but no longer than `timeout`. A timeout too large to
    /// represent is treated as infinite.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{RateLimiter, WaitError};
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
    /// limiter.wait(1)?;
    /// let result = limiter.wait_timeout(1, Duration::from_millis(1));
    /// assert!(matches!(result, Err(WaitError::TimedOut)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`], and the errors of [`take`](Self::take) as [`WaitError::Failed`].
    pub fn wait_timeout(&self, n: usize, timeout: Duration) -> Result<(), WaitError<LimitError>> {
        self.wait_until(n, Instant::now().checked_add(timeout))
    }

    /// Takes `n` tokens, and blocks this thread until they are granted, but only until `deadline`. If tokens are available the call
    /// succeeds even when the deadline has already passed.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
    /// let deadline = Instant::now() + Duration::from_millis(1);
    /// assert!(limiter.wait_deadline(1, deadline).is_ok());
    /// assert!(limiter.wait_deadline(1, deadline).is_err()); // the same deadline for both
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`], and the errors of [`take`](Self::take) as [`WaitError::Failed`].
    pub fn wait_deadline(&self, n: usize, deadline: Instant) -> Result<(), WaitError<LimitError>> {
        self.wait_until(n, Some(deadline))
    }

    /// Changes the rate to `rate` tokens per `per`, from now on. A rate of 0 stops the refill: available tokens can still be taken,
    /// and waiters wait for the next change.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::new(100, second, 5)?;
    /// limiter.set_rate(200, second)?;
    /// assert_eq!(limiter.rate(), (200, second));
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// The time before the change is credited at the old rate. The leader is woken to adjust its sleep, so waiters benefit from a
    /// higher rate at once.
    ///
    /// # Errors
    ///
    /// If `per` is 0 or above [`Refill::MAX_PERIOD`]. The old rate stays in force then.
    pub fn set_rate(&self, rate: usize, per: Duration) -> Result<(), RateError> {
        let now = self.now();
        self.with(now, |schedule, _| schedule.set_rate(now, rate, per))
    }

    /// Changes how many tokens can be available at once. A burst of 0 is a pause: every request waits, in order.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(1, Duration::from_secs(3600), 10)?;
    /// limiter.try_take(8)?;
    /// limiter.set_burst(5);
    /// assert_eq!(limiter.available(), 0); // 3 must come back before the next one is
    /// limiter.set_burst(10);
    /// assert_eq!(limiter.available(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The available tokens change by as much as the burst does. So a larger burst can be used at once; after a smaller one, it may
    /// take some time until tokens are available again; and repeated changes net out: lowering the burst and raising it again
    /// grants no extra token.
    ///
    /// A waiter that asks for more than the new burst is deferred, without blocking the others, and regains its place in the queue
    /// once the burst is large enough. (A request that comes later fails at once, unless the burst is 0.)
    pub fn set_burst(&self, burst: usize) {
        self.with(self.now(), |schedule, _| schedule.set_burst(burst));
    }

    /// Returns the rate in force, as it was given: a number of tokens and a period.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(90, Duration::from_secs(60), 5)?;
    /// let (tokens, per) = limiter.rate();
    /// assert_eq!((tokens, per.as_secs()), (90, 60));
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    pub fn rate(&self) -> (usize, Duration) {
        self.lock().rate()
    }

    /// Returns how many tokens can be available at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
    /// limiter.set_burst(8);
    /// assert_eq!(limiter.burst(), 8);
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    pub fn burst(&self) -> usize {
        self.lock().burst()
    }

    /// Returns how many tokens are available now. (They may be for a waiter that needs more.)
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 5)?;
    /// limiter.try_take(2)?;
    /// assert_eq!(limiter.available(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn available(&self) -> usize {
        self.with(self.now(), |schedule, _| schedule.available())
    }

    /// Returns how many tasks and threads wait for tokens. (After a close, each counts until it is polled or dropped.)
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(1, Duration::from_secs(60), 1)?;
    /// limiter.wait(1)?;
    /// assert!(limiter.wait_timeout(1, Duration::from_millis(1)).is_err());
    /// assert_eq!(limiter.waiting(), 0); // the timed-out request is no longer queued
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waiting(&self) -> usize {
        self.with(self.now(), |schedule, _| schedule.waiting())
    }

    /// Closes the limiter for good: from now on nothing is granted, and every waiter is woken and gets [`Closed`]. A waiter that
    /// was granted its tokens before, and was not polled yet, still gets them.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{NotYet, RateLimiter};
    /// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
    /// assert!(limiter.close());
    /// assert!(matches!(limiter.try_take(1), Err(NotYet::Closed(_))));
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// Returns true for the call that closed it.
    #[allow(clippy::must_use_candidate, reason = "the call is for its effect")]
    pub fn close(&self) -> bool {
        self.close_for(Closed::new())
    }

    /// Closes the limiter as [`close`](Self::close) does, with a cause that every caller gets as the [`source`](Error::source) of
    /// [`Closed`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1), 10)?;
    /// assert!(limiter.close_with("the API key was revoked"));
    /// let error = limiter.try_take(1).unwrap_err().to_string();
    /// assert_eq!(error, "rate limiter is closed: the API key was revoked");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(clippy::must_use_candidate, reason = "the call is for its effect")]
    pub fn close_with(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.close_for(Closed::because(cause.into()))
    }

    /// Returns whether the limiter was closed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::RateLimiter;
    /// let limiter = RateLimiter::new(100, Duration::from_secs(1), 5)?;
    /// limiter.close();
    /// assert!(limiter.is_closed());
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    fn close_for(&self, closed: Closed) -> bool {
        // A cause that comes too late is dropped here, without the lock.
        self.with(self.now(), |schedule, outbox| schedule.close(closed, outbox)).is_ok()
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((rate, per), burst, available, waiting, closed) = self.with(self.now(), |schedule, _| {
            (schedule.rate(), schedule.burst(), schedule.available(), schedule.waiting(), schedule.is_closed())
        });
        f.debug_struct("RateLimiter")
            .field("rate", &rate)
            .field("per", &per)
            .field("burst", &burst)
            .field("available", &available)
            .field("waiting", &waiting)
            .field("closed", &closed)
            .finish()
    }
}
