//! All uploads together hold at most 256 KiB in memory, whatever their sizes.
//!
//! ```sh
//! cargo run --example byte_budget
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use token_bucket::{TakeError, TokenBucket, TryTakeError};

/// A bucket holds up to 2²⁸ − 1 tokens. With one for each KiB, that is 256 GiB.
fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

async fn upload(memory: &TokenBucket, bytes: usize) -> Result<usize, TakeError> {
    // All at once, so two uploads cannot each hold half of what they need and wait for the other half.
    let budget = memory.take_many(kib(bytes)).await?;
    let buffer = vec![0_u8; bytes];
    tokio::time::sleep(Duration::from_millis(5)).await;
    drop(buffer); // first the memory, then the tokens
    drop(budget);
    Ok(bytes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    // The largest capacity is the budget, so a request that can never be satisfied is an error.
    let memory = Arc::new(TokenBucket::new(kib(256 << 10), kib(256 << 10))?);

    let sizes = [200_000, 1, 100_000, 150_000, 70_000, 250_000];
    let uploads = sizes.map(|bytes| {
        let memory = Arc::clone(&memory);
        tokio::spawn(async move { upload(&memory, bytes).await })
    });
    for (upload, bytes) in uploads.into_iter().zip(sizes) {
        assert_eq!(upload.await??, bytes); // the large ones are served in turn as well
    }
    assert!(start.elapsed() >= Duration::from_millis(14)); // 756 KiB, at most 256 at a time, each for 5 ms
    assert!(matches!(memory.try_take_many(kib(300 << 10)), Err(TryTakeError::ExceedsMax { .. })));
    assert_eq!(memory.outstanding(), 0);
    Ok(())
}
