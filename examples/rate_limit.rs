//! A hundred calls a second, at most five at once; the rate changes at run time.
//!
//! ```sh
//! cargo run --example rate_limit
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use token_bucket::{NotYet, RateLimiter};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let limiter = RateLimiter::new(100, SECOND, 5)?;

    for _ in 0..15 {
        limiter.take(1, tokio::time::sleep).await?; // waits for its turn
    }
    assert!(start.elapsed() >= Duration::from_millis(100)); // 5 calls at once, then one every 10 ms

    // To refuse a request instead of waiting:
    match limiter.try_take(5) {
        Ok(()) => println!("200 OK"),
        Err(NotYet::RetryAfter(wait)) => println!("429 Too Many Requests, Retry-After: {}", wait.as_secs() + 1),
        Err(error) => return Err(error.into()),
    }

    limiter.set_rate(0, SECOND)?; // a pause
    assert!(matches!(limiter.try_take(5), Ok(()) | Err(NotYet::Paused)));
    limiter.set_rate(1_000, SECOND)?; // in force at once, for waiters too
    limiter.take(5, tokio::time::sleep).await?;
    Ok(())
}
