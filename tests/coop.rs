//! With the feature `tokio`, futures take part in tokio's cooperative budget.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use token_bucket::{RateLimiter, TokenBucket, TokenGuard};
use tokio::task;
use tokio::time::timeout;

/// Long enough for any machine, and short for a task that never yields.
const LIMIT: Duration = Duration::from_millis(50);

/// Without the budget, this test hangs: the timeout is never polled.
#[tokio::test]
async fn a_task_that_takes_in_a_loop_yields() {
    let bucket = TokenBucket::with_capacity(1);
    let takes = async {
        loop {
            drop(bucket.take().await.unwrap());
        }
    };
    assert!(timeout(LIMIT, takes).await.is_err());
}

#[tokio::test]
async fn all_futures_that_are_ready_spend_the_budget() {
    let bucket = Arc::new(TokenBucket::with_capacity(2));
    let futures = async {
        loop {
            drop(bucket.take_many_owned(0).await.unwrap());
            TokenGuard::take_up_to(Arc::clone(&bucket), 2).await.unwrap().forget();
            bucket.release().await.unwrap();
            bucket.release().await.unwrap();
            bucket.idle().await;
            bucket.settled().await;
        }
    };
    assert!(timeout(LIMIT, futures).await.is_err());
}

#[tokio::test]
async fn a_task_that_takes_from_a_rate_limiter_in_a_loop_yields() {
    let limiter = RateLimiter::new(usize::MAX, Duration::from_secs(1), usize::MAX).unwrap();
    for n in [0, 1] {
        let takes = async {
            loop {
                limiter.take(n, tokio::time::sleep).await.unwrap();
            }
        };
        assert!(timeout(LIMIT, takes).await.is_err());
    }
}

#[tokio::test]
async fn a_refused_take_from_a_rate_limiter_spends_the_budget() {
    let limiter = RateLimiter::new(1, Duration::from_secs(1), 1).unwrap();
    let takes = async {
        loop {
            limiter.take(2, tokio::time::sleep).await.unwrap_err();
        }
    };
    assert!(timeout(LIMIT, takes).await.is_err());
}

/// A pending future gives its unit of the budget back, so polling it does not use the budget up.
#[tokio::test]
async fn a_pending_future_spends_nothing() {
    let bucket = TokenBucket::with_capacity(0);
    let mut take = bucket.take();
    let limiter = RateLimiter::new(0, LIMIT, 1).unwrap();
    limiter.try_take(1).unwrap();
    let mut rate_take = limiter.take(1, tokio::time::sleep);
    for _ in 0..10_000 {
        assert!(futures::poll!(&mut take).is_pending());
        assert!(futures::poll!(&mut rate_take).is_pending());
    }
    assert!(task::coop::has_budget_remaining());
}

/// A blocked thread has no runtime that would renew its budget.
#[tokio::test]
async fn a_blocking_wait_needs_no_budget() {
    let bucket = TokenBucket::with_capacity(1);
    exhaust_budget().await;
    for _ in 0..1000 {
        drop(bucket.take().wait().unwrap());
    }
    bucket.idle().wait();
}

/// Uses up what this poll of the task may spend.
async fn exhaust_budget() {
    while task::coop::has_budget_remaining() {
        let _ = futures::poll!(pin!(task::coop::consume_budget()));
    }
}

/// B26: a request takes its place in the queue when it is first polled, and a watcher misses no moment from then on, even if the
/// task has used up its budget.
#[tokio::test]
async fn b26_a_poll_without_budget_takes_its_place() {
    let bucket = TokenBucket::with_capacity(1);
    let held = bucket.try_take().unwrap();
    exhaust_budget().await;
    let (mut first, mut idle) = (bucket.take(), bucket.idle());
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut idle).is_pending());
    assert_eq!(bucket.waiting(), 1);
    drop(held);
    assert!(bucket.try_take().is_err(), "the token is granted to the first one");
    drop(first);
    drop(bucket.try_take().unwrap());
    task::yield_now().await;
    assert!(futures::poll!(&mut idle).is_ready());

    // Even if there is a token, or room.
    exhaust_budget().await;
    let mut first = bucket.take();
    assert!(futures::poll!(&mut first).is_pending());
    assert!(bucket.try_take().is_err());
    task::yield_now().await;
    let Poll::Ready(Ok(token)) = futures::poll!(&mut first) else { panic!("it was first") };
    exhaust_budget().await;
    let bucket = TokenBucket::new(1, 1).unwrap();
    bucket.try_take().unwrap().forget();
    let mut release = bucket.release();
    assert!(futures::poll!(&mut release).is_pending());
    task::yield_now().await;
    assert!(futures::poll!(&mut release).is_ready());
    assert_eq!(bucket.available(), 1);
    drop(token);
}

/// What cannot wait takes no place.
#[tokio::test]
async fn a_poll_without_budget_of_a_request_that_cannot_wait_does_nothing() {
    let bucket = TokenBucket::new(4, 4).unwrap();
    for n in [0, 5, usize::MAX] {
        exhaust_budget().await;
        let mut request = bucket.take_many(n);
        assert!(futures::poll!(&mut request).is_pending());
        assert_eq!((bucket.waiting(), bucket.available()), (0, 4));
        task::yield_now().await;
        assert!(matches!(futures::poll!(&mut request), Poll::Ready(result) if result.is_ok() == (n == 0)));
    }
    bucket.close();
    exhaust_budget().await;
    let mut request = bucket.take();
    assert!(futures::poll!(&mut request).is_pending());
    task::yield_now().await;
    assert!(matches!(futures::poll!(&mut request), Poll::Ready(Err(_))));
}

/// B26, for a rate limiter.
#[tokio::test]
async fn b26_a_poll_without_budget_takes_its_place_at_a_rate_limiter() {
    let limiter = RateLimiter::new(1, Duration::from_secs(3600), 2).unwrap();
    for n in [0, 3] {
        exhaust_budget().await;
        let mut request = limiter.take(n, tokio::time::sleep);
        assert!(futures::poll!(&mut request).is_pending());
        assert_eq!((limiter.waiting(), limiter.available()), (0, 2));
        task::yield_now().await;
        assert!(matches!(futures::poll!(&mut request), Poll::Ready(result) if result.is_ok() == (n == 0)));
    }
    exhaust_budget().await;
    let mut first = limiter.take(1, tokio::time::sleep);
    assert!(futures::poll!(&mut first).is_pending());
    assert_eq!(limiter.available(), 1, "granted");
    assert!(limiter.try_take(1).is_ok());
    let mut second = limiter.take(1, tokio::time::sleep);
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!((limiter.available(), limiter.waiting()), (0, 1));
    task::yield_now().await;
    assert!(matches!(futures::poll!(&mut first), Poll::Ready(Ok(()))));
    assert!(futures::poll!(&mut second).is_pending());
    drop(second);
    assert_eq!(limiter.waiting(), 0);
}
