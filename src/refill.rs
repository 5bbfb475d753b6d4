//! [`Refill`]: tokens that become due as time goes by.
//!
//! The arithmetic is exact. A rate is so many tokens per so many nanoseconds, and what is due of the next token is kept as a
//! fraction of that period; so nothing is rounded from tick to tick, and however the ticks fall, all that was due adds up to the
//! floor of rate × time. A product of two 64-bit numbers and a third one fit into 128 bits, so nothing overflows.

use core::time::Duration;
#[cfg(feature = "std")]
use std::time::Instant;

use crate::{RateError, TokenBucket};

/// Fills a bucket up at a rate: the clockwork of a rate limiter, without timer, task, thread or lock.
///
/// Whoever drives it owns it, and tells it the time: [`tick`](Self::tick) puts into the bucket what has become due since the
/// tick before. How often does not matter to the numbers: a tick that comes late makes up for what is due.
///
/// Those whose rate is limited take a token and [`forget`](crate::Token::forget) it, for it is to come back by time, not by
/// being dropped. Then the bucket's capacity is the size of a burst: a tick fills the bucket up to its capacity and never above
/// (a [deficit](TokenBucket::deficit) is made up first), and what has no room is lost. The capacity can be
/// changed at any time, by [`set_capacity`](TokenBucket::set_capacity), and so can the rate, by [`set_rate`](Self::set_rate).
///
/// So in any time T at most rate × T tokens (rounded up) and one burst are taken if no tick comes late. A tick that does brings at
/// once what was due before, so then it is two bursts at most.
///
/// # Time
///
/// The time is what has passed since any origin, the same for all ticks: a hardware counter, the uptime, virtual time in a test. The
/// first tick (or change of the rate) starts the clock, and nothing is due then.
///
/// Time that stands still adds nothing. A time before the latest one that was seen counts as that one: it adds nothing and takes nothing
/// away, and tokens become due again when the time has passed the latest one. (So no span of time is paid for twice.) A leap forward is
/// time like any other, but no more than [584 years](Self::MAX_PERIOD) of it count in one tick.
///
/// With `std` there are [`tick_now`](Self::tick_now) and [`set_rate_now`](Self::set_rate_now), which look at the clock. Their
/// origin is their first call; use either them or the forms that are told the time on one `Refill`.
///
/// # Examples
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
/// Driven by a thread, as by any task that can sleep, while others wait for tokens:
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
///         let next = refill.next_at().expect("the rate is above 0");
///         std::thread::sleep(next.saturating_duration_since(Instant::now()));
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
#[derive(Debug)]
pub struct Refill {
    rate: Rate,
    /// What is due of the next token, in parts of it: less than `parts`.
    part: u64,
    /// The nanoseconds of the latest rate above 0, and 1 before there was one.
    parts: u64,
    /// Whole tokens that were due when the rate was changed.
    owed: u128,
    /// The latest time that was seen, once the clock runs.
    latest: Option<Duration>,
    #[cfg(feature = "std")]
    origin: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    tokens: usize,
    nanos: u64,
}

/// What a [`Refill`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tick {
    /// The tokens that were due and are in the bucket now (or made up for a deficit).
    pub added: usize,
    /// The tokens that were due, but for which the bucket had no room; [`usize::MAX`] if they are more than that.
    pub lost: usize,
    /// When the next token is due, by the clock that the tick was told; never if the rate is 0, or if that is more than
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
    pub const MAX_PERIOD: Duration = Duration::from_nanos(u64::MAX);

    /// Makes a clockwork for `tokens` tokens per `per`, evenly spread. 0 tokens are a pause.
    ///
    /// # Errors
    ///
    /// If `per` is 0 or above [`MAX_PERIOD`](Self::MAX_PERIOD). Any number of tokens will do.
    pub fn new(tokens: usize, per: Duration) -> Result<Self, RateError> {
        let rate = Rate::new(tokens, per)?;
        Ok(Self {
            rate,
            part: 0,
            parts: if tokens == 0 { 1 } else { rate.nanos },
            owed: 0,
            latest: None,
            #[cfg(feature = "std")]
            origin: None,
        })
    }

    /// The rate in force, as it was given: so many tokens per so much time.
    #[must_use]
    pub fn rate(&self) -> (usize, Duration) {
        (self.rate.tokens, Duration::from_nanos(self.rate.nanos))
    }

    /// Changes the rate from `now` on.
    ///
    /// What is due until `now` is due at the old rate, and is put into the bucket by the next tick. What is due of the next token
    /// is kept, through a pause as well: exactly if the period is as before, else less up to what the new rate yields in a nanosecond.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new). The old rate stays in force then, and the clock is where it was.
    ///
    /// # Examples
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
    #[allow(clippy::missing_panics_doc, reason = "it never panics")]
    pub fn set_rate(&mut self, now: Duration, tokens: usize, per: Duration) -> Result<(), RateError> {
        let rate = Rate::new(tokens, per)?;
        self.advance(now);
        self.rate = rate;
        // A pause yields nothing, so the parts may stay as large as they are.
        if tokens > 0 {
            let part = u128::from(self.part) * u128::from(rate.nanos) / u128::from(self.parts);
            self.part = u64::try_from(part).expect("a part of one token");
            self.parts = rate.nanos;
        }
        Ok(())
    }

    /// Puts into the bucket what has become due until `now`.
    ///
    /// Those who wait for tokens get them at once, in order. Like the drop of a token, this also works on a closed bucket.
    pub fn tick(&mut self, bucket: &TokenBucket, now: Duration) -> Tick {
        self.advance(now);
        let due = usize::try_from(core::mem::take(&mut self.owed)).unwrap_or(usize::MAX);
        let added = if due == 0 { 0 } else { bucket.combiner().top_up(due) };
        Tick { added, lost: due - added, next: self.next() }
    }

    /// Adds up what is due until `now`.
    fn advance(&mut self, now: Duration) {
        let latest = self.latest.unwrap_or(now);
        let passed = now.saturating_sub(latest);
        self.latest = Some(latest.max(now));
        if self.rate.tokens > 0 {
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            let parts = u128::from(self.part) + u128::from(passed) * self.rate.tokens as u128;
            // One division of 128 bits.
            let of = u128::from(self.parts);
            let whole = parts / of;
            self.part = u64::try_from(parts - whole * of).expect("less than the parts");
            self.owed = self.owed.saturating_add(whole);
        }
    }

    /// When the next token is due, by the clock of the ticks.
    fn next(&self) -> Option<Duration> {
        if self.owed > 0 {
            return self.latest;
        }
        let nanos = match self.rate.tokens {
            0 => return None,
            tokens => (self.parts - self.part).div_ceil(tokens as u64),
        };
        self.latest?.checked_add(Duration::from_nanos(nanos))
    }
}

#[cfg(feature = "std")]
impl Refill {
    /// As [`tick`](Self::tick), by the clock; [`Tick::next`] counts from the first call, so use [`next_at`](Self::next_at).
    pub fn tick_now(&mut self, bucket: &TokenBucket) -> Tick {
        let now = self.now();
        self.tick(bucket, now)
    }

    /// As [`set_rate`](Self::set_rate), by the clock.
    ///
    /// # Errors
    ///
    /// As for [`set_rate`](Self::set_rate).
    pub fn set_rate_now(&mut self, tokens: usize, per: Duration) -> Result<(), RateError> {
        let now = self.now();
        self.set_rate(now, tokens, per)
    }

    /// When the next token is due: so long the one who calls [`tick_now`](Self::tick_now) can sleep.
    ///
    /// `None` if the rate is 0, before the first `tick_now`, or if no [`Instant`] is so late. It is in the past if
    /// the last tick is longer ago than that.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.origin?.checked_add(self.next()?)
    }

    fn now(&mut self) -> Duration {
        self.origin.get_or_insert_with(Instant::now).elapsed()
    }
}
