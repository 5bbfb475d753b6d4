//! Refilling by time: which tokens are due, which fit, which waiters get them, and clocks that misbehave.
#![allow(clippy::cast_possible_wrap, clippy::unchecked_time_subtraction, reason = "small numbers, and times after 0")]

use std::time::Duration;

use num_bigint::BigUint;
use proptest::prelude::*;
use token_bucket::{Fairness, RateError, Refill, Tick, TokenBucket};

mod support;
use support::{both, bucket, task, waiting};

both! {
    a_tick_serves_waiters_in_order,
    a_tick_serves_a_request_for_many_when_all_are_due,
    a_tick_does_not_serve_deferred_requests,
    a_deficit_is_paid_off_before_a_waiter_gets_a_token,
}

const SECOND: Duration = Duration::from_secs(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A bucket as empty as possible, so that all tokens that are due fit.
fn empty() -> TokenBucket {
    let bucket = TokenBucket::new(TokenBucket::MAX_CAPACITY, TokenBucket::MAX_CAPACITY).unwrap();
    bucket.try_take_many(TokenBucket::MAX_CAPACITY).unwrap().forget();
    bucket
}

/// A refill whose clock started at 0.
fn started(tokens: usize, per: Duration) -> Refill {
    let mut refill = Refill::new(tokens, per).unwrap();
    assert_eq!(numbers(refill.tick(&empty(), Duration::ZERO)), (0, 0));
    refill
}

fn numbers(tick: Tick) -> (usize, usize) {
    (tick.added, tick.lost)
}

/// The tokens that became due since the last tick.
fn due(refill: &mut Refill, now: Duration) -> usize {
    let tick = refill.tick(&empty(), now);
    tick.added + tick.lost
}

// Due tokens.

#[test]
fn tokens_are_due_one_by_one() {
    let (mut refill, bucket) = (started(10, SECOND), empty());
    for (now, added, next) in [(99, 0, 100), (100, 1, 200), (100, 0, 200), (250, 1, 300), (1000, 8, 1100), (1099, 0, 1100)] {
        let tick = refill.tick(&bucket, ms(now));
        assert_eq!((tick.added, tick.lost, tick.next), (added, 0, Some(ms(next))), "at {now} ms");
    }
}

#[test]
fn the_first_tick_starts_the_clock() {
    let mut refill = Refill::new(1, SECOND).unwrap();
    let tick = refill.tick(&empty(), SECOND * 1000);
    assert_eq!((tick.added, tick.next), (0, Some(SECOND * 1001)));
    assert_eq!(due(&mut refill, SECOND * 1003), 3);
}

#[test]
fn so_does_the_first_change_of_the_rate() {
    let mut refill = Refill::new(1, SECOND).unwrap();
    refill.set_rate(SECOND * 1000, 2, SECOND).unwrap();
    assert_eq!(due(&mut refill, SECOND * 1003), 6);
}

#[test]
fn next_is_exactly_when_the_next_token_is_due() {
    for (tokens, per) in
        [(3, SECOND), (7, ms(13)), (1_000_000_007, SECOND), (1, Duration::from_secs(86_400)), (5, Duration::from_nanos(2))]
    {
        let (mut refill, bucket) = (started(tokens, per), empty());
        let mut next = refill.tick(&bucket, Duration::ZERO).next.unwrap();
        for _ in 0..50 {
            let before = refill.tick(&bucket, next - Duration::from_nanos(1));
            assert_eq!((before.added, before.next), (0, Some(next)), "{tokens} per {per:?}");
            let then = refill.tick(&bucket, next);
            assert!(then.added >= 1, "{tokens} per {per:?}: nothing at {next:?}");
            next = then.next.unwrap();
        }
    }
}

#[test]
fn a_rate_of_0_is_a_pause() {
    let mut refill = started(0, SECOND);
    let tick = refill.tick(&empty(), SECOND * 100);
    assert_eq!((tick.added, tick.next), (0, None));
    refill.set_rate(SECOND * 200, 1, SECOND).unwrap();
    assert_eq!(due(&mut refill, SECOND * 203), 3);
}

#[test]
fn a_pause_keeps_the_fraction_of_a_token() {
    let mut refill = started(1, SECOND);
    refill.set_rate(ms(900), 0, Duration::from_nanos(1)).unwrap();
    refill.set_rate(ms(5000), 1, Duration::from_secs(10)).unwrap();
    assert_eq!(due(&mut refill, ms(5999)), 0);
    assert_eq!(due(&mut refill, ms(6000)), 1);
}

#[test]
fn tokens_due_at_the_old_rate_are_neither_lost_nor_credited_at_the_new_one() {
    let mut refill = started(1000, SECOND);
    refill.set_rate(ms(2500), 1, SECOND).unwrap();
    refill.set_rate(ms(2500), 10, SECOND).unwrap();
    // These tokens are due already.
    assert_eq!(refill.tick(&empty(), ms(2500)).added, 2500);
    assert_eq!(due(&mut refill, ms(3500)), 10);
}

#[test]
fn the_fraction_of_a_token_carries_over() {
    // Three quarters of a token at the old rate, and the last quarter at the new one; with the same period, and with another.
    for (tokens, per, rest) in [(2, SECOND, ms(125)), (1, SECOND * 60, ms(15_000))] {
        let mut refill = started(1, SECOND);
        refill.set_rate(ms(750), tokens, per).unwrap();
        let last = ms(750) + rest;
        assert_eq!(due(&mut refill, last - Duration::from_nanos(1)), 0);
        assert_eq!(due(&mut refill, last), 1);
    }
}

#[test]
fn the_rate_is_returned_as_it_was_given() {
    let mut refill = started(usize::MAX, Refill::MAX_PERIOD);
    assert_eq!(refill.rate(), (usize::MAX, Refill::MAX_PERIOD));
    refill.set_rate(SECOND, 0, ms(3)).unwrap();
    assert_eq!(refill.rate(), (0, ms(3)));
}

// Refusals.

#[test]
fn an_invalid_rate_is_refused() {
    assert_eq!(Refill::new(1, Duration::ZERO).unwrap_err(), RateError::PeriodIsZero);
    let limit = Refill::MAX_PERIOD;
    for per in [limit + Duration::from_nanos(1), Duration::MAX] {
        let error = Refill::new(1, per).unwrap_err();
        assert_eq!(error, RateError::PeriodTooLong { per, limit });
        assert!(error.to_string().contains(&format!("{per:?}")), "{error}");
    }
}

#[test]
fn a_refused_change_of_the_rate_changes_nothing() {
    let mut refill = started(1, SECOND);
    for per in [Duration::ZERO, Duration::MAX] {
        refill.set_rate(SECOND * 100, 5, per).unwrap_err();
    }
    assert_eq!(refill.rate(), (1, SECOND));
    // The clock was not advanced either.
    assert_eq!(due(&mut refill, SECOND * 2), 2);
}

// Clocks.

#[test]
fn time_that_stands_still_adds_nothing() {
    let (mut refill, bucket) = (started(3, SECOND), empty());
    refill.tick(&bucket, SECOND);
    for _ in 0..1000 {
        assert_eq!(numbers(refill.tick(&bucket, SECOND)), (0, 0));
    }
    assert_eq!(due(&mut refill, SECOND * 2), 3);
}

#[test]
fn time_that_goes_back_adds_nothing_and_loses_nothing() {
    let (mut refill, bucket) = (started(1, SECOND), empty());
    // One and a half tokens are due; the whole one is not yet in the bucket.
    refill.set_rate(ms(1500), 1, SECOND).unwrap();
    let tick = refill.tick(&bucket, ms(200));
    assert_eq!((tick.added, tick.next), (1, Some(SECOND * 2)));
    refill.set_rate(ms(300), 1, SECOND).unwrap();
    // No span of time is credited twice, and the other half comes when it is due.
    assert_eq!(due(&mut refill, ms(1999)), 0);
    assert_eq!(due(&mut refill, ms(2000)), 1);
}

#[test]
fn a_leap_of_years_is_credited_like_any_time() {
    let year = SECOND * 31_536_000;
    let mut refill = started(1, SECOND);
    assert_eq!(due(&mut refill, year * 100), usize::try_from((year * 100).as_secs()).unwrap_or(usize::MAX));
    // The fraction of a token stays exact.
    assert_eq!(due(&mut refill, year * 100 + ms(999)), 0);
    assert_eq!(due(&mut refill, year * 100 + ms(1000)), 1);
}

#[test]
fn numbers_that_are_too_large_saturate() {
    for (tokens, per) in [(usize::MAX, Duration::from_nanos(1)), (usize::MAX, SECOND), (1, Duration::from_nanos(1))] {
        let lost_of = |nanos: u128| {
            let due = nanos.saturating_mul(tokens as u128) / per.as_nanos();
            usize::try_from(due - TokenBucket::MAX_CAPACITY as u128).unwrap_or(usize::MAX)
        };
        let (mut refill, bucket) = (started(tokens, per), empty());
        let tick = refill.tick(&bucket, Duration::MAX);
        assert_eq!(tick.added, TokenBucket::MAX_CAPACITY);
        assert_eq!(tick.lost, lost_of(u64::MAX.into()));
        assert_eq!(tick.next, None);
        // The tokens of two leaps in a row add up.
        let (mut refill, bucket) = (started(tokens, per), empty());
        for now in [Refill::MAX_PERIOD, Refill::MAX_PERIOD + Duration::from_nanos(3)] {
            refill.set_rate(now, tokens, per).unwrap();
        }
        let tick = refill.tick(&bucket, Duration::ZERO);
        assert_eq!(tick.lost, lost_of(u128::from(u64::MAX) + 3));
    }
}

/// `usize::MAX` means "at least that many". It used to be too low by the number of added tokens.
#[test]
fn lost_is_capped_at_the_largest_number() {
    let bucket = TokenBucket::new(5, 5).unwrap();
    bucket.try_take_many(5).unwrap().forget();
    let mut refill = started(usize::MAX, Duration::from_nanos(1));
    assert_eq!(numbers(refill.tick(&bucket, SECOND)), (5, usize::MAX));
}

/// A driver sleeps until `next`. If there is none, as at a rate of 0, it must not panic.
#[cfg(feature = "std")]
#[test]
fn next_is_none_at_a_rate_of_0() {
    let mut refill = Refill::new(5, SECOND).unwrap();
    refill.tick_now(&empty());
    assert!(refill.next_at().is_some());
    refill.set_rate_now(0, SECOND).unwrap();
    refill.tick_now(&empty());
    assert_eq!(refill.next_at(), None);
}

#[test]
fn the_ends_of_rate_and_time_are_exact() {
    // 2⁶⁴ − 1 tokens in 2⁶⁴ − 1 ns are one each.
    if usize::BITS == 64 {
        let mut refill = started(usize::MAX, Refill::MAX_PERIOD);
        assert_eq!(due(&mut refill, Duration::from_nanos(12_345)), 12_345);
        assert_eq!(due(&mut refill, Refill::MAX_PERIOD), usize::MAX - 12_345);
    }
    let mut refill = started(1, Refill::MAX_PERIOD);
    assert_eq!(due(&mut refill, Refill::MAX_PERIOD - Duration::from_nanos(1)), 0);
    assert_eq!(due(&mut refill, Refill::MAX_PERIOD), 1);
}

// The tokens in the bucket.

#[test]
fn a_tick_fills_the_bucket_up_to_its_capacity() {
    let bucket = TokenBucket::new(100, 5).unwrap();
    let mut refill = started(10, SECOND);
    assert_eq!(numbers(refill.tick(&bucket, SECOND)), (0, 10));
    bucket.try_take_many(3).unwrap().forget();
    assert_eq!(numbers(refill.tick(&bucket, ms(1200))), (2, 0));
    assert_eq!(numbers(refill.tick(&bucket, ms(1500))), (1, 2));
    assert_eq!(bucket.available(), 5);
}

#[test]
fn the_burst_is_resized_while_it_runs() {
    let bucket = TokenBucket::new(100, 5).unwrap();
    let mut refill = started(10, SECOND);
    bucket.try_take_many(5).unwrap().forget();
    bucket.set_capacity(8).unwrap();
    assert_eq!(bucket.available(), 3);
    assert_eq!(numbers(refill.tick(&bucket, SECOND)), (5, 5));
    bucket.set_capacity(2).unwrap();
    assert_eq!(bucket.available(), 2);
    assert_eq!(numbers(refill.tick(&bucket, SECOND * 2)), (0, 10));
}

#[test]
fn tokens_above_the_capacity_stay() {
    let bucket = TokenBucket::new(100, 5).unwrap();
    assert_eq!(bucket.refill(20), 20);
    let mut refill = started(10, SECOND);
    assert_eq!(numbers(refill.tick(&bucket, SECOND)), (0, 10));
    assert_eq!(bucket.available(), 25);
}

#[test]
fn a_closed_bucket_is_filled_up_as_well() {
    let bucket = TokenBucket::new(10, 5).unwrap();
    bucket.try_take_many(5).unwrap().forget();
    bucket.close();
    assert_eq!(numbers(started(10, SECOND).tick(&bucket, ms(300))), (3, 0));
    assert_eq!(bucket.available(), 3);
}

fn a_deficit_is_paid_off_before_a_waiter_gets_a_token(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    bucket.try_take_many(5).unwrap().forget();
    bucket.set_capacity(3).unwrap();
    let mut refill = started(1, SECOND);
    let mut take = waiting(bucket.take());
    assert_eq!(numbers(refill.tick(&bucket, SECOND * 2)), (2, 0));
    assert_eq!((bucket.deficit(), take.wakes()), (0, 0));
    refill.tick(&bucket, SECOND * 3);
    assert_eq!(take.wakes(), 1);
    assert!(take.poll().is_ready());
}

fn a_tick_serves_waiters_in_order(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    bucket.try_take_many(2).unwrap().forget();
    let mut refill = started(1, SECOND);
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    for (second, take) in (1..).zip(&mut takes) {
        assert_eq!(take.wakes(), 0);
        assert_eq!(numbers(refill.tick(&bucket, SECOND * second)), (1, 0));
        assert_eq!(take.wakes(), 1);
        let std::task::Poll::Ready(Ok(token)) = take.poll() else { panic!("it was not its turn in second {second}") };
        token.forget();
    }
}

fn a_tick_serves_a_request_for_many_when_all_are_due(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.try_take_many(3).unwrap().forget();
    let mut refill = started(1, SECOND);
    let mut take = task(bucket.take_many(3));
    assert!(take.poll().is_pending());
    refill.tick(&bucket, SECOND * 2);
    assert!(take.poll().is_pending());
    // No token fits, and no waiter is woken.
    refill.tick(&bucket, SECOND * 100);
    assert!(take.poll().is_ready());
}

fn a_tick_does_not_serve_deferred_requests(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    bucket.try_take_many(3).unwrap().forget();
    let mut deferred = task(bucket.take_many(4));
    assert!(deferred.poll().is_pending());
    let mut take = task(bucket.take_many(3));
    assert!(take.poll().is_pending());
    let mut refill = started(1, SECOND);
    refill.tick(&bucket, SECOND * 100);
    assert!(take.poll().is_ready());
    assert!(deferred.poll().is_pending());
}

// With the system clock.

#[cfg(feature = "std")]
mod clock {
    use super::*;
    use std::thread::sleep;
    use std::time::Instant;

    #[test]
    fn tokens_are_due_by_the_clock() {
        let bucket = empty();
        let mut refill = Refill::new(1000, SECOND).unwrap();
        assert_eq!(refill.next_at(), None);
        let before = Instant::now();
        assert_eq!(refill.tick_now(&bucket).added, 0);
        let after = Instant::now();
        let next = refill.next_at().unwrap();
        assert!(before + ms(1) <= next && next <= after + ms(1));
        let mut added = 0;
        while added < 20 {
            sleep(refill.next_at().unwrap().saturating_duration_since(Instant::now()));
            let tick = refill.tick_now(&bucket);
            assert!(tick.added > 0, "the token was not due yet");
            added += tick.added;
        }
        let passed = before.elapsed();
        assert!(added as u128 <= passed.as_millis(), "{added} in {passed:?}");
        // The one after the last that was added.
        assert!(refill.next_at().unwrap() >= before + ms(added as u64 + 1));
    }

    #[test]
    fn the_rate_changes_by_the_clock() {
        let bucket = empty();
        let mut refill = Refill::new(0, SECOND).unwrap();
        refill.tick_now(&bucket);
        assert_eq!(refill.next_at(), None);
        sleep(ms(5));
        // The time before the change is not credited at this rate.
        let before = Instant::now();
        refill.set_rate_now(1, ms(1)).unwrap();
        let added = refill.tick_now(&bucket).added;
        assert!(added as u128 <= before.elapsed().as_millis());
        sleep(ms(5));
        refill.set_rate_now(1, SECOND * 3600).unwrap();
        // Tokens that became due at the old rate are due already.
        assert!(refill.next_at().unwrap() <= Instant::now());
        assert!(refill.tick_now(&bucket).added >= 4);
        assert!(refill.next_at().unwrap() <= Instant::now() + SECOND * 3600);
        assert_eq!(refill.set_rate_now(1, Duration::ZERO), Err(RateError::PeriodIsZero));
    }
}

// Compared with exact fractions.

#[derive(Clone, Debug)]
enum Step {
    Tick,
    SetRate(usize, Duration),
}

/// Steps of time in nanoseconds: some are 0, some go back, some are long. The tokens due in a tick must fit into 64 bits.
fn steps(pers: impl Strategy<Value = u64> + Clone, longest: i64, most: usize) -> impl Strategy<Value = Vec<(i64, Step)>> {
    let time = prop_oneof![
        3 => 0..1000_i64,
        3 => 0..3_000_000_000_i64,
        2 => Just(0),
        1 => -2_000_000_000..0_i64,
        1 => 0..longest,
    ];
    let tokens = prop_oneof![1 => Just(0), 4 => 1..1000_usize, 1 => 0..most];
    let step = prop_oneof![
        4 => Just(Step::Tick),
        1 => (tokens, pers).prop_map(|(tokens, per)| Step::SetRate(tokens, Duration::from_nanos(per))),
    ];
    proptest::collection::vec((time, step), 1..60)
}

fn pers() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![1..20_u64, 1..1_000_000_u64, Just(1_000_000_000), 1..u64::MAX]
}

/// All tokens that became due since the clock started, as a fraction: the sum of rate × time over all rates.
struct Exact {
    numerator: BigUint,
    denominator: BigUint,
}

impl Exact {
    fn add(&mut self, numerator: BigUint, denominator: u64) {
        self.numerator = &self.numerator * denominator + numerator * &self.denominator;
        self.denominator *= denominator;
    }

    fn floor(&self) -> BigUint {
        &self.numerator / &self.denominator
    }
}

/// Runs the steps. After each tick, `check` gets the tokens that became due, the exact number, and how much may be missing of it.
fn run(
    steps: Vec<(i64, Step)>,
    check: impl Fn(&BigUint, &Exact, &Exact) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let nothing = || Exact { numerator: BigUint::ZERO, denominator: BigUint::from(1_u8) };
    let (mut exact, mut missing) = (nothing(), nothing());
    let (mut refill, mut total, bucket) = (started(1, SECOND), BigUint::ZERO, empty());
    let (mut now, mut latest) = (0_i64, 0_i64);
    for (time, step) in steps {
        now = now.saturating_add(time).max(0);
        let (tokens, per) = refill.rate();
        exact.add(BigUint::from(tokens) * now.saturating_sub(latest).max(0).unsigned_abs(), per.as_nanos().try_into().unwrap());
        latest = latest.max(now);
        let at = Duration::from_nanos(now.unsigned_abs());
        match step {
            Step::Tick => {
                let tick = refill.tick(&bucket, at);
                total += tick.added;
                total += tick.lost;
                check(&total, &exact, &missing)?;
                prop_assert_eq!(tick.next.is_none(), tokens == 0);
                prop_assert!(tick.next.is_none_or(|next| next > Duration::from_nanos(latest.unsigned_abs())));
            }
            Step::SetRate(tokens, per) => {
                refill.set_rate(at, tokens, per).unwrap();
                if tokens > 0 {
                    missing.add(BigUint::from(1_u8), per.as_nanos().try_into().unwrap());
                }
            }
        }
    }
    Ok(())
}

proptest! {
    // The message of a failure has the whole script, so no file of seeds is needed.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// However the ticks fall, the due tokens add up to the floor of the sum of rate × time.
    #[test]
    fn the_sum_of_due_tokens_is_exact(steps in steps(Just(1_000_000_000), 1 << 56, 1 << 30)) {
        run(steps, |total, exact, _| {
            prop_assert_eq!(total, &exact.floor());
            Ok(())
        })?;
    }

    /// A change of the period may cost up to one unit of the new fraction each time.
    #[test]
    fn a_change_of_the_period_costs_less_than_a_nanosecond(steps in steps(pers(), 1 << 38, 1 << 20)) {
        run(steps, |total, exact, missing| {
            prop_assert!(total <= &exact.floor());
            // total + 1 > exact - missing
            let (wide, narrow) = (&exact.denominator, &missing.denominator);
            prop_assert!((total + 1_u8) * wide * narrow + &missing.numerator * wide > &exact.numerator * narrow);
            Ok(())
        })?;
    }

    /// A tick adds what a separate model of the bucket has room for, whatever is taken meanwhile.
    #[test]
    fn no_more_than_the_capacity_is_ever_available(
        steps in proptest::collection::vec((0..3000_u64, 0..20_usize, 0..20_usize), 1..60)
    ) {
        let bucket = TokenBucket::new(20, 10).unwrap();
        let mut refill = started(7, SECOND);
        let (mut now, mut level, mut capacity, mut paid) = (0, 10_i64, 10_i64, 0);
        for (time, take, resize) in steps {
            now += time;
            let due = i64::try_from(now * 7 / 1000).unwrap() - paid;
            let room = (capacity - level).max(0);
            let tick = refill.tick(&bucket, ms(now));
            prop_assert_eq!((tick.added as i64, tick.lost as i64), (due.min(room), due - due.min(room)));
            paid += due;
            level += due.min(room);
            if let Ok(token) = bucket.try_take_many(take) {
                level -= i64::try_from(take).unwrap();
                token.forget();
            }
            if resize % 5 == 0 {
                bucket.set_capacity(resize).unwrap();
                level += i64::try_from(resize).unwrap() - capacity;
                capacity = i64::try_from(resize).unwrap();
            }
            let now = bucket.snapshot();
            prop_assert_eq!(now.available as i64 - now.deficit as i64, level);
            prop_assert!(level <= capacity);
        }
    }
}
