//! A server that shuts down: it accepts no more work, and waits for the work in progress until a deadline.
//!
//! ```sh
//! cargo run --example shutdown
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use token_bucket::TokenBucket;
use tokio::time::{sleep, timeout};

/// Waits for work in progress. On a timeout, returns how much is left.
async fn shut_down(bucket: &TokenBucket, grace: Duration) -> Result<(), usize> {
    bucket.close_with("the server is shutting down"); // every waiter gets this error
    timeout(grace, bucket.idle()).await.map_err(|_| bucket.outstanding())
}

fn start(bucket: &Arc<TokenBucket>, time: Duration) {
    let bucket = Arc::clone(bucket);
    tokio::spawn(async move {
        // A closed bucket is an error, so the request is refused.
        let Ok(token) = bucket.take().await else { return };
        sleep(time).await;
        drop(token); // `idle` would wait for a forgotten token until the deadline
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Arc::new(TokenBucket::with_capacity(2));
    (0..5).for_each(|_| start(&server, Duration::from_millis(20)));
    sleep(Duration::from_millis(5)).await; // two are in progress, three wait
    assert_eq!(shut_down(&server, Duration::from_secs(60)).await, Ok(()));
    assert_eq!((server.outstanding(), server.waiting()), (0, 0));

    let server = Arc::new(TokenBucket::with_capacity(2));
    start(&server, Duration::from_secs(3600));
    sleep(Duration::from_millis(5)).await;
    assert_eq!(shut_down(&server, Duration::from_millis(20)).await, Err(1)); // the next step is to abort it
    Ok(())
}
