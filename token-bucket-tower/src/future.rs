use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use token_bucket::OwnedToken;

use crate::Overloaded;
use crate::error::BoxError;

pin_project! {
    /// Response future of [`Limit`](crate::Limit), which holds the token of the request until it completes or is dropped.
    ///
    /// With HTTP, it completes with the head of the response. To hold the token until the body ends, see
    /// [`take_token`](Self::take_token).
    ///
    /// # Errors
    ///
    /// The error of the inner service in a box, or [`Overloaded`](crate::Overloaded) if the request was refused.
    ///
    /// # Panics
    ///
    /// If it is polled again after it has completed.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled or awaited"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        // Dropped in this order: whatever the inner future holds is released before another request is admitted.
        Admitted { #[pin] inner: F, token: Option<OwnedToken> },
        Refused,
        Completed,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) const fn admitted(inner: F, token: OwnedToken) -> Self {
        Self { state: State::Admitted { inner, token: Some(token) } }
    }

    pub(crate) const fn refused() -> Self {
        Self { state: State::Refused }
    }

    /// Takes the token out of the future, to hold it for longer, for instance [until the body ends](crate#until-the-body-ends).
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// # use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
    /// # tokio_test::block_on(async {
    /// let layer = LimitLayer::with_limit(1)?;
    /// let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    /// let mut future = service.ready().await?.call(());
    /// let token = future.take_token();
    /// future.await?;
    /// assert_eq!(layer.bucket().outstanding(), 1); // until `token` is dropped
    /// # drop(token);
    /// # Ok::<(), BoxError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// `None` if the request was refused, if the future has completed, or if the token was taken before.
    pub const fn take_token(&mut self) -> Option<OwnedToken> {
        match &mut self.state {
            State::Admitted { token, .. } => token.take(),
            State::Refused | State::Completed => None,
        }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = match state.as_mut().project() {
            StateProj::Admitted { inner, .. } => ready!(inner.poll(cx)).map_err(Into::into),
            StateProj::Refused => Err(Overloaded.into()),
            StateProj::Completed => panic!("`ResponseFuture` polled after it has completed"),
        };
        state.set(State::Completed);
        Poll::Ready(result)
    }
}
