//! Everything at once, for a while. At the end no token is lost or duplicated, and no waiter is left.
//!
//! `TOKEN_BUCKET_STRESS=100` runs a hundred times as long.

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::executor::ThreadPool;
use futures::task::SpawnExt;
use futures_lite::future::{or, poll_once, yield_now};
use support::{both, chaos_seed, counting_waker, in_time, poll_with};
use token_bucket::{Fairness, OwnedToken, Snapshot, TokenBucket, WaitError};

both! {
    threads_do_everything_at_once,
    tasks_do_everything_at_once,
    b25_never_more_are_outstanding_than_the_capacity,
    b29_a_storm_of_cancels_strands_no_waiter,
    b9_and_b12_returns_and_cancels_strand_no_waiter,
    takers_and_releasers_hand_every_token_on,
    resizes_add_up,
    a_close_in_the_middle_ends_every_wait,
}

/// How often a scenario is run. Each run has its own watchdog.
fn times() -> usize {
    std::env::var("TOKEN_BUCKET_STRESS").map_or(1, |times| times.parse().expect("TOKEN_BUCKET_STRESS is a number"))
}

fn stress(scenario: impl Fn(u64) + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    for seed in 1..=times() as u64 {
        let scenario = Arc::clone(&scenario);
        in_time(move || scenario(seed));
    }
}

/// A xorshift generator, so that a run can be repeated as far as the threads' timing allows.
struct Random(u64);

impl Random {
    fn new(seed: u64, thread: usize) -> Self {
        Self((chaos_seed() << 20 ^ seed << 8 | (thread as u64 + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

fn signed(now: Snapshot) -> i64 {
    int(now.available) - int(now.deficit)
}

/// A bucket, and the number of tokens put into it without a take, less those forgotten.
///
/// It is so large that it is never full; otherwise the sum would be unknown.
struct Shop {
    bucket: Arc<TokenBucket>,
    extra: AtomicI64,
    done: AtomicBool,
}

const MAX: usize = 100;
/// The most tokens that a call takes.
const MOST: usize = 5;
/// The most tokens that are put in without a take, or forgotten.
const EXTRA: i64 = 10;
/// More tokens than can be forgotten, so that every thread can finish.
const PLENTY: usize = 30;

impl Shop {
    fn new(fairness: Fairness) -> Self {
        let bucket = Arc::new(TokenBucket::new(MAX, MOST).unwrap().with_fairness(fairness));
        Self { bucket, extra: AtomicI64::new(0), done: AtomicBool::new(false) }
    }

    fn resize(&self, mut random: Random) {
        while !self.done.load(Ordering::SeqCst) {
            for capacity in [0, 1, MOST, 2, MOST - 1, random.below(PLENTY), PLENTY] {
                let now = self.bucket.set_capacity(capacity).unwrap();
                assert_eq!(now.capacity, capacity);
                thread::yield_now();
            }
        }
    }

    /// Counts tokens that are put in or forgotten; refuses if there would be too many.
    fn may_add(&self, n: i64) -> bool {
        let add = |extra| Some(extra + n).filter(|extra: &i64| extra.abs() <= EXTRA);
        self.extra.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    /// Returns taken tokens in one of many ways.
    fn finish(&self, mut token: OwnedToken, random: &mut Random) {
        match random.below(8) {
            0 if self.may_add(-int(token.count())) => token.forget(),
            1 => {
                let half = token.split(token.count() / 2).unwrap();
                drop(token);
                thread::yield_now();
                drop(half);
            }
            2 => {
                if let Ok(more) = self.bucket.try_take_owned() {
                    token.merge(more);
                }
            }
            _ => {}
        }
    }

    /// Puts in tokens without a take. Tokens that are refused or do not fit are not counted.
    fn put(&self, random: &mut Random) {
        let n = 1 + random.below(3);
        if !self.may_add(int(n)) {
            return;
        }
        match random.below(3) {
            0 => assert_eq!(self.bucket.refill(n), n),
            1 => self.bucket.try_release_many(n).unwrap(),
            _ => (0..n).for_each(|_| self.bucket.release().wait().unwrap()),
        }
    }

    fn try_something(&self, random: &mut Random) {
        let n = random.below(MOST + 1);
        if let Ok(token) = self.bucket.try_take_many_owned(n) {
            assert_eq!(token.count(), n);
            self.finish(token, random);
        }
        drop(self.bucket.try_take_up_to(n));
    }

    fn end(self) {
        let (now, extra) = (self.bucket.snapshot(), self.extra.into_inner());
        assert_eq!(signed(now), int(now.capacity) + extra, "{now:?}, {extra} extra");
        assert_eq!(self.bucket.waiting(), 0);
    }
}

fn threads_do_everything_at_once(fairness: Fairness) {
    stress(move |seed| {
        let shop = Shop::new(fairness);
        thread::scope(|scope| {
            let shop = &shop;
            let resizer = scope.spawn(move || shop.resize(Random::new(seed, 100)));
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut random = Random::new(seed, thread);
                        for _ in 0..2_000 {
                            let n = 1 + random.below(MOST);
                            match random.below(8) {
                                0 | 1 => shop.finish(shop.bucket.take_many_owned(n).wait().unwrap(), &mut random),
                                2 | 3 => {
                                    let limit = Duration::from_micros(random.below(100) as u64);
                                    match shop.bucket.take_many_owned(n).wait_timeout(limit) {
                                        Ok(token) => shop.finish(token, &mut random),
                                        Err(WaitError::TimedOut) => {}
                                        Err(error) => panic!("{error}"),
                                    }
                                }
                                4 => shop.put(&mut random),
                                5 => {
                                    let (_, waker) = counting_waker();
                                    let mut take = shop.bucket.take_many(n);
                                    drop(poll_with(&mut take, &waker));
                                    shop.try_something(&mut random);
                                    drop(poll_with(&mut shop.bucket.take_many(MAX), &waker));
                                }
                                _ => shop.try_something(&mut random),
                            }
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            shop.done.store(true, Ordering::SeqCst);
            resizer.join().unwrap();
        });
        shop.end();
    });
}

fn tasks_do_everything_at_once(fairness: Fairness) {
    stress(move |seed| {
        let shop = Arc::new(Shop::new(fairness));
        let pool = ThreadPool::builder().pool_size(3).create().unwrap();
        let tasks: Vec<_> = (0..12)
            .map(|task| {
                let shop = Arc::clone(&shop);
                pool.spawn_with_handle(async move {
                    let mut random = Random::new(seed, task);
                    for _ in 0..600 {
                        let n = 1 + random.below(MOST);
                        match random.below(6) {
                            0 | 1 => shop.finish(shop.bucket.take_many_owned(n).await.unwrap(), &mut random),
                            2 => drop(shop.bucket.take_many(n).await.unwrap()),
                            3 => {
                                let turns = random.below(4);
                                let late = async {
                                    for _ in 0..turns {
                                        yield_now().await;
                                    }
                                    None
                                };
                                if let Some(token) = or(async { Some(shop.bucket.take_many_owned(n).await.unwrap()) }, late).await {
                                    shop.finish(token, &mut random);
                                }
                            }
                            4 => {
                                let mut take = pin!(shop.bucket.take_many_owned(n));
                                let first = poll_once(&mut take).await;
                                shop.put(&mut random);
                                yield_now().await;
                                if first.is_none() {
                                    drop(poll_once(&mut take).await);
                                }
                            }
                            _ => shop.try_something(&mut random),
                        }
                    }
                })
                .unwrap()
            })
            .collect();
        let resizer = thread::spawn({
            let shop = Arc::clone(&shop);
            move || shop.resize(Random::new(seed, 100))
        });
        futures::executor::block_on(futures::future::join_all(tasks));
        shop.done.store(true, Ordering::SeqCst);
        resizer.join().unwrap();
        // The pool may still hold tasks that have ended.
        drop(pool);
        while Arc::strong_count(&shop) > 1 {
            thread::yield_now();
        }
        Arc::into_inner(shop).unwrap().end();
    });
}

/// Netflix's limiter checked the limit first and counted afterwards, so 12 of 10 got in.
fn b25_never_more_are_outstanding_than_the_capacity(fairness: Fairness) {
    stress(move |seed| {
        const CAPACITY: usize = 3;
        let bucket = TokenBucket::new(MAX, CAPACITY).unwrap().with_fairness(fairness);
        let held = AtomicUsize::new(0);
        let peak = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..6 {
                let (bucket, held, peak) = (&bucket, &held, &peak);
                scope.spawn(move || {
                    let mut random = Random::new(seed, thread);
                    for _ in 0..2_000 {
                        let n = 1 + random.below(CAPACITY);
                        let token = match random.below(3) {
                            0 => bucket.take_many(n).wait().unwrap(),
                            1 => bucket.try_take_up_to(n).or_else(|_| bucket.take().wait()).unwrap(),
                            _ => match bucket.try_take_many(n) {
                                Ok(token) => token,
                                Err(_) => continue,
                            },
                        };
                        let now = held.fetch_add(token.count(), Ordering::SeqCst) + token.count();
                        peak.fetch_max(now, Ordering::SeqCst);
                        if random.below(4) == 0 {
                            thread::yield_now();
                        }
                        held.fetch_sub(token.count(), Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=CAPACITY).contains(&peak.into_inner()));
        assert_eq!((bucket.available(), bucket.waiting()), (CAPACITY, 0));
    });
}

/// .NET's limiters counted cancelled waiters, and a cancel could deadlock with a release.
fn b29_a_storm_of_cancels_strands_no_waiter(fairness: Fairness) {
    stress(move |seed| {
        let bucket = TokenBucket::new(MAX, 2).unwrap().with_fairness(fairness);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (bucket, done) = (&bucket, &done);
            let storms: Vec<_> = (0..3)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut random = Random::new(seed, thread);
                        let (_, waker) = counting_waker();
                        for _ in 0..600 {
                            let mut takes: Vec<_> = (0..8).map(|_| bucket.take_many(1 + random.below(4))).collect();
                            let mut tokens = Vec::new();
                            takes.retain_mut(|take| match poll_with(take, &waker) {
                                std::task::Poll::Ready(token) => {
                                    tokens.push(token.unwrap());
                                    false
                                }
                                std::task::Poll::Pending => true,
                            });
                            while !takes.is_empty() {
                                let at = random.below(takes.len());
                                drop(takes.swap_remove(at));
                                if random.below(3) == 0 {
                                    tokens.pop();
                                }
                            }
                        }
                    })
                })
                .collect();
            // Among the many that are cancelled, these two wait without a limit.
            let patient: Vec<_> = [1, 2]
                .into_iter()
                .map(|n| {
                    scope.spawn(move || {
                        while !done.load(Ordering::SeqCst) {
                            drop(bucket.take_many(n).wait().unwrap());
                        }
                    })
                })
                .collect();
            for storm in storms {
                storm.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
            for thread in patient {
                thread.join().unwrap();
            }
        });
        assert_eq!((bucket.available(), bucket.waiting()), (2, 0));
    });
}

/// Elsewhere, one wake-up was used for two tokens, or went to a waiter that was just leaving. Here, a waiter without a timeout
/// queues behind waiters that leave; if a wake-up were lost, it would sleep for ever.
fn b9_and_b12_returns_and_cancels_strand_no_waiter(fairness: Fairness) {
    stress(move |_| {
        let bucket = TokenBucket::new(MAX, 2).unwrap().with_fairness(fairness);
        for _ in 0..300 {
            let tokens = [bucket.try_take().unwrap(), bucket.try_take().unwrap()];
            let (_, waker) = counting_waker();
            let mut leaving = [bucket.take_many(2), bucket.take()];
            for take in &mut leaving {
                assert!(poll_with(take, &waker).is_pending());
            }
            thread::scope(|scope| {
                for n in [2, 1] {
                    let bucket = &bucket;
                    scope.spawn(move || drop(bucket.take_many(n).wait().unwrap()));
                }
                let [first, second] = tokens;
                scope.spawn(move || drop(first));
                scope.spawn(move || drop(second));
                for take in leaving {
                    scope.spawn(move || drop(take));
                }
            });
            assert_eq!((bucket.available(), bucket.waiting()), (2, 0));
        }
    });
}

/// A bounded channel of tokens: `release` puts tokens in, `take` takes them out, and both wait for each other.
fn takers_and_releasers_hand_every_token_on(fairness: Fairness) {
    stress(move |seed| {
        for max in [1, 3] {
            const TURNS: usize = 3_000;
            let bucket = TokenBucket::new(max, 0).unwrap().with_fairness(fairness);
            let taken = AtomicUsize::new(0);
            thread::scope(|scope| {
                for thread in 0..3 {
                    let (bucket, taken) = (&bucket, &taken);
                    scope.spawn(move || {
                        let mut random = Random::new(seed, thread);
                        for _ in 0..TURNS {
                            if random.below(2) > 0 || bucket.try_release().is_err() {
                                bucket.release().wait().unwrap();
                            }
                        }
                    });
                    scope.spawn(move || {
                        let mut random = Random::new(seed, 10 + thread);
                        for _ in 0..TURNS {
                            let now = if random.below(2) > 0 { bucket.try_take().ok() } else { None };
                            let token = now.unwrap_or_else(|| bucket.take().wait().unwrap());
                            taken.fetch_add(token.count(), Ordering::SeqCst);
                            token.forget();
                        }
                    });
                }
            });
            assert_eq!(taken.into_inner(), 3 * TURNS);
            assert_eq!((bucket.available(), bucket.waiting()), (0, 0));
        }
    });
}

/// Several threads set the capacity at once while tokens are held: the last one counts, and the others leave no deficit.
fn resizes_add_up(fairness: Fairness) {
    stress(move |seed| {
        let bucket = TokenBucket::new(MAX, 10).unwrap().with_fairness(fairness);
        let held = bucket.try_take_many(7).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let bucket = &bucket;
                scope.spawn(move || {
                    let mut random = Random::new(seed, thread);
                    for _ in 0..1_000 {
                        let now = bucket.set_capacity(random.below(MAX + 1)).unwrap();
                        // No token is taken or returned meanwhile, so the number of held tokens is known at every instant.
                        assert_eq!(int(now.capacity) - signed(now), 7, "{now:?}");
                        assert_eq!(now.outstanding, 7, "{now:?}");
                    }
                });
            }
        });
        bucket.set_capacity(4).unwrap();
        assert_eq!(signed(bucket.snapshot()), -3);
        drop(held);
        assert_eq!((bucket.available(), bucket.outstanding(), bucket.waiting()), (4, 0, 0));
    });
}

fn a_close_in_the_middle_ends_every_wait(fairness: Fairness) {
    stress(move |seed| {
        for round in 0..40 {
            let bucket = TokenBucket::new(MAX, 3).unwrap().with_fairness(fairness);
            let turns = AtomicUsize::new(0);
            thread::scope(|scope| {
                for thread in 0..3 {
                    let (bucket, turns) = (&bucket, &turns);
                    scope.spawn(move || {
                        let mut random = Random::new(seed + round, thread);
                        loop {
                            match bucket.take_many(1 + random.below(4)).wait_timeout(Duration::from_millis(random.below(3) as u64))
                            {
                                Ok(token) => {
                                    turns.fetch_add(1, Ordering::SeqCst);
                                    drop(token);
                                }
                                Err(WaitError::TimedOut) => {}
                                Err(_) => break,
                            }
                            if bucket.set_capacity(3 + random.below(2)).is_err() {
                                break;
                            }
                        }
                    });
                }
                while turns.load(Ordering::SeqCst) < 20 {
                    thread::yield_now();
                }
                assert!(bucket.close());
                assert!(bucket.try_take().is_err());
            });
            assert!(bucket.is_closed());
            assert_eq!((bucket.available(), bucket.waiting()), (bucket.capacity(), 0));
        }
    });
}
