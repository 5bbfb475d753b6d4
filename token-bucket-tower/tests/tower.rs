//! Together with tower's own services.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use token_bucket_tower::token_bucket::TokenBucket;
use token_bucket_tower::{LimitLayer, Overloaded};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::timeout::error::Elapsed;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// Work, and the largest number of requests that were in progress at a time.
#[derive(Clone, Default)]
struct Work {
    in_progress: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Work {
    fn service(&self) -> impl Service<(), Response = (), Error = BoxError, Future: Send + 'static> + Clone + Send + 'static {
        let this = self.clone();
        service_fn(move |()| {
            let this = this.clone();
            async move {
                let now = this.in_progress.fetch_add(1, Ordering::SeqCst) + 1;
                this.peak.fetch_max(now, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                this.in_progress.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

/// Calls clones of `service` at once, and counts how many were served and how many refused.
async fn call_all<S>(service: &S, calls: usize) -> (usize, usize)
where
    S: Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let mut tasks: JoinSet<_> = (0..calls).map(|_| timeout(Duration::from_secs(60), service.clone().oneshot(()))).collect();
    let (mut served, mut refused) = (0, 0);
    while let Some(result) = tasks.join_next().await {
        match result.unwrap().expect("an answer in time") {
            Ok(()) => served += 1,
            Err(error) if error.is::<Overloaded>() => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (served, refused)
}

#[tokio::test(start_paused = true)]
async fn two_layers_make_a_bounded_queue() {
    let work = Work::default();
    let (outer, inner) = (LimitLayer::with_limit(5).unwrap().load_shed(), LimitLayer::with_limit(2).unwrap());
    let service = ServiceBuilder::new().layer(outer.clone()).layer(inner.clone()).service(work.service());
    assert_eq!(call_all(&service, 9).await, (5, 4));
    assert_eq!(work.peak(), 2);
    for layer in [outer, inner] {
        assert_eq!(layer.bucket().outstanding(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_returns_tokens_and_places() {
    let layer = LimitLayer::with_limit(1).unwrap();
    let service = ServiceBuilder::new().layer(layer.clone()).service_fn(async |()| {
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(())
    });
    // Tower's timeout starts with `call`. This puts the wait for a token into the call.
    let limited = service_fn(move |()| service.clone().oneshot(()));
    let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(limited);
    let (first, second) = tokio::join!(service.clone().oneshot(()), service.clone().oneshot(()));
    assert!(first.unwrap_err().is::<Elapsed>() && second.unwrap_err().is::<Elapsed>());
    assert_eq!((layer.bucket().outstanding(), layer.bucket().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_buffer_admits_no_more_than_the_limit() {
    let (work, layer) = (Work::default(), LimitLayer::with_limit(3).unwrap());
    let service = ServiceBuilder::new().buffer(20).layer(layer.clone()).service(work.service());
    assert_eq!(call_all(&service, 12).await, (12, 0));
    assert_eq!(work.peak(), 3);
    layer.bucket().idle().await;
}

#[tokio::test(start_paused = true)]
async fn other_limits_hold_as_well() {
    let (work, layer) = (Work::default(), LimitLayer::with_limit(4).unwrap().load_shed());
    let service = ServiceBuilder::new().layer(layer.clone()).concurrency_limit(2).service(work.service());
    // Services that wait for the inner service hold a token.
    assert_eq!(call_all(&service, 7).await, (4, 3));
    assert_eq!((work.peak(), layer.bucket().outstanding()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn services_of_two_layers_share_a_limit() {
    let (work, bucket) = (Work::default(), Arc::new(TokenBucket::new(10, 3).unwrap()));
    let one = LimitLayer::new(Arc::clone(&bucket)).layer(work.service());
    let two = LimitLayer::new(Arc::clone(&bucket)).layer(work.service());
    let (one, two) = tokio::join!(call_all(&one, 10), call_all(&two, 10));
    assert_eq!((one, two), ((10, 0), (10, 0)));
    assert_eq!((work.peak(), bucket.outstanding(), bucket.waiting()), (3, 0, 0));
}
