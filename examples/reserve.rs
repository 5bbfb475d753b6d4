//! A service that reserves a token in `poll_ready` and gives it to the request in `call`, as services of `tower` do.
//!
//! ```sh
//! cargo run --example reserve
//! ```

use std::error::Error;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use token_bucket::{OwnedToken, TakeError, TakeOwned, TokenBucket};

struct Limited {
    bucket: Arc<TokenBucket>,
    reservation: Reservation,
}

enum Reservation {
    None,
    Waiting(TakeOwned),
    Ready(OwnedToken),
}

/// A clone shares the limit, but has neither a place in the queue nor a token.
impl Clone for Limited {
    fn clone(&self) -> Self {
        Self { bucket: Arc::clone(&self.bucket), reservation: Reservation::None }
    }
}

impl Limited {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TakeError>> {
        loop {
            self.reservation = match &mut self.reservation {
                Reservation::None => Reservation::Waiting(self.bucket.take_owned()),
                Reservation::Waiting(take) => match ready!(Pin::new(take).poll(cx)) {
                    Ok(token) => Reservation::Ready(token),
                    Err(error) => {
                        self.reservation = Reservation::None;
                        return Poll::Ready(Err(error));
                    }
                },
                Reservation::Ready(_) => return Poll::Ready(Ok(())), // one token, however often this is called
            };
        }
    }

    fn call(&mut self, request: &str) -> impl Future<Output = String> + use<> {
        let Reservation::Ready(token) = mem::replace(&mut self.reservation, Reservation::None) else {
            panic!("`call` without `poll_ready`")
        };
        let answer = format!("hello {request}");
        async move {
            let _token = token; // held until the response is ready, or this future is dropped
            answer
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    pollster::block_on(async {
        let bucket = Arc::new(TokenBucket::with_capacity(1));
        let mut service = Limited { bucket: Arc::clone(&bucket), reservation: Reservation::None };
        poll_fn(|cx| service.poll_ready(cx)).await?;
        let response = service.call("world");
        assert_eq!((bucket.outstanding(), response.await.as_str()), (1, "hello world"));

        let mut clone = service.clone();
        poll_fn(|cx| clone.poll_ready(cx)).await?;
        assert_eq!(bucket.available(), 0);
        drop(clone); // a ready service that is dropped gives its reservation back
        assert_eq!(bucket.available(), 1);
        Ok(())
    })
}
