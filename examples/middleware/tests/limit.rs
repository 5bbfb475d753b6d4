//! The middleware, polled by hand.

use std::future::{Future, Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use limit::{LimitLayer, Limited, Overloaded};
use token_bucket::{Closed, TokenBucket};
use tower::{BoxError, Layer, Service, service_fn};

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn bucket(capacity: usize) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(10, capacity).unwrap())
}

/// Answers at once, or not at all, or is not even ready.
#[derive(Clone, Copy)]
enum Inner {
    Answers,
    Hangs,
    IsNotReady,
    Fails,
}

impl Service<u32> for Inner {
    type Response = u32;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::IsNotReady => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: u32) -> Self::Future {
        match self {
            Self::Answers => Box::pin(ready(Ok(request + 1))),
            Self::Fails => Box::pin(ready(Err("it broke".into()))),
            _ => Box::pin(std::future::pending()),
        }
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn is_ready(service: &mut Limited<Inner>) -> bool {
    match service.poll_ready(&mut cx()) {
        Poll::Ready(result) => result.map(|()| true).expect("no error"),
        Poll::Pending => false,
    }
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    std::pin::Pin::new(future).poll(&mut cx())
}

#[test]
fn a_request_has_its_token_until_it_is_answered() {
    let bucket = bucket(1);
    let mut service = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Answers);
    assert!(is_ready(&mut service));
    assert_eq!(bucket.available(), 0);
    let mut response = service.call(1);
    assert_eq!(bucket.available(), 0);
    assert!(matches!(poll(&mut response), Poll::Ready(Ok(2))));
    assert_eq!(bucket.available(), 1);
    // The service is as new.
    assert!(is_ready(&mut service));
}

#[test]
fn to_be_ready_twice_takes_no_second_token() {
    let bucket = bucket(2);
    let mut service = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Answers);
    assert!(is_ready(&mut service) && is_ready(&mut service));
    assert_eq!(bucket.available(), 1);
}

#[test]
fn a_clone_starts_without_a_reservation() {
    for layer in [LimitLayer::waiting, LimitLayer::shedding] {
        let bucket = bucket(2);
        let mut one = layer(Arc::clone(&bucket)).layer(Inner::Hangs);
        assert!(is_ready(&mut one));
        let mut two = one.clone();
        assert_eq!(bucket.outstanding(), 1);
        assert!(is_ready(&mut two));
        assert_eq!(bucket.outstanding(), 2);
        let (_first, _second) = (one.call(1), two.call(1));
        assert_eq!(bucket.outstanding(), 2);
    }
}

#[test]
#[should_panic = "called before it was ready"]
fn a_clone_of_a_ready_service_is_not_ready() {
    let mut service = LimitLayer::waiting(bucket(2)).layer(Inner::Answers);
    assert!(is_ready(&mut service));
    drop(service.clone().call(1));
}

#[test]
fn a_ready_service_that_is_dropped_gives_its_token_back() {
    let bucket = bucket(1);
    let layer = LimitLayer::waiting(Arc::clone(&bucket));
    let mut one = layer.layer(Inner::Answers);
    let mut two = layer.layer(Inner::Answers);
    assert!(is_ready(&mut one));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(two.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    drop(one);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert!(is_ready(&mut two));
    drop(two);
    assert_eq!(bucket.available(), 1);
}

#[test]
fn a_service_that_is_dropped_in_line_leaves_it() {
    let bucket = bucket(0);
    let mut service = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Answers);
    assert!(!is_ready(&mut service));
    assert_eq!(bucket.waiting(), 1);
    drop(service);
    assert_eq!(bucket.waiting(), 0);
}

#[test]
fn a_response_that_is_dropped_gives_its_token_back() {
    let bucket = bucket(1);
    let mut service = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Hangs);
    assert!(is_ready(&mut service));
    let mut response = service.call(1);
    assert!(poll(&mut response).is_pending());
    assert_eq!(bucket.available(), 0);
    drop(response);
    assert_eq!(bucket.available(), 1);
}

#[test]
fn a_failure_gives_the_token_back() {
    let bucket = bucket(1);
    let mut service = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Fails);
    assert!(is_ready(&mut service));
    let Poll::Ready(Err(error)) = poll(&mut service.call(1)) else { panic!("it did not fail") };
    assert_eq!(error.to_string(), "it broke");
    assert_eq!(bucket.available(), 1);
}

#[test]
fn readiness_is_that_of_the_service_as_well() {
    for layer in [LimitLayer::waiting, LimitLayer::shedding] {
        let mut service = layer(bucket(1)).layer(Inner::IsNotReady);
        assert!(!is_ready(&mut service));
    }
}

#[test]
fn the_limit_is_changed_while_requests_wait() {
    let bucket = bucket(0);
    let layer = LimitLayer::waiting(Arc::clone(&bucket));
    let mut services: Vec<_> = (0..3).map(|_| layer.layer(Inner::Hangs)).collect();
    let are_ready = |services: &mut Vec<Limited<Inner>>| services.iter_mut().map(is_ready).collect::<Vec<_>>();
    assert_eq!(are_ready(&mut services), [false, false, false]);
    bucket.set_capacity(2).unwrap();
    assert_eq!(are_ready(&mut services), [true, true, false]);
    bucket.set_capacity(1).unwrap();
    // Both keep what they have, and the first one back makes up for the deficit.
    let _response = services[0].call(1);
    drop(services.remove(1));
    assert!(!is_ready(&mut services[1]));
    bucket.set_capacity(2).unwrap();
    assert!(is_ready(&mut services[1]));
}

#[test]
fn beyond_the_limit_it_sheds() {
    let bucket = bucket(1);
    let layer = LimitLayer::shedding(Arc::clone(&bucket));
    let (mut one, mut two) = (layer.layer(Inner::Hangs), layer.layer(Inner::Answers));
    assert!(is_ready(&mut one));
    let response = one.call(1);
    // Not even a service that is not ready holds a refusal up.
    for _ in 0..3 {
        assert!(is_ready(&mut two));
        let Poll::Ready(Err(error)) = poll(&mut two.call(1)) else { panic!("it was not refused") };
        assert!(error.is::<Overloaded>());
    }
    assert_eq!(bucket.waiting(), 0);
    drop(response);
    assert!(is_ready(&mut two));
    assert!(matches!(poll(&mut two.call(1)), Poll::Ready(Ok(2))));
}

#[test]
fn a_closed_bucket_ends_it_with_the_cause() {
    for layer in [LimitLayer::waiting, LimitLayer::shedding] {
        let bucket = bucket(1);
        let mut waits = layer(Arc::clone(&bucket)).layer(Inner::Answers);
        let _token = bucket.try_take().unwrap();
        let _ = waits.poll_ready(&mut cx());
        bucket.close_with("bye");
        let mut late = layer(Arc::clone(&bucket)).layer(Inner::Answers);
        let Poll::Ready(Err(error)) = late.poll_ready(&mut cx()) else { panic!("it is not closed") };
        assert!(error.is::<Closed>() && error.to_string().ends_with("bye"), "{error}");
    }
    let bucket = bucket(0);
    let mut waits = LimitLayer::waiting(Arc::clone(&bucket)).layer(Inner::Answers);
    assert!(!is_ready(&mut waits));
    bucket.close_with("bye");
    for _ in 0..2 {
        let Poll::Ready(Err(error)) = waits.poll_ready(&mut cx()) else { panic!("it is not closed") };
        assert!(error.is::<Closed>(), "{error}");
    }
}

#[test]
fn it_wraps_any_service() {
    let mut service = LimitLayer::waiting(bucket(1))
        .layer(service_fn(|text: String| -> Ready<Result<usize, BoxError>> { ready(Ok(text.len())) }));
    assert!(matches!(service.poll_ready(&mut cx()), Poll::Ready(Ok(()))));
    assert!(matches!(poll(&mut service.call("four".into())), Poll::Ready(Ok(4))));
}
