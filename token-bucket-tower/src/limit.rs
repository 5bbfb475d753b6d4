use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use token_bucket::{OwnedToken, TakeError, TakeOwned, TryTakeError};
use tower_service::Service;

use crate::error::BoxError;
use crate::{LimitLayer, ResponseFuture};

/// Service built by [`LimitLayer`], which admits a request to the inner service only with a token.
///
/// ```
/// use token_bucket_tower::LimitLayer;
/// use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
///
/// # tokio_test::block_on(async {
/// let layer = LimitLayer::with_limit(2)?;
/// let mut service = layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n + 1)));
/// let response = service.ready().await?.call(1); // `ready` waits for a token
/// assert_eq!(layer.bucket().outstanding(), 1);
/// assert_eq!(response.await?, 2);
/// assert_eq!(layer.bucket().outstanding(), 0);
/// # Ok::<(), BoxError>(())
/// # }).unwrap();
/// ```
///
/// **A service that is ready holds a token**: call it or drop it. See [how a request is admitted](crate#how-a-request-is-admitted).
///
/// # Errors
///
/// `poll_ready` fails with [`Closed`](token_bucket::Closed) if the bucket is closed and no token was reserved before, and with the
/// error of the inner service. After an error it holds no token.
///
/// # Panics
///
/// `call` panics unless the latest `poll_ready` returned `Ready(Ok(()))` and no `call` followed it.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    layer: LimitLayer,
    reservation: Reservation,
}

#[derive(Debug, Default)]
enum Reservation {
    #[default]
    None,
    Queued(TakeOwned),
    Token {
        token: OwnedToken,
        inner_is_ready: bool,
    },
    /// Load shedding found no token, and the next call fails.
    Refused,
}

impl Reservation {
    const fn token(token: OwnedToken) -> Self {
        Self::Token { token, inner_is_ready: false }
    }
}

impl<S> Limit<S> {
    pub(crate) const fn new(inner: S, layer: LimitLayer) -> Self {
        Self { inner, layer, reservation: Reservation::None }
    }

    /// Returns the inner service.
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// # use tower::Layer;
    /// let service = LimitLayer::with_limit(2)?.layer("inner");
    /// assert_eq!(*service.get_ref(), "inner");
    /// # Ok::<(), token_bucket_tower::token_bucket::CapacityError>(())
    /// ```
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, to change it. If another one takes its place, call `poll_ready` again before `call`.
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// # use tower::Layer;
    /// let mut service = LimitLayer::with_limit(2)?.layer("inner");
    /// *service.get_mut() = "another";
    /// assert_eq!(*service.get_ref(), "another");
    /// # Ok::<(), token_bucket_tower::token_bucket::CapacityError>(())
    /// ```
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service, and gives up the token or the place in the queue.
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// # use tower::Layer;
    /// let service = LimitLayer::with_limit(2)?.layer("inner");
    /// assert_eq!(service.into_inner(), "inner");
    /// # Ok::<(), token_bucket_tower::token_bucket::CapacityError>(())
    /// ```
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn fail(&mut self, error: impl Into<BoxError>) -> Poll<Result<(), BoxError>> {
        self.reservation = Reservation::None;
        Poll::Ready(Err(error.into()))
    }
}

impl<S: Clone> Clone for Limit<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.layer.clone())
    }
}

impl<S, R> Service<R> for Limit<S>
where
    S: Service<R, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            self.reservation = match &mut self.reservation {
                Reservation::None | Reservation::Refused if self.layer.sheds_load => match self.layer.bucket.try_take_owned() {
                    Ok(token) => Reservation::token(token),
                    Err(TryTakeError::Closed(closed)) => return self.fail(closed),
                    Err(_) => {
                        self.reservation = Reservation::Refused;
                        return Poll::Ready(Ok(()));
                    }
                },
                Reservation::None | Reservation::Refused => Reservation::Queued(self.layer.bucket.take_owned()),
                Reservation::Queued(take) => match ready!(Pin::new(take).poll(cx)) {
                    Ok(token) => Reservation::token(token),
                    Err(TakeError::Closed(closed)) => return self.fail(closed),
                    Err(error) => return self.fail(error),
                },
                Reservation::Token { inner_is_ready, .. } => {
                    // It may have been ready before, and not be any more.
                    *inner_is_ready = false;
                    match ready!(self.inner.poll_ready(cx)) {
                        Ok(()) => {
                            *inner_is_ready = true;
                            return Poll::Ready(Ok(()));
                        }
                        Err(error) => return self.fail(error),
                    }
                }
            }
        }
    }

    #[track_caller]
    fn call(&mut self, request: R) -> Self::Future {
        match mem::take(&mut self.reservation) {
            Reservation::Token { token, inner_is_ready: true } => ResponseFuture::admitted(self.inner.call(request), token),
            Reservation::Refused => ResponseFuture::refused(),
            _ => panic!("`poll_ready` must return `Ready(Ok(()))` before `call`"),
        }
    }
}
