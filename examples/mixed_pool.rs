//! Tasks and threads work side by side under one limit, which shrinks to zero before the program ends.
//!
//! ```sh
//! cargo run --example mixed_pool
//! ```

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use token_bucket::{TakeError, TokenBucket};

const JOB: Duration = Duration::from_millis(2);

async fn work_in_a_task(bucket: Arc<TokenBucket>) -> usize {
    let mut jobs = 0;
    while let Ok(_token) = bucket.take().await {
        tokio::time::sleep(JOB).await;
        jobs += 1;
    }
    jobs // the bucket is closed
}

fn work_in_a_thread(bucket: &TokenBucket) -> usize {
    let mut jobs = 0;
    while let Ok(_token) = bucket.take().wait() {
        thread::sleep(JOB);
        jobs += 1;
    }
    jobs
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bucket = Arc::new(TokenBucket::with_capacity(6));
    let tasks: Vec<_> = (0..6).map(|_| tokio::spawn(work_in_a_task(Arc::clone(&bucket)))).collect();
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || work_in_a_thread(&bucket))
        })
        .collect();
    tokio::time::sleep(10 * JOB).await;

    bucket.set_capacity(2)?; // no new job starts until fewer than two run
    bucket.settled().await;
    assert!(bucket.outstanding() <= 2);
    tokio::time::sleep(10 * JOB).await;

    bucket.set_capacity(0)?; // drain: jobs in progress end, and no other starts
    bucket.idle().await;
    assert_eq!(bucket.outstanding(), 0);

    bucket.close_with("the work is done"); // ends every waiter
    let mut jobs = 0;
    for task in tasks {
        jobs += task.await?;
    }
    for thread in threads {
        jobs += thread.join().expect("it does not panic");
    }
    assert!(jobs > 0);
    assert!(matches!(bucket.take().await, Err(TakeError::Closed(_))));
    Ok(())
}
