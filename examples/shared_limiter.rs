//! One rate limiter, shared by tasks of two runtimes and by threads. All of them wait in one queue.
//!
//! ```sh
//! cargo run --example shared_limiter
//! ```

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use token_bucket::RateLimiter;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let limiter = Arc::new(RateLimiter::new(100, Duration::from_secs(1), 10)?);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let on_tokio: Vec<_> = (0..10)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            runtime.spawn(async move { limiter.take(1, tokio::time::sleep).await })
        })
        .collect();
    let on_smol: Vec<_> = (0..10)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            smol::spawn(async move { limiter.take(1, smol::Timer::after).await })
        })
        .collect();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| limiter.wait(1))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    for task in on_tokio {
        runtime.block_on(task)??;
    }
    on_smol.into_iter().try_for_each(smol::block_on)?;

    assert!(start.elapsed() >= Duration::from_millis(200)); // 10 at once, then 20 at 100 a second
    Ok(())
}
