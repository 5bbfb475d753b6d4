//! A stream with at most three items in progress. Unlike with `buffered(3)`, the limit can change.
//!
//! ```sh
//! cargo run --example stream
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use token_bucket::{OwnedToken, TakeError, TokenBucket};

const WORK: Duration = Duration::from_millis(5);

async fn square(item: u64, token: OwnedToken) -> Result<u64, TakeError> {
    smol::Timer::after(WORK).await;
    drop(token); // returns it, so another item may start
    Ok(item * item)
}

fn main() -> Result<(), TakeError> {
    let start = Instant::now();
    let bucket = Arc::new(TokenBucket::with_capacity(3));

    let squares = stream::iter(1..=20)
        .then(|item| {
            let bucket = Arc::clone(&bucket);
            // The next item comes when there is a token for it.
            async move { bucket.take_owned().await.map(|token| square(item, token)) }
        })
        .try_buffered(usize::MAX);

    let squares: Vec<_> = smol::block_on(squares.try_collect())?;
    assert!(squares.into_iter().eq((1..=20).map(|item| item * item)));
    assert!(start.elapsed() >= 7 * WORK); // twenty items, three at a time
    Ok(())
}
