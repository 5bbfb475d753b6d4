//! A batch of a hundred jobs, five at a time. Many are cancelled while they wait or work, and no token is lost.
//!
//! ```sh
//! cargo run --example batch
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use token_bucket::{TakeError, TokenBucket};
use tokio::time::{sleep, timeout};

async fn job(bucket: &TokenBucket) -> Result<(), TakeError> {
    let _token = bucket.take().await?;
    sleep(Duration::from_millis(5)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let bucket = Arc::new(TokenBucket::with_capacity(5));

    let jobs: Vec<_> = (0..100)
        .map(|i| {
            let bucket = Arc::clone(&bucket);
            tokio::spawn(async move {
                // Every third job gives up soon: while it waits, or while it works.
                let limit = Duration::from_millis(if i % 3 == 0 { 8 } else { 60_000 });
                timeout(limit, job(&bucket)).await
            })
        })
        .collect();
    jobs[99].abort(); // it waits

    let (mut done, mut cancelled) = (0, 0);
    for job in jobs {
        match job.await {
            Ok(Ok(result)) => {
                result?;
                done += 1;
            }
            Ok(Err(_timed_out)) => cancelled += 1,
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(done >= 66, "every job that was not cancelled is done");
    assert!(start.elapsed() >= Duration::from_millis(66)); // 66 jobs of 5 ms, five at a time
    assert_eq!(done + cancelled, 100);
    assert_eq!((bucket.available(), bucket.waiting()), (5, 0));
    println!("{done} done, {cancelled} cancelled");
    Ok(())
}
