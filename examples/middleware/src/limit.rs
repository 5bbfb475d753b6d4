//! A `tower` middleware that limits how many requests a service works on at a time, on a bucket.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use token_bucket::{Closed, OwnedToken, TakeError, TakeOwned, TokenBucket, TryTakeError};
use tower::{BoxError, Layer, Service};

/// Makes services that work on as many requests at a time, in all, as the bucket has tokens.
///
/// The limit is the bucket's capacity. Change it at any time: requests that are being worked on go on.
#[derive(Clone, Debug)]
pub struct LimitLayer {
    bucket: Arc<TokenBucket>,
    sheds: bool,
}

impl LimitLayer {
    /// Requests beyond the limit wait, in order.
    pub fn waiting(bucket: Arc<TokenBucket>) -> Self {
        Self { bucket, sheds: false }
    }

    /// Requests beyond the limit fail at once, with [`Overloaded`].
    pub fn shedding(bucket: Arc<TokenBucket>) -> Self {
        Self { bucket, sheds: true }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, layer: self.clone(), reservation: Reservation::None }
    }
}

/// What [`LimitLayer`] makes.
///
/// It takes a token when it is polled for readiness, so it is ready only if it can go on at once. Whoever drops it, ready or not, gives
/// the token or the place in the line back. A clone shares the limit, and has no token of its own until it is polled.
#[derive(Debug)]
pub struct Limited<S> {
    inner: S,
    layer: LimitLayer,
    reservation: Reservation,
}

#[derive(Debug)]
enum Reservation {
    None,
    InLine(TakeOwned),
    Token(OwnedToken),
    /// There was no token, and the next request is to be told.
    Refused,
}

impl<S: Clone> Clone for Limited<S> {
    fn clone(&self) -> Self {
        self.layer.layer(self.inner.clone())
    }
}

impl<S, R> Service<R> for Limited<S>
where
    S: Service<R, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let bucket = &self.layer.bucket;
        loop {
            self.reservation = match &mut self.reservation {
                Reservation::None if self.layer.sheds => match bucket.try_take_owned() {
                    Ok(token) => Reservation::Token(token),
                    Err(TryTakeError::Closed(closed)) => return Poll::Ready(Err(closed.into())),
                    Err(_) => Reservation::Refused,
                },
                Reservation::None => Reservation::InLine(bucket.take_owned()),
                Reservation::InLine(take) => match ready!(Pin::new(take).poll(cx)) {
                    Ok(token) => Reservation::Token(token),
                    Err(error) => {
                        self.reservation = Reservation::None;
                        return Poll::Ready(Err(closed(error)));
                    }
                },
                Reservation::Token(_) => return self.inner.poll_ready(cx).map_err(Into::into),
                Reservation::Refused => return Poll::Ready(Ok(())),
            }
        }
    }

    fn call(&mut self, request: R) -> Self::Future {
        let token = match std::mem::replace(&mut self.reservation, Reservation::None) {
            Reservation::Token(token) => token,
            Reservation::Refused => return Box::pin(async { Err(Overloaded.into()) }),
            Reservation::None | Reservation::InLine(_) => panic!("called before it was ready"),
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into);
            drop(token);
            response
        })
    }
}

fn closed(error: TakeError) -> BoxError {
    match error {
        TakeError::Closed(closed) => Box::<Closed>::new(closed),
        error => error.into(),
    }
}

/// Why a request was shed: all tokens were out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many requests are being worked on")
    }
}

impl Error for Overloaded {}
