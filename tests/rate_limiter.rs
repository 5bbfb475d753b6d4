//! The rate limiter through its public interface and with the real clock. (Hours are simulated in a unit test beside the source.)
#![cfg(feature = "std")]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use token_bucket::{LimitError, NotYet, RateError, RateLimiter, RateTake, Refill, WaitError};

mod support;
use support::{in_time, poll_with, task, waiting};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A limiter to which practically only the test adds tokens.
fn slow(burst: usize) -> RateLimiter {
    RateLimiter::new(1, HOUR * 24, burst).unwrap()
}

/// A limiter without available tokens; the next one is due in a day.
fn empty(burst: usize) -> RateLimiter {
    let limiter = slow(burst);
    limiter.try_take(burst).unwrap();
    limiter
}

/// Sleeps that end when the test says so.
#[derive(Clone, Default)]
struct Sleeps(Rc<RefCell<Vec<Duration>>>, Rc<Cell<bool>>);

impl Sleeps {
    fn sleep(&self) -> impl Fn(Duration) -> Sleep + Unpin + use<> {
        let sleeps = self.clone();
        move |time| {
            sleeps.0.borrow_mut().push(time);
            Sleep(Rc::clone(&sleeps.1))
        }
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

struct Sleep(Rc<Cell<bool>>);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn never(_: Duration) -> std::future::Pending<()> {
    pending()
}

// Numbers.

#[test]
fn numbers_at_the_limits_are_granted_or_refused() {
    let limiter = slow(5);
    for (n, left) in [(0, 5), (1, 4), (4, 0), (0, 0)] {
        limiter.try_take(n).unwrap();
        assert_eq!(limiter.available(), left);
    }
    for n in [1, 5] {
        let wait = limiter.try_take(n).unwrap_err().retry_after().unwrap();
        assert!(wait + HOUR > HOUR * 24 * u32::try_from(n).unwrap());
        assert!(wait <= HOUR * 24 * u32::try_from(n).unwrap());
    }
    for n in [6, usize::MAX, 1 << 32] {
        assert!(matches!(limiter.try_take(n), Err(NotYet::ExceedsBurst { requested, burst: 5 }) if requested == n));
        assert!(matches!(limiter.wait(n), Err(LimitError::ExceedsBurst { requested, burst: 5 }) if requested == n));
        let result = task(limiter.take(n, never)).done();
        assert!(matches!(result, Err(LimitError::ExceedsBurst { requested, burst: 5 }) if requested == n));
    }
    assert_eq!((limiter.available(), limiter.waiting()), (0, 0));
}

#[test]
fn the_time_to_retry_after_counts_from_now() {
    let limiter = empty(1);
    limiter.try_take(1).unwrap_err();
    thread::sleep(ms(20));
    assert!(limiter.try_take(1).unwrap_err().retry_after().unwrap() + ms(20) <= HOUR * 24);
}

#[test]
fn the_largest_numbers_work() {
    let limiter = RateLimiter::new(usize::MAX, Refill::MAX_PERIOD, usize::MAX).unwrap();
    limiter.try_take(usize::MAX).unwrap();
    assert!(matches!(limiter.try_take(usize::MAX), Err(NotYet::RetryAfter(_))));
    let mut takes: Vec<_> = (0..3).map(|_| waiting(limiter.take(usize::MAX, never))).collect();
    // More than any integer type can hold.
    assert!(matches!(limiter.try_take(usize::MAX), Err(NotYet::RetryAfter(_))));
    limiter.set_rate(1, Refill::MAX_PERIOD).unwrap();
    assert_eq!(limiter.try_take(usize::MAX).unwrap_err().retry_after(), Some(Duration::MAX));
    limiter.set_rate(usize::MAX, Duration::from_nanos(1)).unwrap();
    thread::sleep(ms(1));
    assert!(limiter.waiting() < 3);
    takes[0].done().unwrap();
}

#[test]
fn invalid_rates_are_refused_and_change_nothing() {
    assert_eq!(RateLimiter::new(1, Duration::ZERO, 1).unwrap_err(), RateError::PeriodIsZero);
    assert!(matches!(RateLimiter::new(1, Duration::MAX, 1), Err(RateError::PeriodTooLong { .. })));
    let limiter = empty(2);
    for per in [Duration::ZERO, Duration::MAX] {
        limiter.set_rate(1 << 40, per).unwrap_err();
    }
    assert_eq!((limiter.rate(), limiter.burst(), limiter.available()), ((1, HOUR * 24), 2, 0));
}

#[test]
fn errors_say_what_is_wrong() {
    let limiter = empty(2);
    assert!(limiter.try_take(1).unwrap_err().to_string().starts_with("rate limit reached, retry after 86"));
    let exceeds = "request for 3 tokens is above the rate limiter's burst of 2";
    assert_eq!(limiter.try_take(3).unwrap_err().to_string(), exceeds);
    assert_eq!(limiter.wait(3).unwrap_err().to_string(), exceeds);
    limiter.set_rate(0, SECOND).unwrap();
    assert_eq!(limiter.try_take(1).unwrap_err().to_string(), "rate limiter is paused");
    assert_eq!(limiter.try_take(1).unwrap_err().retry_after(), None);
}

// The limiter does not fail open.

/// A limit built on a bucket once let 1000 calls through at once, because each token was bound to a name and dropped.
#[test]
fn a_taken_token_comes_back_by_time_alone() {
    let limiter = RateLimiter::new(10, SECOND, 10).unwrap();
    let start = Instant::now();
    let mut granted = 0;
    for _ in 0..1000 {
        let _token = limiter.try_take(1).inspect(|()| granted += 1);
        drop(limiter.take(1, never));
        assert!(task(limiter.take(1, never)).poll().map(|_| granted += 1).is_pending() || granted < 100);
    }
    let passed = start.elapsed().as_millis() / 100;
    assert!((10..=11 + passed).contains(&granted), "{granted} in {passed} tenths of a second");
}

#[test]
fn a_long_pause_is_worth_one_burst() {
    let limiter = RateLimiter::new(1, ms(20), 3).unwrap();
    thread::sleep(ms(200));
    let start = Instant::now();
    let granted = (0..100).filter(|_| limiter.try_take(1).is_ok()).count() as u128;
    let passed = start.elapsed().as_millis() / 20;
    assert!((3..=4 + passed).contains(&granted), "{granted}");
}

/// A fast path that still used the old rate would not notice that the bucket was full in the meantime.
#[test]
fn a_long_pause_after_a_change_of_the_rate_is_worth_one_burst() {
    let limiter = slow(3);
    limiter.try_take(1).unwrap();
    limiter.set_rate(1, ms(20)).unwrap();
    thread::sleep(ms(200));
    let start = Instant::now();
    let granted = (0..100).filter(|_| limiter.try_take(1).is_ok()).count() as u128;
    let passed = start.elapsed().as_millis() / 20;
    assert!((3..=4 + passed).contains(&granted), "{granted}");
}

// Wake-ups.

#[test]
fn nothing_runs_while_nothing_waits() {
    let limiter = RateLimiter::new(1000, SECOND, 3).unwrap();
    let sleeps = Sleeps::default();
    for _ in 0..3 {
        let mut take = task(limiter.take(1, sleeps.sleep()));
        take.done().unwrap();
        assert_eq!(take.wakes(), 0);
    }
    thread::sleep(ms(20));
    assert_eq!((limiter.available(), sleeps.count()), (3, 0));
}

#[test]
fn the_leader_sleeps_for_all_waiters() {
    let limiter = empty(2);
    let sleeps = Sleeps::default();
    let mut takes: Vec<_> = (0..3).map(|_| waiting(limiter.take(1, sleeps.sleep()))).collect();
    assert_eq!(sleeps.count(), 1);
    assert!(sleeps.0.borrow()[0] <= HOUR * 24);
    for take in &mut takes {
        take.waits();
    }
    assert_eq!(sleeps.count(), 1);
    takes.remove(1);
    assert!(takes.iter().all(|take| !take.is_woken()));
    // Another waiter takes over.
    takes.remove(0);
    assert!(takes[0].is_woken());
    takes[0].waits();
    assert_eq!((sleeps.count(), limiter.waiting()), (2, 1));
}

#[test]
fn a_sleep_that_ends_early_is_followed_by_another() {
    let limiter = empty(1);
    let sleeps = Sleeps::default();
    let mut take = waiting(limiter.take(1, sleeps.sleep()));
    sleeps.1.set(true);
    take.waits();
    // It yields instead of spinning.
    assert_eq!((sleeps.count(), take.is_woken()), (2, true));
    sleeps.1.set(false);
    take.waits();
    assert_eq!((sleeps.count(), take.is_woken()), (3, false));
}

#[test]
fn a_sleep_that_ends_at_once_yields() {
    let limiter = RateLimiter::new(1, ms(5), 1).unwrap();
    let start = Instant::now();
    pollster::block_on(async {
        for _ in 0..4 {
            limiter.take(1, ready).await.unwrap();
        }
    });
    assert!(start.elapsed() >= ms(15));
    // A poll does not loop for ever.
    let limiter = empty(1);
    let mut take = waiting(limiter.take(1, ready));
    assert!(take.is_woken());
    take.waits();
}

#[test]
fn a_sleep_that_panics_leaves_the_limiter_usable() {
    let limiter = empty(1);
    {
        let mut take = task(limiter.take(1, |_| -> std::future::Ready<()> { panic!("no timer") }));
        catch_unwind(AssertUnwindSafe(|| take.poll())).unwrap_err();
        assert_eq!(limiter.waiting(), 1);
        let mut next = waiting(limiter.take(1, never));
        drop(take);
        assert!(next.is_woken());
        next.waits();
    }
    assert_eq!(limiter.waiting(), 0);
    limiter.set_burst(2);
    limiter.try_take(1).unwrap();
}

// Changes while callers wait.

#[test]
fn a_rate_is_paused_changed_and_resumed_while_callers_wait() {
    let limiter = empty(1);
    let sleeps = Sleeps::default();
    let mut takes: Vec<_> = (0..2).map(|_| waiting(limiter.take(1, sleeps.sleep()))).collect();
    limiter.set_rate(0, SECOND).unwrap();
    assert!(takes[0].is_woken() && !takes[1].is_woken());
    takes[0].waits();
    assert_eq!(sleeps.count(), 1);
    assert!(matches!(limiter.try_take(1), Err(NotYet::Paused)));
    limiter.set_rate(1, ms(1)).unwrap();
    takes[0].waits();
    assert_eq!(sleeps.count(), 2);
    assert!(sleeps.0.borrow()[1] <= ms(1));
    thread::sleep(ms(2));
    takes[0].done().unwrap();
    assert!(takes[1].is_woken());
}

#[test]
fn blocked_threads_notice_a_new_rate() {
    in_time(|| {
        let limiter = empty(1);
        thread::scope(|scope| {
            scope.spawn(|| limiter.wait(1).unwrap());
            scope.spawn(|| limiter.wait_timeout(1, Duration::MAX).unwrap());
            while limiter.waiting() < 2 {
                thread::yield_now();
            }
            limiter.set_rate(0, SECOND).unwrap();
            thread::sleep(ms(5));
            limiter.set_rate(1, ms(1)).unwrap();
        });
    });
}

#[test]
fn a_burst_of_0_is_a_pause() {
    let limiter = slow(3);
    limiter.try_take(1).unwrap();
    limiter.set_burst(0);
    assert!(matches!(limiter.try_take(1), Err(NotYet::Paused)));
    limiter.try_take(0).unwrap();
    let sleeps = Sleeps::default();
    let mut first = waiting(limiter.take(2, sleeps.sleep()));
    let mut second = waiting(limiter.take(1, never));
    // There is nothing to sleep for, and a request for zero tokens succeeds.
    assert_eq!(sleeps.count(), 0);
    task(limiter.take(0, never)).done().unwrap();
    limiter.wait(0).unwrap();
    limiter.set_burst(3);
    first.done().unwrap();
    // It is woken to sleep, because it is the head now.
    assert!(second.is_woken());
    second.waits();
    limiter.set_burst(4);
    second.done().unwrap();
    assert_eq!(limiter.available(), 0);
}

#[test]
fn a_larger_burst_wakes_the_leader_to_sleep_less() {
    let limiter = empty(5);
    let sleeps = Sleeps::default();
    let mut take = waiting(limiter.take(4, sleeps.sleep()));
    limiter.set_burst(7);
    assert!(take.is_woken());
    take.waits();
    let sleeps = sleeps.0.borrow();
    assert!(sleeps[0] > HOUR * 23 && sleeps[1] > HOUR * 23, "{sleeps:?}");
    assert_eq!(limiter.try_take(0).map(|()| limiter.waiting()).unwrap(), 1);
}

#[test]
fn changes_of_the_burst_net_out() {
    let limiter = slow(10);
    limiter.try_take(8).unwrap();
    for burst in [5, 10, 0, 10, usize::MAX, 10] {
        limiter.set_burst(burst);
        assert_eq!((limiter.burst(), limiter.available()), (burst, burst.saturating_sub(8)));
    }
}

#[test]
fn a_waiter_above_the_burst_blocks_no_waiter_and_regains_its_place() {
    let limiter = empty(5);
    let mut large = waiting(limiter.take(4, never));
    let mut small = waiting(limiter.take(1, never));
    limiter.set_burst(3);
    assert!(matches!(limiter.try_take(4), Err(NotYet::ExceedsBurst { burst: 3, .. })));
    assert!(small.is_woken());
    small.waits();
    large.waits();
    assert_eq!(limiter.waiting(), 2);
    // The large request came first, so the small one waits behind it.
    limiter.set_burst(8);
    small.waits();
    limiter.set_burst(9);
    large.done().unwrap();
    limiter.set_burst(10);
    small.done().unwrap();
    assert_eq!((limiter.available(), limiter.waiting()), (0, 0));
}

// Order.

#[test]
fn no_caller_overtakes_a_waiter() {
    let limiter = empty(2);
    let mut first = waiting(limiter.take(2, never));
    let mut second = waiting(limiter.take(1, never));
    limiter.set_burst(3);
    assert!(matches!(limiter.try_take(1), Err(NotYet::RetryAfter(_))));
    assert!(matches!(limiter.wait_timeout(1, ms(1)), Err(WaitError::TimedOut)));
    second.waits();
    // A request for zero tokens overtakes no waiter.
    limiter.try_take(0).unwrap();
    task(limiter.take(0, never)).done().unwrap();
    limiter.set_burst(5);
    assert!(first.is_woken() && second.is_woken());
    second.done().unwrap();
    first.done().unwrap();
}

#[test]
fn a_request_that_is_dropped_anywhere_loses_nothing() {
    // New; waiting as the leader; behind it; granted.
    drop(empty(1).take(1, never));
    let limiter = empty(1);
    for polls in 0..3 {
        let mut leader = task(limiter.take(1, never));
        let mut behind = task(limiter.take(1, never));
        for _ in 0..polls {
            leader.waits();
            behind.waits();
        }
        drop(behind);
        drop(leader);
        assert_eq!((limiter.waiting(), limiter.available()), (0, 0));
    }
    let granted = waiting(limiter.take(1, never));
    let mut next = waiting(limiter.take(1, never));
    limiter.set_burst(2);
    assert!(granted.is_woken() && limiter.waiting() == 1);
    drop(granted);
    next.done().unwrap();
    assert_eq!((limiter.waiting(), limiter.available()), (0, 0));
}

#[test]
fn a_future_is_fused_and_named() {
    let limiter = slow(1);
    let mut take: RateTake<'_, fn(Duration) -> std::future::Pending<()>, _> = limiter.take(1, never);
    assert!(!take.is_terminated());
    assert!(format!("{take:?}").contains("new"));
    assert!(poll_with(&mut take, Waker::noop()).is_ready());
    assert!(take.is_terminated());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_with(&mut take, Waker::noop()))).is_err());
    assert_eq!(limiter.available(), 0);
}

#[test]
fn auto_traits_and_debug_output() {
    fn is<T: Send + Sync + Unpin + std::panic::RefUnwindSafe>() {}
    fn is_send<T: Send + Unpin>(_: &T) {}
    is::<RateLimiter>();
    is_send(&slow(1).take(1, tokio::time::sleep));
    is_send(&slow(1).take(1, smol::Timer::after));
    let limiter = slow(3);
    assert!(format!("{limiter:?}").contains("burst: 3, available: 3, waiting: 0, closed: false"));
}

// Closing.

#[test]
fn closing_wakes_every_waiter_with_the_cause() {
    in_time(|| {
        let limiter = empty(2);
        thread::scope(|scope| {
            let blocked = scope.spawn(|| limiter.wait(1).unwrap_err());
            while limiter.waiting() < 1 {
                thread::yield_now();
            }
            let mut takes: Vec<_> = [1, 1, 2].map(|n| waiting(limiter.take(n, never))).into();
            // The last one is deferred.
            limiter.set_burst(1);
            assert!(!limiter.is_closed() && limiter.close_with("revoked") && limiter.is_closed());
            assert!(!limiter.close() && !limiter.close_with("too late"));
            assert!(takes.iter().all(|take| take.wakes() == 1));
            // Nothing is granted any more.
            limiter.set_burst(100);
            for take in &mut takes {
                let error = take.done().unwrap_err();
                assert_eq!(error.to_string(), "rate limiter is closed: revoked");
            }
            assert!(blocked.join().unwrap().to_string().ends_with("revoked"));
        });
        assert_eq!(limiter.waiting(), 0);
        for n in [0, 1, 9] {
            assert!(matches!(limiter.try_take(n), Err(NotYet::Closed(_))));
            assert!(matches!(limiter.wait(n), Err(LimitError::Closed(_))));
        }
        // No change reopens the limiter.
        limiter.set_burst(7);
        limiter.set_rate(7, SECOND).unwrap();
        assert!(matches!(limiter.try_take(1), Err(NotYet::Closed(_))));
    });
}

#[test]
fn a_grant_made_before_the_close_holds() {
    let limiter = empty(1);
    let mut take = waiting(limiter.take(1, never));
    limiter.set_burst(2);
    limiter.close();
    take.done().unwrap();
}

// Threads and runtimes.

#[test]
fn deadlines() {
    in_time(|| {
        let limiter = slow(1);
        let past = Instant::now();
        limiter.wait_deadline(1, past).unwrap();
        assert!(matches!(limiter.wait_deadline(1, past), Err(WaitError::TimedOut)));
        let start = Instant::now();
        assert!(matches!(limiter.wait_timeout(1, ms(20)), Err(WaitError::TimedOut)));
        assert!(start.elapsed() >= ms(20));
        assert!(matches!(limiter.wait_timeout(2, ms(20)), Err(WaitError::Failed(LimitError::ExceedsBurst { .. }))));
        assert_eq!(limiter.waiting(), 0);
    });
}

#[test]
fn runtimes_and_threads_share_one_queue() {
    in_time(|| {
        const EACH: usize = 40;
        let limiter = Arc::new(RateLimiter::new(4000, SECOND, 2).unwrap());
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..EACH).for_each(|_| limiter.wait(1).unwrap()));
            }
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
                runtime.block_on(async {
                    let takes = (0..EACH).map(|_| {
                        let limiter = Arc::clone(&limiter);
                        tokio::spawn(async move { limiter.take(1, tokio::time::sleep).await.unwrap() })
                    });
                    for take in takes.collect::<Vec<_>>() {
                        take.await.unwrap();
                    }
                });
            });
            scope.spawn(|| {
                smol::block_on(async {
                    for _ in 0..EACH {
                        limiter.take(1, smol::Timer::after).await.unwrap();
                    }
                });
            });
            scope.spawn(|| {
                let takes = (0..EACH).map(|_| limiter.take(1, smol::Timer::after));
                futures::executor::block_on(futures::future::try_join_all(takes)).unwrap();
            });
        });
        let due = u32::try_from(5 * EACH - 2).unwrap();
        assert!(start.elapsed() >= SECOND * due / 4000);
        assert_eq!(limiter.waiting(), 0);
    });
}

#[test]
fn ten_thousand_tasks_wait() {
    in_time(|| {
        let limiter = Arc::new(RateLimiter::new(100_000, SECOND, 10).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let start = Instant::now();
        runtime.block_on(async {
            let takes = (0..10_000).map(|_| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move { limiter.take(1, tokio::time::sleep).await })
            });
            for take in takes.collect::<Vec<_>>() {
                take.await.unwrap().unwrap();
            }
        });
        assert!(start.elapsed() >= SECOND * (10_000 - 10) / 100_000);
    });
}

/// Two threads of each kind, doing everything; no more tokens are granted than the rate allows.
#[test]
fn two_of_everything_at_once() {
    in_time(|| {
        const RATE: u128 = 20_000;
        let limiter = &RateLimiter::new(20_000, SECOND, 4).unwrap();
        let granted = &AtomicUsize::new(0);
        let count = move |n: usize, is_granted: bool| {
            granted.fetch_add(if is_granted { n } else { 0 }, Ordering::Relaxed);
        };
        let start = Instant::now();
        let runs = move || start.elapsed() < ms(300);
        thread::scope(|scope| {
            for n in 1..=2 {
                scope.spawn(move || {
                    while runs() {
                        count(n, limiter.wait(n).is_ok());
                    }
                });
                scope.spawn(move || {
                    while runs() {
                        count(n, limiter.wait_timeout(n, Duration::from_micros(50)).is_ok());
                    }
                });
                scope.spawn(move || {
                    while runs() {
                        count(n, limiter.try_take(n).is_ok());
                        thread::yield_now();
                    }
                });
                scope.spawn(move || {
                    smol::block_on(async {
                        while runs() {
                            let take = async { Some(limiter.take(n, smol::Timer::after).await.is_ok()) };
                            let timeout = async {
                                smol::Timer::after(Duration::from_micros(100)).await;
                                None
                            };
                            count(n, futures_lite::future::or(take, timeout).await == Some(true));
                        }
                    });
                });
                scope.spawn(move || {
                    while runs() {
                        limiter.set_burst([4, 2, 0][n]);
                        limiter.set_rate([5_000, 20_000, 0][n], SECOND).unwrap();
                        thread::sleep(ms(1));
                        limiter.set_burst(4);
                        limiter.set_rate(20_000, SECOND).unwrap();
                        thread::sleep(ms(1));
                    }
                });
            }
            scope.spawn(|| {
                while runs() {
                    thread::sleep(ms(1));
                }
                limiter.close();
            });
        });
        let most = RATE * start.elapsed().as_nanos() / SECOND.as_nanos() + 1 + 4;
        let granted = granted.load(Ordering::Relaxed);
        assert!(granted > 100 && granted as u128 <= most, "{granted} of {most}");
        assert_eq!(limiter.waiting(), 0);
    });
}

// Wakers.

/// A waker that calls a function when woken.
struct Then<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Then<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn a_waker_may_call_the_limiter() {
    in_time(|| {
        let limiter: &'static RateLimiter = Box::leak(Box::new(empty(1)));
        let mut take = limiter.take(1, never);
        let waker = Waker::from(Arc::new(Then(|| {
            limiter.try_take(1).unwrap_err();
            limiter.set_rate(3, HOUR).unwrap();
            limiter.set_burst(limiter.burst());
            drop(task(limiter.take(1, never)).poll());
        })));
        assert!(poll_with(&mut take, &waker).is_pending());
        limiter.set_burst(2);
        assert_eq!(limiter.rate(), (3, HOUR));
        assert!(poll_with(&mut take, &waker).is_ready());
    });
}

#[test]
fn a_waker_that_panics_does_not_stop_others_from_being_woken() {
    let limiter = empty(1);
    let waker = Waker::from(Arc::new(Then(|| panic!("on purpose"))));
    let mut bad = limiter.take(1, never);
    assert!(poll_with(&mut bad, &waker).is_pending());
    let mut takes: Vec<_> = (0..2).map(|_| waiting(limiter.take(1, never))).collect();
    catch_unwind(AssertUnwindSafe(|| limiter.set_burst(4))).unwrap_err();
    for take in &mut takes {
        assert!(take.is_woken());
        take.done().unwrap();
    }
    assert!(poll_with(&mut bad, Waker::noop()).is_ready());
}

/// Such a waker uses up the unpark of the thread that runs it, and that blocks next.
#[test]
fn a_waker_may_park() {
    in_time(|| {
        let limiter: &'static RateLimiter = Box::leak(Box::new(RateLimiter::new(1, ms(20), 1).unwrap()));
        limiter.try_take(1).unwrap();
        let waker = Waker::from(Arc::new(Then(|| {
            // Grants the tokens of all other waiters, including the thread that runs this.
            limiter.set_rate(0, SECOND).unwrap();
            limiter.set_burst(3);
            thread::park_timeout(SECOND);
        })));
        let mut first = limiter.take(1, never);
        assert!(poll_with(&mut first, &waker).is_pending());
        let second = waiting(limiter.take(1, never));
        thread::sleep(ms(25));
        // Grants the token of the first waiter, and then runs its waker.
        limiter.wait(1).unwrap();
        drop(second);
    });
}
