//! A web service that refuses requests above a limit, which an administrator changes at run time.
//!
//! ```sh
//! cargo run --example web_service
//! ```

use std::time::Duration;

use futures::future::join_all;
use token_bucket::TokenBucket;

static LIMIT: TokenBucket = TokenBucket::const_new(1_000, 2);

/// Answers a request with an HTTP status.
async fn handle(method: &str, path: &str) -> u16 {
    match (method, path.strip_prefix("/admin/limit/")) {
        ("PUT", Some(limit)) => match limit.parse().map(|limit| LIMIT.set_capacity(limit)) {
            Ok(Ok(_)) => 204,
            _ => 400, // the limit is unchanged
        },
        ("GET", None) => match LIMIT.try_take() {
            Ok(_token) => {
                tokio::time::sleep(Duration::from_millis(10)).await; // the work
                200
            }
            Err(_) => 503,
        },
        _ => 404,
    }
}

/// Returns how many of eight simultaneous requests are answered.
async fn answered() -> usize {
    join_all((0..8).map(|_| handle("GET", "/"))).await.into_iter().filter(|status| *status == 200).count()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    assert_eq!(answered().await, 2);
    assert_eq!(handle("PUT", "/admin/limit/5").await, 204);
    assert_eq!(answered().await, 5);
    assert_eq!(handle("PUT", "/admin/limit/0").await, 204); // maintenance
    assert_eq!(answered().await, 0);
    assert_eq!(handle("PUT", "/admin/limit/1001").await, 400);
    assert_eq!(handle("PUT", "/admin/limit/many").await, 400);
    assert_eq!(LIMIT.capacity(), 0);
}
