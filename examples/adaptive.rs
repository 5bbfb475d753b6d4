//! A concurrency limit that follows the latency of a backend: it rises step by step, and falls by a tenth when calls become slow.
//!
//! ```sh
//! cargo run --example adaptive
//! ```

use std::error::Error;
use std::time::Duration;

use token_bucket::{SetCapacityError, TokenBucket};

const UNLOADED: Duration = Duration::from_millis(10);

/// The latency of a backend that works on `limit` requests at a time and queues the others.
fn latency(in_flight: usize, limit: usize) -> Duration {
    UNLOADED * u32::try_from(in_flight.div_ceil(limit)).unwrap_or(u32::MAX)
}

/// Called for each response, by any number of threads at once: a change is one atomic step.
fn adapt(bucket: &TokenBucket, latency: Duration) -> Result<(), SetCapacityError> {
    let is_slow = latency > UNLOADED * 3 / 2;
    bucket.update_capacity(|limit| if is_slow { (limit * 9 / 10).max(1) } else { (limit + 1).min(1_000) })?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let bucket = TokenBucket::new(1_000, 1)?;
    for backend in [8, 40, 20] {
        for _ in 0..100 {
            let requests = bucket.try_take_up_to(usize::MAX)?; // the callers use up the limit
            let latency = latency(requests.count(), backend);
            drop(requests);
            adapt(&bucket, latency)?;
        }
        println!("a backend for {backend} requests at a time: the limit is {}", bucket.capacity());
        assert!((backend * 8 / 10..=backend + 1).contains(&bucket.capacity()));
    }
    Ok(())
}
