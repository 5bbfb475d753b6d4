//! With the feature `tokio`, futures take part in tokio's cooperative budget.

use std::sync::Arc;
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
    while task::coop::has_budget_remaining() {
        task::coop::consume_budget().now_or_later();
    }
    for _ in 0..1000 {
        drop(bucket.take().wait().unwrap());
    }
    bucket.idle().wait();
}

trait NowOrLater: Future {
    /// Polls once.
    fn now_or_later(self);
}

impl<F: Future> NowOrLater for F {
    fn now_or_later(self) {
        let mut future = std::pin::pin!(self);
        let waker = std::task::Waker::noop();
        let _ready = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
}
