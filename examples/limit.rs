//! At most four jobs at once, for tasks and threads alike; later, eight.
//!
//! ```sh
//! cargo run --example limit
//! ```

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use token_bucket::{TakeError, TokenBucket};

const WORK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let bucket = Arc::new(TokenBucket::with_capacity(4));

    let for_thread = Arc::clone(&bucket);
    let thread = thread::spawn(move || {
        let _token = for_thread.take().wait()?; // in the same queue as the tasks
        thread::sleep(WORK);
        Ok::<(), TakeError>(())
    });
    let tasks: Vec<_> = (0..15)
        .map(|_| {
            let bucket = Arc::clone(&bucket);
            tokio::spawn(async move {
                let _token = bucket.take().await?; // waits while four jobs run
                tokio::time::sleep(WORK).await;
                Ok::<(), TakeError>(())
            })
        })
        .collect();

    for task in tasks {
        task.await??;
    }
    thread.join().expect("it does not panic")?;
    assert!(start.elapsed() >= 4 * WORK); // 16 jobs, four at a time

    bucket.set_capacity(8)?;
    assert_eq!(bucket.available(), 8); // every token came back, and there are four more
    Ok(())
}
