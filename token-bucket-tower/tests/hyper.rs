//! A real HTTP server behind the middleware, under load on the loopback interface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use token_bucket_tower::token_bucket::{Closed, TokenBucket};
use token_bucket_tower::{LimitLayer, Overloaded, ResponseFuture};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const CLIENTS: usize = 24;
const REQUESTS: usize = 40;
const LIMITS: [usize; 6] = [8, 2, 16, 0, 5, 1];

type Page = Response<BoxBody<Bytes, Infallible>>;

fn page(status: StatusCode, text: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(text.into()).boxed());
    *page.status_mut() = status;
    page
}

/// Serves connections until it is aborted. Each request has a clone of `service`, and reserves for itself.
async fn serve<S>(service: S) -> (SocketAddr, JoinHandle<()>)
where
    S: Service<Request<Incoming>, Response = Page, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let respond = move |request| {
        let service = service.clone();
        async move {
            Ok::<_, Infallible>(match service.oneshot(request).await {
                Ok(page) => page,
                Err(error) if error.is::<Overloaded>() || error.is::<Closed>() => {
                    page(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                }
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            })
        }
    };
    let accept = async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(respond.clone());
            connections.spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    };
    (address, tokio::spawn(accept))
}

/// A connection, which is closed when the task is aborted.
async fn connect(address: SocketAddr) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>) -> Response<Incoming> {
    sender.ready().await.unwrap();
    let request = Request::get("/").header("host", "localhost").body(Empty::new()).unwrap();
    timeout(Duration::from_secs(30), sender.send_request(request)).await.expect("an answer within 30 seconds").unwrap()
}

async fn text<B: Body<Error: std::fmt::Debug>>(body: B) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Waits until other tasks have made the condition true.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(2)).await;
    }
    panic!("not within 10 seconds: {what}");
}

/// Counts the requests in the handler, against the limit in force.
struct Gauge {
    bucket: Arc<TokenBucket>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    in_handler: usize,
    limit: usize,
    /// The number of requests allowed now. After a shrink it is above the limit, and falls with each request that finishes.
    allowed: usize,
    peak: usize,
    excess: usize,
}

impl Gauge {
    fn new(bucket: &Arc<TokenBucket>) -> Arc<Self> {
        let limit = bucket.capacity();
        Arc::new(Self { bucket: Arc::clone(bucket), counts: Mutex::new(Counts { limit, allowed: limit, ..Counts::default() }) })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn enter(self: Arc<Self>) -> InHandler {
        self.change(|counts| {
            counts.in_handler += 1;
            counts.peak = counts.peak.max(counts.in_handler);
            counts.excess = counts.excess.max(counts.in_handler.saturating_sub(counts.allowed));
        });
        InHandler(self)
    }

    fn set_limit(&self, limit: usize) {
        // Under the lock, so that no request is judged by the wrong limit.
        self.change(|counts| {
            counts.limit = limit;
            counts.allowed = limit.max(self.bucket.set_capacity(limit).unwrap().outstanding);
        });
    }
}

struct InHandler(Arc<Gauge>);

impl Drop for InHandler {
    fn drop(&mut self) {
        self.0.change(|counts| {
            counts.in_handler -= 1;
            counts.allowed = counts.limit.max(counts.allowed.saturating_sub(1));
        });
    }
}

/// Sends all requests, from as many connections as there are clients, and counts `200 OK` and `503 Service Unavailable`.
async fn load(address: SocketAddr) -> (usize, usize) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let (mut sender, _connection) = connect(address).await;
            let (mut served, mut refused) = (0, 0);
            for _ in 0..REQUESTS {
                let response = get(&mut sender).await;
                match response.status() {
                    StatusCode::OK => served += 1,
                    StatusCode::SERVICE_UNAVAILABLE => {
                        refused += 1;
                        sleep(Duration::from_millis(2)).await;
                    }
                    status => panic!("{status}: {}", text(response.into_body()).await),
                }
                text(response.into_body()).await;
            }
            (served, refused)
        });
    }
    clients.join_all().await.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}

async fn changes_under_load(layer: impl FnOnce(Arc<TokenBucket>) -> LimitLayer, sheds_load: bool) {
    let bucket = Arc::new(TokenBucket::new(100, LIMITS[0]).unwrap());
    let (gauge, handled) = (Gauge::new(&bucket), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (gauge, handled) = (Arc::clone(&gauge), Arc::clone(&handled));
        service_fn(move |_| {
            let (gauge, number) = (Arc::clone(&gauge), handled.fetch_add(1, Ordering::Relaxed) as u64);
            async move {
                let _in_handler = gauge.enter();
                sleep(Duration::from_millis(1 + number % 3)).await;
                Ok::<_, BoxError>(page(StatusCode::OK, "done"))
            }
        })
    };
    let (address, server) = serve(layer(Arc::clone(&bucket)).layer(handler)).await;

    let changes = tokio::spawn({
        let gauge = Arc::clone(&gauge);
        async move {
            for limit in LIMITS.into_iter().cycle() {
                gauge.set_limit(limit);
                sleep(Duration::from_millis(15)).await;
            }
        }
    });
    let (served, refused) = load(address).await;
    changes.abort();

    let Counts { peak, excess, in_handler, .. } = gauge.change(|counts| *counts);
    assert_eq!(excess, 0, "requests above the limit");
    assert!(peak > LIMITS[4], "the server was not under load: {peak} at a time");
    assert_eq!((served + refused, in_handler), (CLIENTS * REQUESTS, 0));
    assert_eq!(handled.load(Ordering::Relaxed), served, "a refused request reaches no handler");
    assert!(served > 0 && (refused > 0) == sheds_load, "{served} served, {refused} refused");
    eventually("all tokens are returned", || bucket.outstanding() == 0 && bucket.waiting() == 0).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_under_load_while_it_changes() {
    changes_under_load(LimitLayer::new, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_under_load_that_is_shed() {
    changes_under_load(|bucket| LimitLayer::new(bucket).load_shed(), true).await;
}

#[tokio::test]
async fn refused_and_closed_are_answered() {
    let layer = LimitLayer::with_limit(0).unwrap().load_shed();
    let bucket = Arc::clone(layer.bucket());
    let (address, server) = serve(layer.layer(service_fn(async |_| Ok::<_, BoxError>(page(StatusCode::OK, "done"))))).await;
    let (mut sender, _connection) = connect(address).await;
    let response = get(&mut sender).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(response.into_body()).await, Overloaded.to_string());
    bucket.set_capacity(1).unwrap();
    let response = get(&mut sender).await;
    assert_eq!(response.status(), StatusCode::OK);
    text(response.into_body()).await;
    bucket.close_with("down for maintenance");
    let response = get(&mut sender).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(response.into_body()).await.ends_with("down for maintenance"));
    server.abort();
}

/// A connection with a request that is never answered. It is closed on drop.
struct Hanging(JoinHandle<hyper::Result<()>>, JoinHandle<()>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.abort();
        self.1.abort();
    }
}

async fn hang(address: SocketAddr) -> Hanging {
    let (mut sender, connection) = connect(address).await;
    Hanging(connection, tokio::spawn(async move { drop(get(&mut sender).await) }))
}

#[tokio::test]
async fn a_dropped_connection_returns_its_token_or_its_place() {
    let layer = LimitLayer::with_limit(2).unwrap();
    let bucket = Arc::clone(layer.bucket());
    let gauge = Gauge::new(&bucket);
    let handler = {
        let gauge = Arc::clone(&gauge);
        service_fn(move |_| {
            let gauge = Arc::clone(&gauge);
            async move {
                let _in_handler = gauge.enter();
                std::future::pending::<Result<Page, BoxError>>().await
            }
        })
    };
    let (address, server) = serve(layer.layer(handler)).await;
    let stands = |in_handler, waiting| {
        let (gauge, bucket) = (&gauge, &bucket);
        move || gauge.change(|counts| counts.in_handler) == in_handler && bucket.waiting() == waiting
    };

    let mut connections = Vec::new();
    for i in 0..6_usize {
        connections.push(hang(address).await);
        eventually("a request enters the handler or the queue", stands((i + 1).min(2), (i + 1).saturating_sub(2))).await;
    }
    connections.remove(3); // waits
    eventually("the waiter has left the queue", stands(2, 3)).await;
    connections.remove(0); // in the handler
    eventually("the next waiter is in the handler", stands(2, 2)).await;
    connections.clear();
    eventually("all requests have ended", stands(0, 0)).await;
    eventually("all tokens are returned", || bucket.outstanding() == 0).await;
    assert_eq!(gauge.change(|counts| (counts.peak, counts.excess)), (2, 0));
    server.abort();
}

#[tokio::test]
async fn a_token_can_be_held_until_the_body_ends() {
    let layer = LimitLayer::with_limit(1).unwrap();
    let bucket = Arc::clone(layer.bucket());
    // The body of each response is sent by the test.
    let (bodies, mut next_body) = tokio::sync::mpsc::unbounded_channel();
    let service = ServiceBuilder::new()
        .map_future(async |mut future: ResponseFuture<_>| {
            let token = future.take_token();
            let response: Page = future.await?;
            Ok::<_, BoxError>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _held = &token;
                    frame
                })
                .boxed()
            }))
        })
        .layer(layer)
        .service_fn(move |_| {
            let (sender, body) = Channel::new(1);
            bodies.send(sender).unwrap();
            std::future::ready(Ok::<_, BoxError>(Response::new(body.boxed())))
        });
    let (address, server) = serve(service).await;

    let (mut one, _connection) = connect(address).await;
    let response = get(&mut one).await;
    let mut sender = next_body.recv().await.unwrap();
    let (mut other, connection) = connect(address).await;
    let mut waits = tokio::spawn(async move { get(&mut other).await.status() });
    eventually("the second request waits", || bucket.waiting() == 1).await;
    sender.send_data(Bytes::from("half ")).await.unwrap();
    assert!(timeout(Duration::from_millis(20), &mut waits).await.is_err());
    assert_eq!(bucket.outstanding(), 1);
    sender.send_data(Bytes::from("and half")).await.unwrap();
    drop(sender);
    assert_eq!(text(response.into_body()).await, "half and half");
    assert_eq!(waits.await.unwrap(), StatusCode::OK);
    // The second body never ends, but its connection does.
    connection.abort();
    let _sender = next_body.recv().await.unwrap();
    eventually("the token of the second body is returned", || bucket.outstanding() == 0).await;
    server.abort();
}
