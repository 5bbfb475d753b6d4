//! A web server with a limit of requests that it works on at a time, changed by `PUT /limit/N` while it is under load.
//!
//! ```sh
//! cargo run --release -p middleware
//! ```
//!
//! The limit is a `tower` middleware, in `limit.rs`. The server and its clients are real ones on the loopback interface.
//! First requests beyond the limit wait, then they are shed with `503 Service Unavailable`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Progress, Result, Watch};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use limit::{LimitLayer, Overloaded};
use token_bucket::TokenBucket;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

const CLIENTS: usize = 48;
/// The work on a request takes one to nine of these.
const WORK: Duration = Duration::from_millis(1);
const LIMITS: [usize; 6] = [16, 4, 32, 0, 8, 2];

/// Serves requests under load, with a limit of requests in flight that is changed at run time.
#[derive(Parser)]
#[command(name = "middleware", after_help = "Exit status: 1 if too many requests were in flight, or one was not answered.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Serve without the middleware, to see too many requests in flight
    #[arg(long)]
    without_bucket: bool,
}

type Answer = Response<Full<Bytes>>;
type Work = BoxCloneSyncService<(), Answer, BoxError>;

/// What the server is working on.
struct Desk {
    bucket: Arc<TokenBucket>,
    in_flight: Mutex<(usize, Watch)>,
}

impl Desk {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        let (in_flight, watch) = &mut *self.in_flight.lock().unwrap();
        change(in_flight);
        watch.look(&self.bucket, *in_flight);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let phase = Duration::from_millis(if options.common.short { 150 } else { 1000 });
    let mut claims = Claims::default();
    for sheds in [false, true] {
        let bucket = Arc::new(TokenBucket::new(1000, LIMITS[0])?);
        let desk = Arc::new(Desk { bucket: Arc::clone(&bucket), in_flight: Mutex::new((0, Watch::new(LIMITS[0]))) });
        let work = work(Arc::clone(&desk));
        let work: Work = if options.without_bucket {
            work
        } else {
            let layer = if sheds { LimitLayer::shedding(bucket) } else { LimitLayer::waiting(bucket) };
            BoxCloneSyncService::new(layer.layer(work))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(serve(listener, Arc::clone(&desk), work));

        let start = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn(load(address, Arc::clone(&stop)));
        set_limits(address, phase, &desk).await?;
        stop.store(true, Ordering::SeqCst);
        let Counts { asked, served, refused } = load.await??;
        server.abort();
        let end = start.elapsed();
        let (_, watch) = &*desk.in_flight.lock().unwrap();
        let mode = if sheds { "shedding" } else { "waiting" };
        watch.check(&mut claims, &format!("requests in flight, {mode}"));
        let is_right = asked == served + refused && served > 0 && (refused > 0) == sheds;
        claims.check(is_right, format_args!("{asked} requests, {served} served, {refused} refused with 503, {mode}"));
        if let (Some(path), false) = (&options.common.svg, sheds) {
            let chart = Chart { y: "requests", lines: watch.lines("in flight", end) };
            example_support::draw(path, "A limit of requests in flight that is changed under load", &[chart])?;
        }
    }
    Ok(claims.verdict())
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The service behind the middleware: some work, that takes its time.
fn work(desk: Arc<Desk>) -> Work {
    BoxCloneSyncService::new(service_fn(move |()| {
        let desk = Arc::clone(&desk);
        async move {
            desk.change(|in_flight| *in_flight += 1);
            sleep(WORK * (NUMBER.fetch_add(2, Ordering::Relaxed) % 10 + 1)).await;
            desk.change(|in_flight| *in_flight -= 1);
            Ok(answer(StatusCode::OK, "done\n"))
        }
    }))
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

async fn serve(listener: TcpListener, desk: Arc<Desk>, work: Work) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (desk, work) = (Arc::clone(&desk), work.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // Each request has a clone of its own, which reserves for it.
            let (desk, work) = (Arc::clone(&desk), work.clone());
            async move { Ok::<_, Infallible>(route(&request, &desk, work).await) }
        });
        tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn route(request: &Request<Incoming>, desk: &Desk, work: Work) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/work") => match work.oneshot(()).await {
            Ok(answer) => answer,
            Err(error) if error.is::<Overloaded>() => answer(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        (&Method::PUT, path) => match path.strip_prefix("/limit/").map(str::parse) {
            Some(Ok(limit)) => set_limit(desk, limit),
            Some(Err(error)) => answer(StatusCode::BAD_REQUEST, error.to_string()),
            None => answer(StatusCode::NOT_FOUND, "PUT /limit/N"),
        },
        _ => answer(StatusCode::NOT_FOUND, "GET /work, or PUT /limit/N"),
    }
}

fn set_limit(desk: &Desk, limit: usize) -> Answer {
    // Under the lock for the sake of the watch only.
    let (in_flight, watch) = &mut *desk.in_flight.lock().unwrap();
    match desk.bucket.set_capacity(limit) {
        Ok(now) => {
            watch.resized(&desk.bucket);
            watch.look(&desk.bucket, *in_flight);
            answer(StatusCode::OK, format!("{now:?}"))
        }
        Err(error) => answer(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

// The clients.

type Sender = client::conn::http1::SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(sender: &mut Sender, method: Method, path: &str) -> Result<StatusCode> {
    sender.ready().await?;
    let request = Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Changes the limit from phase to phase, and checks that it says no where it should.
async fn set_limits(address: SocketAddr, phase: Duration, desk: &Desk) -> Result<()> {
    let mut sender = connect(address).await?;
    let mut progress = Progress::new();
    for limit in LIMITS {
        let status = ask(&mut sender, Method::PUT, &format!("/limit/{limit}")).await?;
        let refusal = ask(&mut sender, Method::PUT, "/limit/1001").await?;
        if status != StatusCode::OK || refusal != StatusCode::BAD_REQUEST {
            return Err(format!("the limit {limit} was answered with {status}, and one too large with {refusal}").into());
        }
        let until = Instant::now() + phase;
        while Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
            progress.say(format_args!("limit {limit}, {} in flight", desk.in_flight.lock().unwrap().0));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    asked: usize,
    served: usize,
    refused: usize,
}

/// Sends as many requests as it can, until it is to stop and all are answered.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<Counts> {
    let mut clients = JoinSet::<Result<Counts>>::new();
    for _ in 0..CLIENTS {
        let (mut sender, stop) = (connect(address).await?, Arc::clone(&stop));
        clients.spawn(async move {
            let mut counts = Counts::default();
            while !stop.load(Ordering::SeqCst) {
                counts.asked += 1;
                match ask(&mut sender, Method::GET, "/work").await? {
                    StatusCode::OK => counts.served += 1,
                    StatusCode::SERVICE_UNAVAILABLE => {
                        counts.refused += 1;
                        sleep(WORK * 3).await;
                    }
                    status => return Err(format!("answered with {status}").into()),
                }
            }
            Ok(counts)
        });
    }
    let mut sum = Counts::default();
    while let Some(counts) = clients.join_next().await {
        let counts = counts??;
        sum.asked += counts.asked;
        sum.served += counts.served;
        sum.refused += counts.refused;
    }
    Ok(sum)
}
