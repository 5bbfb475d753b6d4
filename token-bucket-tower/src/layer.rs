use std::sync::Arc;

use token_bucket::{CapacityError, TokenBucket};
use tower_layer::Layer;

use crate::Limit;

/// Builds services that share a limit on the number of requests in progress: the capacity of a [`TokenBucket`].
///
/// ```
/// use std::sync::Arc;
/// use token_bucket_tower::{LimitLayer, token_bucket::TokenBucket};
///
/// let own = LimitLayer::with_limit(10)?; // 10 requests at a time; above that, they wait
/// own.bucket().set_capacity(100)?; // at any time, under load as well
/// assert!(LimitLayer::with_limit(usize::MAX).is_err());
///
/// let bucket = Arc::new(TokenBucket::new(100, 8)?); // 8 requests at a time, later up to 100
/// let waiting = LimitLayer::new(bucket.clone());
/// let shedding = LimitLayer::new(bucket).load_shed(); // shares the limit with `waiting`
/// assert!(Arc::ptr_eq(waiting.bucket(), shedding.bucket()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LimitLayer {
    pub(crate) bucket: Arc<TokenBucket>,
    pub(crate) sheds_load: bool,
}

impl LimitLayer {
    /// Creates a layer whose services take their tokens from `bucket`. Requests above the limit wait.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use token_bucket_tower::{LimitLayer, token_bucket::TokenBucket};
    /// let bucket = Arc::new(TokenBucket::with_capacity(10)); // shared with other code
    /// let layer = LimitLayer::new(Arc::clone(&bucket));
    /// assert!(Arc::ptr_eq(layer.bucket(), &bucket));
    /// ```
    #[must_use]
    pub const fn new(bucket: Arc<TokenBucket>) -> Self {
        Self { bucket, sheds_load: false }
    }

    /// Creates a layer with a new bucket, which can be resized to any capacity. Requests above the limit wait.
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// let layer = LimitLayer::with_limit(10)?;
    /// assert_eq!(layer.bucket().capacity(), 10);
    /// # Ok::<(), token_bucket_tower::token_bucket::CapacityError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CapacityError::InitialExceedsMax`] if `limit` is above [`TokenBucket::MAX_CAPACITY`].
    pub fn with_limit(limit: usize) -> Result<Self, CapacityError> {
        TokenBucket::new(TokenBucket::MAX_CAPACITY, limit).map(|bucket| Self::new(Arc::new(bucket)))
    }

    /// Refuses requests above the limit at once, with [`Overloaded`](crate::Overloaded), instead of letting them wait.
    ///
    /// ```
    /// # use token_bucket_tower::{LimitLayer, Overloaded};
    /// # use tower::{BoxError, Layer, ServiceExt, service_fn};
    /// # tokio_test::block_on(async {
    /// let layer = LimitLayer::with_limit(0)?.load_shed();
    /// let service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    /// assert!(service.oneshot(()).await.unwrap_err().is::<Overloaded>());
    /// # Ok::<(), BoxError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Like [`try_take`](TokenBucket::try_take), it may refuse a request below the limit while another thread is handing out
    /// tokens.
    #[must_use]
    pub const fn load_shed(mut self) -> Self {
        self.sheds_load = true;
        self
    }

    /// Returns the bucket: resize it to change the limit, close it to fail all later calls, read it for metrics.
    ///
    /// ```
    /// # use token_bucket_tower::LimitLayer;
    /// let layer = LimitLayer::with_limit(10)?;
    /// layer.bucket().set_capacity(20)?;
    /// assert_eq!(layer.bucket().available(), 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn bucket(&self) -> &Arc<TokenBucket> {
        &self.bucket
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit::new(inner, self.clone())
    }
}
