//! Every promise of the middleware, poll by poll.

use std::future::{Future, Ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use token_bucket_tower::token_bucket::{CapacityError, Closed, TokenBucket};
use token_bucket_tower::{Limit, LimitLayer, Overloaded, ResponseFuture};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_test::mock::{self, Handle, Mock, Spawn};

type Mocked = Spawn<Limit<Mock<u32, u32>>>;

fn bucket(capacity: usize) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(10, capacity).unwrap())
}

/// `N` services of one layer, each on a task of its own.
fn services<const N: usize>(layer: &LimitLayer) -> ([Mocked; N], Handle<u32, u32>) {
    let (mock, handle) = mock::pair();
    (std::array::from_fn(|_| Spawn::new(layer.layer(mock.clone()))), handle)
}

fn waiting(bucket: &Arc<TokenBucket>) -> (Mocked, Handle<u32, u32>) {
    let ([service], handle) = services(&LimitLayer::new(Arc::clone(bucket)));
    (service, handle)
}

fn shedding(bucket: &Arc<TokenBucket>) -> (Mocked, Handle<u32, u32>) {
    let ([service], handle) = services(&LimitLayer::new(Arc::clone(bucket)).load_shed());
    (service, handle)
}

/// Answers the only request that the inner service has received.
fn answer(handle: &mut Handle<u32, u32>, expected: u32, response: u32) {
    let (request, respond) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    assert_eq!(request, expected);
    respond.send_response(response);
}

// How long a token is held.

#[test]
fn a_token_is_held_until_the_response_completes() {
    let bucket = bucket(1);
    for (mut service, mut handle) in [waiting(&bucket), shedding(&bucket)] {
        assert_ready_ok!(service.poll_ready());
        assert_eq!(bucket.outstanding(), 1);
        let mut response = task::spawn(service.call(1));
        assert_pending!(response.poll());
        assert_eq!(bucket.outstanding(), 1);
        answer(&mut handle, 1, 2);
        assert_eq!(bucket.outstanding(), 1);
        assert_eq!(assert_ready_ok!(response.poll()), 2);
        // The future still exists.
        assert_eq!(bucket.outstanding(), 0);
        assert_ready_ok!(service.poll_ready());
    }
}

#[test]
fn a_dropped_response_returns_its_token() {
    let bucket = bucket(1);
    let (mut service, _handle) = waiting(&bucket);
    assert_ready_ok!(service.poll_ready());
    drop(service.call(1)); // never polled
    assert_eq!(bucket.outstanding(), 0);

    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    assert_pending!(response.poll());
    drop(response);
    assert_eq!(bucket.outstanding(), 0);
}

#[test]
fn the_inner_service_is_taken_out_without_its_token() {
    let bucket = bucket(1);
    let layer = LimitLayer::new(Arc::clone(&bucket));
    let mut ready = Spawn::new(layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n + 1))));
    assert_ready_ok!(ready.poll_ready());
    let mut queued = Spawn::new(layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n + 1))));
    assert_pending!(queued.poll_ready());
    assert_eq!((bucket.outstanding(), bucket.waiting()), (1, 1));
    let mut inner = queued.into_inner().into_inner();
    assert_eq!((bucket.outstanding(), bucket.waiting()), (1, 0));
    let _inner = ready.into_inner().into_inner();
    assert_eq!(bucket.outstanding(), 0);
    assert_eq!(assert_ready_ok!(task::spawn(inner.call(1)).poll()), 2);
}

#[test]
fn a_failed_response_returns_its_token() {
    let bucket = bucket(1);
    let (mut service, mut handle) = waiting(&bucket);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    let (_, respond) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    respond.send_error("it broke");
    assert_eq!(assert_ready_err!(response.poll()).to_string(), "it broke");
    assert_eq!(bucket.outstanding(), 0);
}

#[test]
fn a_panic_returns_the_token() {
    let bucket = bucket(1);
    let layer = LimitLayer::new(Arc::clone(&bucket));
    let mut in_call = Spawn::new(layer.layer(service_fn(|()| -> Ready<Result<(), BoxError>> { panic!("in call") })));
    assert_ready_ok!(in_call.poll_ready());
    assert!(catch_unwind(AssertUnwindSafe(|| in_call.call(()))).is_err());
    assert_eq!(bucket.outstanding(), 0);

    let mut in_poll = Spawn::new(layer.layer(service_fn(async |()| -> Result<(), BoxError> { panic!("in poll") })));
    assert_ready_ok!(in_poll.poll_ready());
    let response = in_poll.call(());
    assert!(catch_unwind(AssertUnwindSafe(|| task::spawn(response).poll())).is_err());
    assert_eq!(bucket.outstanding(), 0);
}

/// Completes at once or never. Checks that its token is still held when it is dropped.
struct Inner {
    completes: bool,
    bucket: Arc<TokenBucket>,
}

impl Future for Inner {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.completes { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        assert_eq!(self.bucket.outstanding(), 1, "the token was returned before the inner future was dropped");
    }
}

#[test]
fn the_inner_future_is_dropped_before_its_token_is_returned() {
    for completes in [true, false] {
        let bucket = bucket(1);
        let mut service = Spawn::new(LimitLayer::new(Arc::clone(&bucket)).layer(service_fn(|inner: Inner| inner)));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(Inner { completes, bucket: Arc::clone(&bucket) }));
        assert_eq!(response.poll().is_ready(), completes);
        assert_eq!(bucket.outstanding(), usize::from(!completes));
        drop(response);
        assert_eq!(bucket.outstanding(), 0);
    }
}

#[test]
fn a_token_that_is_taken_out_is_held_for_longer() {
    let bucket = bucket(1);
    let (mut service, mut handle) = waiting(&bucket);
    assert_ready_ok!(service.poll_ready());
    let mut response = service.call(1);
    let token = response.take_token().unwrap();
    assert!(response.take_token().is_none());
    answer(&mut handle, 1, 2);
    assert_eq!(assert_ready_ok!(task::spawn(response).poll()), 2);
    assert_eq!(bucket.outstanding(), 1);
    assert_pending!(service.poll_ready());
    drop(token);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[test]
#[should_panic = "polled after it has completed"]
fn a_response_is_not_polled_after_it_has_completed() {
    let (mut service, _handle) = shedding(&bucket(0));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    assert_ready_err!(response.poll());
    let _ = response.poll();
}

// The reservation.

#[test]
fn poll_ready_twice_reserves_one_token() {
    let bucket = bucket(2);
    for (mut service, _handle) in [waiting(&bucket), shedding(&bucket)] {
        for _ in 0..3 {
            assert_ready_ok!(service.poll_ready());
            assert_eq!(bucket.outstanding(), 1);
        }
    }
}

#[test]
fn poll_ready_twice_takes_one_place_in_the_queue() {
    let bucket = bucket(0);
    let (mut service, _handle) = waiting(&bucket);
    for _ in 0..3 {
        assert_pending!(service.poll_ready());
        assert_eq!(bucket.waiting(), 1);
    }
}

#[test]
fn waiters_are_served_in_order() {
    let bucket = bucket(1);
    let ([mut first, mut second, mut third], _handle) = services(&LimitLayer::new(Arc::clone(&bucket)));
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());
    assert_pending!(third.poll_ready());
    drop(first.call(1));
    assert_pending!(first.poll_ready()); // a newcomer again
    assert!(second.is_woken() && !third.is_woken());
    assert_pending!(third.poll_ready());
    assert_ready_ok!(second.poll_ready());
}

#[test]
fn a_clone_has_no_reservation() {
    let bucket = bucket(2);
    for (mut service, _handle) in [waiting(&bucket), shedding(&bucket)] {
        assert_ready_ok!(service.poll_ready());
        let mut clone = service.clone();
        assert_eq!(bucket.outstanding(), 1);
        assert_ready_ok!(clone.poll_ready());
        assert_eq!(bucket.outstanding(), 2);
        let _responses = (service.call(1), clone.call(2));
        assert_eq!(bucket.outstanding(), 2);
    }
}

#[test]
fn a_clone_has_no_place_in_the_queue() {
    let bucket = bucket(0);
    let (mut service, _handle) = waiting(&bucket);
    assert_pending!(service.poll_ready());
    let mut clone = service.clone();
    assert_eq!(bucket.waiting(), 1);
    assert_pending!(clone.poll_ready());
    assert_eq!(bucket.waiting(), 2);
    bucket.set_capacity(1).unwrap();
    assert!(service.is_woken() && !clone.is_woken());
}

#[test]
fn clones_never_admit_more_than_the_limit() {
    let bucket = bucket(3);
    let (service, _handle) = shedding(&bucket);
    let mut responses = Vec::new();
    let mut refused = 0;
    for request in 0..8 {
        let mut clone = service.clone();
        assert_ready_ok!(clone.poll_ready());
        let mut response = task::spawn(clone.call(request));
        match response.poll() {
            Poll::Ready(result) => refused += usize::from(result.unwrap_err().is::<Overloaded>()),
            Poll::Pending => responses.push(response),
        }
    }
    assert_eq!((responses.len(), refused, bucket.outstanding()), (3, 5, 3));
}

#[test]
fn a_dropped_ready_service_returns_its_reservation() {
    let bucket = bucket(1);
    for (mut other, _handle) in [waiting(&bucket), shedding(&bucket)] {
        let (mut service, _handle) = waiting(&bucket);
        assert_ready_ok!(other.poll_ready());
        assert_pending!(service.poll_ready());
        drop(other);
        assert!(service.is_woken());
        assert_ready_ok!(service.poll_ready());
    }
    assert_eq!(bucket.outstanding(), 0);
}

#[test]
fn a_dropped_waiting_service_loses_only_its_place() {
    let bucket = bucket(1);
    let token = bucket.try_take_owned().unwrap();
    let ([mut first, mut second, mut third], _handle) = services(&LimitLayer::new(Arc::clone(&bucket)));
    assert_pending!(first.poll_ready());
    assert_pending!(second.poll_ready());
    assert_pending!(third.poll_ready());
    drop(first);
    assert_eq!(bucket.waiting(), 2);
    drop(token);
    // Granted the token, and dropped before it is polled.
    assert!(second.is_woken() && !third.is_woken());
    drop(second);
    assert!(third.is_woken());
    assert_ready_ok!(third.poll_ready());
    drop(third);
    assert_eq!((bucket.outstanding(), bucket.waiting()), (0, 0));
}

/// Whether `call` panics because `poll_ready` was not called.
fn panics<S: Service<u32, Error: Into<BoxError>>>(service: &mut Spawn<Limit<S>>) -> bool {
    match catch_unwind(AssertUnwindSafe(|| service.call(1))) {
        Ok(_) => false,
        Err(panic) => panic.downcast::<&str>().unwrap().contains("must return `Ready(Ok(()))` before `call`"),
    }
}

#[test]
fn call_panics_without_poll_ready() {
    let bucket = bucket(1);
    for (mut service, _handle) in [waiting(&bucket), shedding(&bucket)] {
        assert!(panics(&mut service));
        assert_ready_ok!(service.poll_ready());
        assert!(panics(&mut service.clone()));
        drop(service.call(1));
        assert!(panics(&mut service));
    }
    let _token = bucket.try_take().unwrap();
    let (mut queued, _handle) = waiting(&bucket);
    assert_pending!(queued.poll_ready());
    assert!(panics(&mut queued));
    let (mut refused, _handle) = shedding(&bucket);
    assert_ready_ok!(refused.poll_ready());
    drop(refused.call(1));
    assert!(panics(&mut refused));
}

// The inner service's readiness.

#[test]
fn the_inner_service_must_be_ready_as_well() {
    let bucket = bucket(1);
    for (mut service, mut handle) in [waiting(&bucket), shedding(&bucket)] {
        handle.allow(0);
        assert_pending!(service.poll_ready());
        assert_eq!(bucket.outstanding(), 1);
        handle.allow(1);
        assert!(service.is_woken());
        assert_ready_ok!(service.poll_ready());
        assert_eq!(bucket.outstanding(), 1);
    }
}

/// Is ready while the flag is set, and can be called at any time.
struct Switched(Arc<AtomicBool>);

impl Service<u32> for Switched {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.load(Ordering::SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, n: u32) -> Self::Future {
        std::future::ready(Ok(n))
    }
}

/// A token alone is not enough, even if the inner service was ready earlier.
#[test]
fn call_panics_while_the_inner_service_is_not_ready() {
    let bucket = bucket(1);
    let waiting = LimitLayer::new(Arc::clone(&bucket));
    for layer in [waiting.clone(), waiting.load_shed()] {
        for was_ready in [false, true] {
            let is_ready = Arc::new(AtomicBool::new(was_ready));
            let mut service = Spawn::new(layer.layer(Switched(Arc::clone(&is_ready))));
            assert_eq!(service.poll_ready::<u32>().is_ready(), was_ready);
            is_ready.store(false, Ordering::SeqCst);
            assert_pending!(service.poll_ready::<u32>());
            assert!(panics(&mut service));
            assert_eq!(bucket.outstanding(), 0);
            is_ready.store(true, Ordering::SeqCst);
            assert_ready_ok!(service.poll_ready::<u32>());
            drop(service.call(1));
        }
    }
}

#[test]
fn a_failed_inner_service_holds_no_token() {
    let bucket = bucket(1);
    for (mut service, mut handle) in [waiting(&bucket), shedding(&bucket)] {
        handle.send_error("it broke");
        let error = assert_ready_err!(service.poll_ready());
        assert!(error.to_string().contains("it broke"), "{error}");
        assert_eq!(bucket.outstanding(), 0);
        assert!(panics(&mut service));
    }
}

// Load shedding.

#[test]
fn load_shedding_refuses_at_once() {
    let bucket = bucket(1);
    let (mut service, mut handle) = shedding(&bucket);
    let token = bucket.try_take_owned().unwrap();
    // Without a token, the readiness of the inner service does not matter.
    handle.allow(0);
    for request in 0..3 {
        assert_ready_ok!(service.poll_ready());
        let mut response = service.call(request);
        assert!(response.take_token().is_none());
        assert_eq!(*assert_ready_err!(task::spawn(response).poll()).downcast::<Overloaded>().unwrap(), Overloaded);
    }
    assert_eq!((bucket.waiting(), bucket.outstanding()), (0, 1));
    drop(token);
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    drop(service.call(7));
    assert_eq!(assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().0, 7);
}

#[test]
fn poll_ready_tries_again_after_a_refusal() {
    let bucket = bucket(0);
    let (mut service, mut handle) = shedding(&bucket);
    assert_ready_ok!(service.poll_ready());
    bucket.set_capacity(1).unwrap();
    assert_ready_ok!(service.poll_ready());
    assert_eq!(bucket.outstanding(), 1);
    drop(service.call(1));
    assert_eq!(assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().0, 1);
}

// The limit.

#[test]
fn the_limit_changes_while_requests_wait() {
    let bucket = bucket(0);
    let ([mut first, mut second, mut third], _handle) = services(&LimitLayer::new(Arc::clone(&bucket)));
    for service in [&mut first, &mut second, &mut third] {
        assert_pending!(service.poll_ready());
    }
    bucket.set_capacity(2).unwrap();
    assert!(first.is_woken() && second.is_woken() && !third.is_woken());
    let responses = [&mut first, &mut second].map(|service| {
        assert_ready_ok!(service.poll_ready());
        service.call(1)
    });
    assert_eq!(bucket.set_capacity(1).unwrap().deficit, 1);
    let [one, two] = responses;
    drop(one); // pays off the deficit
    assert_pending!(third.poll_ready());
    drop(two);
    assert_ready_ok!(third.poll_ready());
    bucket.set_capacity(0).unwrap();
    assert_pending!(first.poll_ready());
    bucket.set_capacity(2).unwrap();
    assert_ready_ok!(first.poll_ready());
}

#[test]
fn layers_and_other_code_share_a_bucket() {
    let bucket = bucket(2);
    let (mut sheds, _handle) = shedding(&bucket);
    let (mut waits, _handle) = waiting(&bucket);
    let token = bucket.try_take().unwrap();
    assert_ready_ok!(sheds.poll_ready());
    assert_pending!(waits.poll_ready());
    drop(token);
    assert_ready_ok!(waits.poll_ready());
}

#[test]
fn a_layer_with_a_limit_has_one_bucket_for_all_its_services() {
    let layer = LimitLayer::with_limit(1).unwrap();
    let ([mut first, mut second], _handle) = services(&layer.clone());
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());
    layer.bucket().set_capacity(TokenBucket::MAX_CAPACITY).unwrap();
    assert_ready_ok!(second.poll_ready());
}

#[test]
fn a_limit_that_is_too_large_is_refused() {
    let max = TokenBucket::MAX_CAPACITY;
    assert_eq!(LimitLayer::with_limit(max).unwrap().bucket().capacity(), max);
    for limit in [max + 1, usize::MAX] {
        let error = LimitLayer::with_limit(limit).unwrap_err();
        assert_eq!(error, CapacityError::InitialExceedsMax { initial: limit, max_capacity: max });
    }
}

// Closing.

fn assert_closed(service: &mut Mocked) {
    for _ in 0..2 {
        let error = assert_ready_err!(service.poll_ready());
        assert!(error.is::<Closed>(), "{error}");
        assert_eq!(error.source().unwrap().to_string(), "maintenance");
    }
}

#[test]
fn a_closed_bucket_fails_calls_with_its_cause() {
    for load_shed in [false, true] {
        let bucket = bucket(2);
        let layer = LimitLayer::new(Arc::clone(&bucket));
        let layer = if load_shed { layer.load_shed() } else { layer };
        let ([mut called, mut reserved, mut late], mut handle) = services(&layer);
        assert_ready_ok!(called.poll_ready());
        let mut in_progress = task::spawn(called.call(1));
        assert_ready_ok!(reserved.poll_ready());
        // Queued or refused, before the close.
        assert_eq!(late.poll_ready().is_pending(), !load_shed);
        bucket.close_with("maintenance");
        assert_eq!(late.is_woken(), !load_shed);
        assert_closed(&mut late);
        assert_closed(&mut called);

        answer(&mut handle, 1, 2);
        assert_eq!(assert_ready_ok!(in_progress.poll()), 2);
        assert_ready_ok!(reserved.poll_ready());
        let mut response = task::spawn(reserved.call(3));
        answer(&mut handle, 3, 4);
        assert_eq!(assert_ready_ok!(response.poll()), 4);
        assert_ready!(task::spawn(bucket.idle()).poll());
        assert_closed(&mut reserved);
    }
}

// Types.

#[test]
fn types_are_as_free_as_the_inner_service() {
    fn check<T: Send + Sync + Unpin + Clone + 'static>(_: &T) {}
    fn is_send<T: Send + Sync + 'static>(_: &T) {}
    let service = LimitLayer::with_limit(1).unwrap().layer(service_fn(async |()| Ok::<_, BoxError>(())));
    check(&service);
    check(&LimitLayer::with_limit(1).unwrap());
    is_send(&service.oneshot(()));
    // Neither `Send` nor `Unpin` is required of the inner service.
    let local = std::rc::Rc::new(());
    let mut service = Spawn::new(LimitLayer::with_limit(1).unwrap().layer(service_fn(move |()| {
        let local = std::rc::Rc::clone(&local);
        async move {
            tokio::task::yield_now().await;
            drop(local);
            Ok::<_, std::io::Error>(())
        }
    })));
    assert_ready_ok!(service.poll_ready());
    let _response: ResponseFuture<_> = service.call(());
}
