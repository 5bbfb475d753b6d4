//! [`Refill`]: tokens that become due over time.
//!
//! The arithmetic is exact. A rate is a number of tokens per number of nanoseconds, and the part of the next token that is due
//! already is kept as a fraction whose denominator is that number of nanoseconds. Nothing is rounded from tick to tick: however the
//! ticks fall, the tokens that became due add up to the floor of rate × time. The product of two 64-bit numbers plus a third one
//! fits into 128 bits, so nothing overflows.

use core::time::Duration;
#[cfg(feature = "std")]
use std::time::Instant;

use crate::{RateError, TokenBucket};

/// Adds tokens to a bucket at a fixed rate: the refill clock of a rate limiter, without timer, task, thread or lock.
///
/// **To limit a rate, use [`RateLimiter`](crate::RateLimiter), which needs neither a driver nor care with guards.** A `Refill` is
/// the part to build on without `std`, or where something else already keeps the time.
///
/// **Callers must [`forget()`](crate::Token::forget) each token.** A token that is merely dropped goes straight back and nothing is
/// limited.
///
/// A thousand tokens per second, at most 50 at once:
///
/// ```
/// use std::time::Duration;
/// use token_bucket::{Refill, TokenBucket};
///
/// let bucket = TokenBucket::new(1000, 50)?;
/// let mut refill = Refill::new(1000, Duration::from_secs(1))?;
/// let at = Duration::from_micros;
///
/// refill.tick(&bucket, at(0)); // starts the clock
/// bucket.try_take_many(50)?.forget();
///
/// let tick = refill.tick(&bucket, at(10_500));
/// assert_eq!((tick.added, bucket.available()), (10, 10));
/// assert_eq!(tick.next, Some(at(11_000)));
///
/// let tick = refill.tick(&bucket, at(100_000));
/// assert_eq!((tick.added, tick.lost), (40, 50)); // the bucket is full
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Driven by a thread while others wait for tokens. The rate may become 0 here, so the thread sleeps for a while if no token will
/// become due:
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use token_bucket::{Refill, TokenBucket};
/// static BUCKET: TokenBucket = TokenBucket::const_new(100, 5);
///
/// let start = Instant::now();
/// let mut refill = Refill::new(500, Duration::from_secs(1))?;
/// let driver = std::thread::spawn(move || {
///     while !BUCKET.is_closed() {
///         refill.tick_now(&BUCKET);
///         let pause = match refill.next_at() {
///             Some(next) => next.saturating_duration_since(Instant::now()),
///             None => Duration::from_millis(10), // paused
///         };
///         std::thread::sleep(pause);
///     }
/// });
/// for _ in 0..15 {
///     BUCKET.take().wait()?.forget();
/// }
/// assert!(start.elapsed() >= Duration::from_millis(20)); // 5 at once, then one every 2 ms
/// BUCKET.close();
/// driver.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A `Refill` is owned by the task that drives it, which passes in the current time: [`tick`](Self::tick) adds the tokens that
/// became due since the previous tick. The interval between ticks does not affect the numbers; a late tick adds everything that is
/// due.
///
/// The capacity of the bucket is the size of a burst. A tick fills the bucket up to its capacity and never above it (a
/// [deficit](TokenBucket::deficit) is paid first); tokens for which there is no room are lost. The capacity can be changed at any
/// time with [`set_capacity`](TokenBucket::set_capacity), and the rate with [`set_rate`](Self::set_rate).
///
/// In any time T, at most rate × T tokens (rounded up) plus one burst are taken, provided that no tick is late. After a late tick
/// the overdue tokens arrive together, so up to two bursts may pass.
///
/// # Time
///
/// Times are measured from an arbitrary origin, the same for all ticks: a hardware counter, the uptime, or virtual time in a test.
/// The first tick (or change of the rate) starts the clock, and nothing is due then.
///
/// A tick at the same time as the one before adds nothing. A time before the latest one seen counts as the latest: it adds nothing
/// and removes nothing, and tokens become due again once the time has passed the latest one, so no span of time is credited twice.
/// A leap forward is credited like any other time, but at most [584 years](Self::MAX_PERIOD) of it per tick.
///
/// With `std`, [`tick_now`](Self::tick_now) and [`set_rate_now`](Self::set_rate_now) read the clock. Their origin is their first
/// call; on one `Refill`, use either these or the forms that are passed the time.
#[derive(Debug)]
pub struct Refill {
    rate: Rate,
    /// The part of the next token that is due, in units of 1 / `denominator`; less than `denominator`.
    fraction: u64,
    /// The period, in nanoseconds, of the latest rate above 0; 1 before there was one.
    denominator: u64,
    /// Whole tokens that are due and have not been collected.
    due: u128,
    /// The latest time seen, in nanoseconds, once the clock runs.
    latest: Option<u128>,
    #[cfg(feature = "std")]
    origin: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    tokens: usize,
    nanos: u64,
}

/// The result of a tick of a [`Refill`].
///
/// ```
/// # use std::time::Duration;
/// # use token_bucket::{Refill, TokenBucket};
/// # let bucket = TokenBucket::with_capacity(5);
/// # bucket.try_take_many(3)?.forget();
/// let second = Duration::from_secs(1);
/// let mut refill = Refill::new(4, second)?;
/// refill.tick(&bucket, second * 10); // starts the clock
/// let tick = refill.tick(&bucket, second * 11);
/// assert_eq!((tick.added, tick.lost), (3, 1)); // there was room for three
/// assert_eq!(tick.next, Some(second * 11 + second / 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tick {
    /// The tokens that were due and were added to the bucket (or paid off a deficit).
    pub added: usize,
    /// The tokens that were due but for which the bucket had no room; [`usize::MAX`] if there are more than that.
    pub lost: usize,
    /// When the next token is due, on the clock that the tick was passed. `None` if the rate is 0, or if that is later than
    /// [`Duration::MAX`].
    pub next: Option<Duration>,
}

impl Rate {
    fn new(tokens: usize, per: Duration) -> Result<Self, RateError> {
        match u64::try_from(per.as_nanos()) {
            Ok(0) => Err(RateError::PeriodIsZero),
            Ok(nanos) => Ok(Self { tokens, nanos }),
            Err(_) => Err(RateError::PeriodTooLong { per, limit: Refill::MAX_PERIOD }),
        }
    }
}

impl Refill {
    /// The longest period of a rate: 2⁶⁴ − 1 nanoseconds, about 584 years.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::Refill;
    /// assert!(Refill::new(1, Refill::MAX_PERIOD).is_ok());
    /// assert!(Refill::new(1, Refill::MAX_PERIOD + Duration::from_nanos(1)).is_err());
    /// ```
    pub const MAX_PERIOD: Duration = Duration::from_nanos(u64::MAX);

    /// Creates a refill of `tokens` tokens per `per`, evenly spread. With 0 tokens, the refill is paused.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::Refill;
    /// let refill = Refill::new(90, Duration::from_secs(60))?; // one every 667 ms
    /// assert!(Refill::new(90, Duration::ZERO).is_err());
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `per` is 0 or above [`MAX_PERIOD`](Self::MAX_PERIOD). Any number of tokens is accepted.
    pub fn new(tokens: usize, per: Duration) -> Result<Self, RateError> {
        let rate = Rate::new(tokens, per)?;
        Ok(Self {
            rate,
            fraction: 0,
            denominator: if tokens == 0 { 1 } else { rate.nanos },
            due: 0,
            latest: None,
            #[cfg(feature = "std")]
            origin: None,
        })
    }

    /// Returns the rate in force, as it was given: a number of tokens and a period.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::Refill;
    /// let refill = Refill::new(90, Duration::from_secs(60))?;
    /// assert_eq!(refill.rate(), (90, Duration::from_secs(60)));
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    #[must_use]
    pub fn rate(&self) -> (usize, Duration) {
        (self.rate.tokens, Duration::from_nanos(self.rate.nanos))
    }

    /// Changes the rate from `now` on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{Refill, TokenBucket};
    /// # let bucket = TokenBucket::new(100, 100)?;
    /// # bucket.try_take_many(100)?.forget();
    /// let second = Duration::from_secs(1);
    /// let mut refill = Refill::new(10, second)?;
    /// refill.tick(&bucket, second * 0);
    /// refill.set_rate(second * 3, 1, second)?;
    /// assert_eq!(refill.tick(&bucket, second * 5).added, 3 * 10 + 2 * 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Tokens that became due before `now` are due at the old rate and are added to the bucket by the next tick. The fraction of
    /// the next token that is due is kept, through a pause as well: exactly if the period stays the same, otherwise rounded down by
    /// less than the new rate yields in a nanosecond.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new). The old rate stays in force then, and the clock does not advance.
    #[allow(clippy::missing_panics_doc, reason = "it never panics")]
    pub fn set_rate(&mut self, now: Duration, tokens: usize, per: Duration) -> Result<(), RateError> {
        let rate = Rate::new(tokens, per)?;
        self.advance(now);
        self.rate = rate;
        // A pause yields nothing, so the denominator may stay as it is.
        if tokens > 0 {
            let fraction = u128::from(self.fraction) * u128::from(rate.nanos) / u128::from(self.denominator);
            self.fraction = u64::try_from(fraction).expect("a fraction of one token");
            self.denominator = rate.nanos;
        }
        Ok(())
    }

    /// Adds the tokens that became due until `now` to the bucket.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{Refill, TokenBucket};
    /// let bucket = TokenBucket::with_capacity(5);
    /// bucket.try_take_many(5)?.forget();
    /// let mut refill = Refill::new(100, Duration::from_secs(1))?;
    /// refill.tick(&bucket, Duration::from_millis(0)); // starts the clock
    /// assert_eq!(refill.tick(&bucket, Duration::from_millis(25)).added, 2);
    /// assert_eq!(refill.tick(&bucket, Duration::from_millis(30)).added, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// They go to waiters at once, as returned tokens do. Like the drop of a token, this also works on a closed bucket.
    pub fn tick(&mut self, bucket: &TokenBucket, now: Duration) -> Tick {
        self.advance(now);
        let due = core::mem::take(&mut self.due);
        let added = if due == 0 { 0 } else { bucket.combiner().top_up(saturate(due)) };
        Tick { added, lost: saturate(due - added as u128), next: self.due_at(1) }
    }

    /// Credits the time until `now`.
    #[inline]
    fn advance(&mut self, now: Duration) {
        let now = now.as_nanos();
        let latest = self.latest.unwrap_or(now);
        let passed = u64::try_from(now.saturating_sub(latest)).unwrap_or(u64::MAX);
        self.latest = Some(latest.max(now));
        let fraction = u128::from(self.fraction) + u128::from(passed) * self.rate.tokens as u128;
        // A 64-bit division is several times as fast as a 128-bit one, and most of the time no token is due.
        match u64::try_from(fraction) {
            Ok(fraction) if fraction < self.denominator => self.fraction = fraction,
            Ok(fraction) => {
                self.due = self.due.saturating_add(u128::from(fraction / self.denominator));
                self.fraction = fraction % self.denominator;
            }
            Err(_) => self.advance_far(fraction),
        }
    }

    #[cold]
    fn advance_far(&mut self, fraction: u128) {
        let denominator = u128::from(self.denominator);
        self.due = self.due.saturating_add(fraction / denominator);
        self.fraction = u64::try_from(fraction % denominator).expect("less than the denominator");
    }

    /// When `count` more tokens will be due, on the clock of the ticks. `None` if never, or if the time cannot be represented.
    pub(crate) fn due_at(&self, count: u128) -> Option<Duration> {
        duration(self.latest?.checked_add(self.nanos_to(count)?)?)
    }

    /// How long after the latest tick `count` more tokens will be due. `None` if never, or if the duration cannot be represented.
    #[cfg(feature = "std")]
    pub(crate) fn due_in(&self, count: u128) -> Option<Duration> {
        duration(self.nanos_to(count)?)
    }

    fn nanos_to(&self, count: u128) -> Option<u128> {
        let missing = count.saturating_sub(self.due).checked_mul(u128::from(self.denominator))?;
        match (missing, self.rate.tokens) {
            (0, _) => Some(0),
            (_, 0) => None,
            (missing, tokens) => Some(div_ceil(missing - u128::from(self.fraction), tokens as u64)),
        }
    }
}

fn duration(nanos: u128) -> Option<Duration> {
    const NANOS_PER_SEC: u128 = 1_000_000_000;
    if let Ok(nanos) = u64::try_from(nanos) {
        return Some(Duration::from_nanos(nanos));
    }
    let below_a_second = u32::try_from(nanos % NANOS_PER_SEC).expect("less than a second");
    Some(Duration::new(u64::try_from(nanos / NANOS_PER_SEC).ok()?, below_a_second))
}

/// Uses the faster 64-bit division where it suffices.
fn div_ceil(n: u128, by: u64) -> u128 {
    match u64::try_from(n) {
        Ok(n) => n.div_ceil(by).into(),
        Err(_) => n.div_ceil(by.into()),
    }
}

fn saturate(n: u128) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(feature = "std")]
impl Refill {
    /// Takes the tokens that became due until `now`: a tick for an owner that stores the tokens itself.
    #[inline]
    pub(crate) fn collect(&mut self, now: Duration) -> usize {
        self.advance(now);
        saturate(core::mem::take(&mut self.due))
    }

    /// Adds the tokens that became due until now: [`tick`](Self::tick) with the current time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::{Refill, TokenBucket};
    /// let bucket = TokenBucket::with_capacity(5);
    /// bucket.try_take()?.forget();
    /// let mut refill = Refill::new(1000, Duration::from_secs(1))?;
    /// refill.tick_now(&bucket); // starts the clock
    /// std::thread::sleep(Duration::from_millis(2));
    /// assert_eq!(refill.tick_now(&bucket).added, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Tick::next`] counts from the first call; use [`next_at`](Self::next_at) instead.
    pub fn tick_now(&mut self, bucket: &TokenBucket) -> Tick {
        let now = self.now();
        self.tick(bucket, now)
    }

    /// Whether tokens become due a microsecond or more apart.
    #[inline]
    pub(crate) const fn is_slow(&self) -> bool {
        self.rate.tokens.saturating_mul(1000) as u64 <= self.rate.nanos
    }

    /// Changes the rate from now on: [`set_rate`](Self::set_rate) with the current time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use token_bucket::Refill;
    /// let mut refill = Refill::new(100, Duration::from_secs(1))?;
    /// refill.set_rate_now(0, Duration::from_secs(1))?; // a pause
    /// assert_eq!(refill.rate().0, 0);
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`set_rate`](Self::set_rate).
    pub fn set_rate_now(&mut self, tokens: usize, per: Duration) -> Result<(), RateError> {
        let now = self.now();
        self.set_rate(now, tokens, per)
    }

    /// Returns the instant at which the next token is due; the driver may sleep until then.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use token_bucket::{Refill, TokenBucket};
    /// # let bucket = TokenBucket::with_capacity(5);
    /// let mut refill = Refill::new(1, Duration::from_secs(60))?;
    /// assert_eq!(refill.next_at(), None); // the clock has not started
    /// refill.tick_now(&bucket);
    /// assert!(refill.next_at().is_some_and(|next| next > Instant::now()));
    /// # Ok::<(), token_bucket::RateError>(())
    /// ```
    ///
    /// `None` if the rate is 0, before the first `tick_now` or `set_rate_now`, or if the instant cannot be represented. The instant
    /// is in the past if the token has become due since the last tick.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.origin?.checked_add(self.due_at(1)?)
    }

    fn now(&mut self) -> Duration {
        self.origin.get_or_insert_with(Instant::now).elapsed()
    }
}
