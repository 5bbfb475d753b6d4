use std::error::Error;
use std::fmt;

/// The same type as `tower::BoxError`.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Error of a call that [load shedding](crate::LimitLayer::load_shed) refused. HTTP servers answer it with `503 Service
/// Unavailable`.
///
/// ```
/// use token_bucket_tower::{LimitLayer, Overloaded};
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
///
/// # tokio_test::block_on(async {
/// let service = ServiceBuilder::new()
///     .map_result(|result: Result<_, BoxError>| match result {
///         Err(error) if error.is::<Overloaded>() => Ok(503),
///         other => other,
///     })
///     .layer(LimitLayer::with_limit(0)?.load_shed())
///     .service_fn(async |()| Ok::<_, BoxError>(200));
/// assert_eq!(service.oneshot(()).await?, 503);
/// # Ok::<(), BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service overloaded: too many requests in progress")
    }
}

impl Error for Overloaded {}
