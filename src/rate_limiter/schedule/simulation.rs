//! The limiter in simulated time: exactness, and which waiters are woken.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::prelude::v1::*;

use super::*;
use crate::RateLimiter;
use crate::rate_limiter::wait::Attempt;
use alloc::sync::Arc;
use alloc::task::Wake;

const SECOND: Duration = Duration::from_secs(1);
/// One token, in units of token × nanosecond / second: rates are per second here.
const TOKEN: i128 = 1_000_000_000;
/// Later than the limiter's own clock, which the drop of a request reads, ever gets.
const START: Duration = Duration::from_secs(1 << 20);

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waiter with its waker and alarm.
struct Client<'a> {
    attempt: Attempt<'a>,
    wakes: Arc<Wakes>,
    seen: usize,
    polls: usize,
    alarm: Option<Duration>,
    /// The index of its grant, once it has been made.
    grant: Option<usize>,
}

#[derive(Clone, Copy)]
struct Grant {
    tokens: usize,
    /// What the rate has yielded until then, in the unit of [`TOKEN`].
    yielded: i128,
    burst: usize,
}

struct World<'a> {
    limiter: &'a RateLimiter,
    now: Duration,
    yielded: i128,
    clients: Vec<Client<'a>>,
    grants: Vec<Option<Grant>>,
    granted: usize,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

impl<'a> World<'a> {
    fn new(limiter: &'a RateLimiter) -> Self {
        limiter.with(START, |_, _| {});
        World { limiter, now: START, yielded: 0, clients: Vec::new(), grants: Vec::new(), granted: 0 }
    }

    fn pass(&mut self, to: Duration) {
        let passed = i128::try_from(to.saturating_sub(self.now).as_nanos()).unwrap();
        self.yielded += passed * i128::try_from(self.limiter.rate().0).unwrap();
        self.now = to;
    }

    fn grant(&mut self, tokens: usize) -> usize {
        self.granted += tokens;
        self.grants.push(Some(Grant { tokens, yielded: self.yielded, burst: self.limiter.burst() }));
        self.grants.len() - 1
    }

    /// Records the waiters that the latest call granted tokens: the first in the queue, and any that were deferred.
    fn note(&mut self) {
        for at in 0..self.clients.len() {
            let Client { attempt, grant: None, .. } = &self.clients[at] else { continue };
            let Stage::Waiting(ticket) = attempt.request.stage else { continue };
            let need = attempt.request.need;
            let (is_queued, is_deferred) = {
                let schedule = self.limiter.lock();
                (schedule.queue.contains_key(&ticket), schedule.deferred.contains_key(&ticket))
            };
            if is_queued {
                break;
            }
            if !is_deferred {
                self.clients[at].grant = Some(self.grant(need));
            }
        }
        self.check_leader();
    }

    /// **R3** The head sleeps until its tokens are due, unless it has been woken.
    fn check_leader(&self) {
        let schedule = self.limiter.lock();
        let Some((&head, waiter)) = schedule.queue.first_key_value().filter(|_| !schedule.is_closed()) else { return };
        let is_head = |client: &&Client<'_>| matches!(client.attempt.request.stage, Stage::Waiting(ticket) if ticket == head);
        let leader = self.clients.iter().find(is_head).expect("a client");
        if leader.wakes.0.load(Ordering::Relaxed) == leader.seen {
            let missing = schedule.missing as u128 + waiter.need as u128 - schedule.burst as u128;
            assert_eq!(leader.alarm, schedule.refill.due_at(missing));
        }
    }

    fn arrive(&mut self, need: usize) {
        let attempt = Attempt::new(self.limiter, need);
        self.clients.push(Client { attempt, wakes: Arc::default(), seen: 0, polls: 0, alarm: None, grant: None });
        self.poll(self.clients.len() - 1);
    }

    /// Polls a client, and removes it if its request is done. Returns whether it is.
    fn poll(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        client.seen = client.wakes.0.load(Ordering::Relaxed);
        client.polls += 1;
        let turn = client.attempt.poll(self.now, &Waker::from(Arc::clone(&client.wakes)));
        match turn {
            Turn::Pending(alarm) => {
                client.alarm = alarm;
                self.note();
                false
            }
            Turn::Done(result) => {
                let client = self.clients.remove(at);
                assert_eq!(client.wakes.0.load(Ordering::Relaxed), client.seen, "woken by its own poll");
                if result.is_ok() && client.grant.is_none() {
                    self.grant(client.attempt.request.need);
                }
                self.note();
                true
            }
        }
    }

    fn cancel(&mut self, at: usize) {
        let mut client = self.clients.remove(at);
        if let Some(grant) = client.grant {
            self.grants[grant] = None;
            self.granted -= client.attempt.request.need;
        }
        // Its drop would read the clock.
        self.limiter.with(self.now, |schedule, outbox| schedule.cancel(&mut client.attempt.request, outbox));
        self.note();
    }

    fn try_take(&mut self, n: usize) {
        if self.limiter.with(self.now, |schedule, _| schedule.try_take(n)).is_ok() && n > 0 {
            self.grant(n);
        }
        self.note();
    }

    fn woken(&self) -> Option<usize> {
        self.clients.iter().position(|client| client.wakes.0.load(Ordering::Relaxed) > client.seen)
    }

    fn alarm(&self) -> Option<Duration> {
        self.clients.iter().filter_map(|client| client.alarm).min()
    }

    /// In any span of time, no more is granted than the rate yields, rounded up, plus the burst at its end.
    fn check_exactness(&self) {
        let (mut sum, mut least) = (0, i128::MAX);
        for grant in self.grants.iter().flatten() {
            least = least.min(sum * TOKEN - grant.yielded);
            sum += i128::try_from(grant.tokens).unwrap();
            let burst = i128::try_from(grant.burst).unwrap();
            // sum - before <= ceil(yielded) + burst
            assert!((sum - burst - 1) * TOKEN - grant.yielded < least, "too many tokens in all: {sum}");
        }
    }
}

/// With a queue that is never empty and sleeps that end in time, not one token is lost or added, whichever waiters are cancelled.
#[test]
fn an_hour_is_exact_to_the_token_under_cancellation() {
    for (rate, burst, seed) in [(7, 5, 1), (1, 1, 2), (100, 10, 3), (3, 40, 4)] {
        let limiter = RateLimiter::new(rate, SECOND, burst).unwrap();
        let mut world = World::new(&limiter);
        let mut random = Random(seed);
        let mut cancelled = 0;
        while world.now < START + SECOND * 3600 {
            while world.clients.len() < 5 {
                world.arrive(1 + random.below(burst));
            }
            let alarm = world.alarm().expect("the head sleeps");
            assert!(alarm > world.now);
            if random.below(4) == 0 {
                // The leader or another waiter is cancelled before the tokens are due.
                world.pass(world.now + alarm.saturating_sub(world.now) / 3);
                let leader = world.clients.iter().position(|client| client.alarm.is_some()).unwrap();
                world.cancel(if random.below(3) > 0 { leader } else { random.below(5) });
                cancelled += 1;
            } else {
                world.pass(alarm);
                let leader = world.clients.iter().position(|client| client.alarm == Some(alarm)).unwrap();
                assert!(world.poll(leader), "its tokens are due");
            }
            while let Some(woken) = world.woken() {
                // Some are granted their tokens, and are cancelled.
                if random.below(8) == 0 { world.cancel(woken) } else { _ = world.poll(woken) }
            }
            let due = usize::try_from(world.yielded / TOKEN).unwrap();
            let available = limiter.with(world.now, |schedule, _| schedule.available());
            assert_eq!(world.granted + available, burst + due);
        }
        assert!(cancelled > 100, "{cancelled}");
        world.check_exactness();
    }
}

/// Never too many tokens are granted, whatever happens in whatever order, and however late waiters are polled.
#[test]
fn no_more_than_the_rate_and_one_burst_are_granted_in_any_span() {
    for seed in 1..200 {
        let mut random = Random(seed);
        let limiter = RateLimiter::new(1 + random.below(20), SECOND, 1 + random.below(10)).unwrap();
        let mut world = World::new(&limiter);
        for _ in 0..400 {
            let step = [0, 1, 10, 100, 1000][random.below(5)] * random.below(1000);
            world.pass(world.now + Duration::from_micros(step.try_into().unwrap()));
            let any = random.below(world.clients.len().max(1));
            match random.below(32) {
                0..10 if world.clients.len() < 8 => world.arrive(1 + random.below(6)),
                0..20 if !world.clients.is_empty() => _ = world.poll(any),
                20..26 if !world.clients.is_empty() => world.cancel(any),
                26 if seed % 2 == 0 => {
                    // First grants what is due at the old burst.
                    world.try_take(0);
                    limiter.with(world.now, |schedule, _| schedule.set_burst(random.below(12)));
                }
                27 if seed % 3 == 0 => {
                    let now = world.now;
                    limiter.with(now, |schedule, _| schedule.set_rate(now, random.below(20), SECOND)).unwrap();
                }
                _ => world.try_take(1 + random.below(6)),
            }
            world.note();
        }
        world.check_exactness();
    }
}

/// If a grant is cancelled late, its tokens have come back by time already, and must not come back twice.
#[test]
fn a_cancelled_grant_does_not_come_back_twice() {
    let limiter = RateLimiter::new(5, SECOND, 10).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(10);
    world.arrive(5);
    world.pass(START + SECOND);
    world.try_take(0); // grants the waiter its 5
    assert_eq!((limiter.available(), limiter.waiting()), (0, 0));
    world.pass(world.now + SECOND * 2);
    world.try_take(10);
    assert_eq!(world.granted, 10 + 5 + 10);
    world.check_exactness();
    world.cancel(0);
    assert_eq!(limiter.available(), 0);
}

/// If a grant is cancelled in time, its tokens come back, and go to the next waiter.
#[test]
fn a_cancelled_grant_goes_to_the_next_waiter() {
    let limiter = RateLimiter::new(5, SECOND, 10).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(10);
    for _ in 0..2 {
        world.arrive(5);
    }
    world.pass(START + SECOND);
    world.try_take(0);
    assert!(world.clients[0].grant.is_some() && world.clients[1].grant.is_none());
    world.cancel(0);
    assert!(world.clients[0].grant.is_some());
    assert_eq!(world.woken(), Some(0));
    assert!(world.poll(0));
    assert_eq!(limiter.available(), 0);
}

/// If a grant is cancelled when the next waiter sleeps already, its tokens are due sooner.
#[test]
fn a_cancelled_grant_wakes_the_leader_to_sleep_anew() {
    let limiter = RateLimiter::new(10, SECOND, 10).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(10);
    world.arrive(5);
    world.arrive(8);
    world.pass(START + SECOND / 2);
    world.try_take(0);
    assert_eq!(world.woken(), Some(0), "it has its tokens");
    assert!(!world.poll(1));
    assert_eq!(world.clients[1].alarm, Some(START + SECOND * 13 / 10));
    world.cancel(0);
    assert_eq!(world.woken(), Some(0));
    assert!(!world.poll(0));
    assert_eq!(world.alarm(), Some(START + SECOND * 8 / 10));
}

/// A delivered grant does not count as undelivered; otherwise, a cancelled grant could be lost.
#[test]
fn a_delivered_grant_is_no_reason_to_lose_a_cancelled_one() {
    let limiter = RateLimiter::new(5, SECOND, 10).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(10);
    for second in 1..=2 {
        world.arrive(5);
        world.pass(START + SECOND * second);
        world.try_take(0);
        if second == 1 {
            assert!(world.poll(0));
        }
    }
    world.pass(world.now + SECOND / 5);
    world.cancel(0);
    assert_eq!(limiter.available(), 1 + 5);
}

/// A late leader loses no token below the burst, and wakes each waiter whose tokens are due, once.
#[test]
fn a_late_leader_loses_nothing() {
    let limiter = RateLimiter::new(10, SECOND, 5).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(5);
    for _ in 0..6 {
        world.arrive(1);
    }
    assert_eq!(world.alarm(), Some(START + SECOND / 10));
    world.pass(START + SECOND * 43 / 100);
    assert!(world.poll(0));
    let wakes: Vec<_> = world.clients.iter().map(|client| client.wakes.0.load(Ordering::Relaxed)).collect();
    // Three have their tokens, and the fourth is woken to sleep.
    assert_eq!(wakes, [1, 1, 1, 1, 0]);
    for _ in 0..3 {
        assert!(world.poll(0));
    }
    assert!(!world.poll(0));
    assert_eq!(world.alarm(), Some(START + SECOND / 2));
}

/// A request for many sleeps once, until the last of its tokens is due.
#[test]
fn a_request_for_many_sleeps_once() {
    let limiter = RateLimiter::new(10, SECOND, 8).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(5);
    world.arrive(8);
    assert_eq!(world.alarm(), Some(START + SECOND / 2));
    world.pass(START + SECOND / 2);
    assert!(world.poll(0));
}

/// Every waiter is woken at most twice: to sleep, and when it has been granted its tokens.
#[test]
fn ten_thousand_waiters_are_served_in_order_with_two_wakes_each() {
    let limiter = RateLimiter::new(1000, SECOND, 3).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(3);
    for _ in 0..10_000 {
        world.arrive(1);
    }
    assert_eq!(limiter.waiting(), 10_000);
    let mut polls = 0;
    while !world.clients.is_empty() {
        world.pass(world.alarm().expect("the head sleeps"));
        polls += world.clients[0].polls + 1;
        assert!(world.poll(0));
        if let Some(next) = world.clients.first() {
            assert_eq!(next.wakes.0.load(Ordering::Relaxed), 1);
            assert!(!world.poll(0));
        }
    }
    assert_eq!(world.now, START + SECOND * 10);
    assert!(polls <= 3 * 10_000);
}

/// If the leader is never polled, another call on the limiter grants what is due, and so does the one after.
#[test]
fn other_calls_help_where_the_leader_is_not_polled() {
    let limiter = RateLimiter::new(10, SECOND, 1).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(1);
    for _ in 0..3 {
        world.arrive(1);
    }
    for second in 1..=2 {
        world.pass(START + SECOND * second);
        world.try_take(1);
        assert!(world.clients[usize::try_from(second).unwrap() - 1].grant.is_some());
    }
    assert_eq!(limiter.waiting(), 1);
}

#[test]
fn retry_after_counts_the_waiters_ahead() {
    let limiter = RateLimiter::new(10, SECOND, 5).unwrap();
    let mut world = World::new(&limiter);
    let wait = |world: &World<'_>, n| world.limiter.with(world.now, |schedule, _| schedule.try_take(n)).unwrap_err().retry_after();
    world.try_take(4);
    assert_eq!(wait(&world, 5), Some(SECOND * 4 / 10));
    world.arrive(3);
    assert_eq!(wait(&world, 5), Some(SECOND * 7 / 10));
    world.pass(START + SECOND / 20);
    assert_eq!(wait(&world, 1), Some(SECOND * 25 / 100));
    world.cancel(0);
    world.try_take(1);
    assert_eq!(wait(&world, 1), Some(SECOND / 20));
    // A waiter that has been granted its tokens is no longer ahead.
    world.arrive(1);
    world.pass(START + SECOND / 10);
    assert_eq!(wait(&world, 1), Some(SECOND / 10));
    assert!(world.poll(0));
}

#[test]
fn a_change_of_the_rate_wakes_the_leader_to_sleep_anew() {
    let limiter = RateLimiter::new(1, SECOND, 1).unwrap();
    let mut world = World::new(&limiter);
    world.try_take(1);
    world.arrive(1);
    world.arrive(1);
    for (rate, alarm) in
        [(0, None), (10, Some(START + SECOND / 10)), (1, Some(START + SECOND)), (usize::MAX, Some(START + Duration::from_nanos(1)))]
    {
        limiter.with(START, |schedule, _| schedule.set_rate(START, rate, SECOND)).unwrap();
        assert_eq!(world.woken(), Some(0));
        world.poll(0);
        assert_eq!((world.woken(), world.alarm()), (None, alarm));
    }
    // A refused change wakes no waiter.
    limiter.with(START, |schedule, _| schedule.set_rate(START, 1, Duration::MAX)).unwrap_err();
    assert_eq!(world.woken(), None);
}
