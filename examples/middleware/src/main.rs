//! An HTTP server with a limit on requests in flight, which `PUT /limit/N` changes while the server is under load.
//!
//! ```sh
//! cargo run --release -p middleware
//! ```
//!
//! The limit is the middleware of `token-bucket-tower`. Server and clients use real sockets on the loopback interface. In the first
//! run, requests above the limit wait; in the second one, they are refused with `503 Service Unavailable`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Kind, Line, Monitor, Progress, Result};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use token_bucket::TokenBucket;
use token_bucket_tower::{LimitLayer, Overloaded};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

const CLIENTS: usize = 48;
/// The work on a request takes one to nine times as long.
const WORK: Duration = Duration::from_millis(1);
/// How long a client waits after a refusal.
const PAUSE: Duration = Duration::from_millis(3);
const LIMITS: [usize; 6] = [16, 4, 32, 0, 8, 2];
/// `PUT /limit/N` refuses what is above.
const LARGEST_LIMIT: usize = 1000;

/// Serves HTTP requests under load, with a limit on requests in flight that changes at run time.
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

/// The bucket, and the requests in flight behind the middleware.
struct State {
    bucket: Arc<TokenBucket>,
    in_flight: Mutex<(usize, Monitor)>,
}

impl State {
    fn new() -> Result<Arc<Self>> {
        let bucket = Arc::new(TokenBucket::new(LARGEST_LIMIT, LIMITS[0])?);
        Ok(Arc::new(Self { bucket, in_flight: Mutex::new((0, Monitor::new(LIMITS[0]))) }))
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let (in_flight, monitor) = &mut *self.in_flight.lock().unwrap();
        change(in_flight);
        monitor.record(&self.bucket, *in_flight);
    }

    fn set_limit(&self, limit: usize) -> Answer {
        // The lock is for the monitor only.
        let (in_flight, monitor) = &mut *self.in_flight.lock().unwrap();
        match self.bucket.set_capacity(limit) {
            Ok(now) => {
                monitor.resized(&self.bucket);
                monitor.record(&self.bucket, *in_flight);
                answer(StatusCode::OK, format!("{now:?}"))
            }
            Err(error) => answer(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let phase = Duration::from_millis(if options.common.short { 150 } else { 1000 });
    let mut claims = Claims::default();
    let waiting = run(false, phase, options.without_bucket, &mut claims).await?;
    let shedding = run(true, phase, options.without_bucket, &mut claims).await?;
    if let Some(path) = &options.common.svg {
        let chart = |title, unit, lines| Chart { title, unit, change: "limit changed", lines };
        let charts = [
            chart("Requests above the limit wait", "requests in flight", waiting.in_flight),
            chart("Requests above the limit are refused", "requests in flight", shedding.in_flight),
            chart("The same run: responses", "requests per second", shedding.responses),
        ];
        example_support::draw(path, "A concurrency limit that changes under load", &charts, &[])?;
    }
    Ok(claims.verdict())
}

/// Lines for the picture.
struct Run {
    in_flight: Vec<Line>,
    responses: Vec<Line>,
}

/// Runs server and clients, with one kind of middleware.
async fn run(sheds_load: bool, phase: Duration, without_bucket: bool, claims: &mut Claims) -> Result<Run> {
    let state = State::new()?;
    let layer = LimitLayer::new(Arc::clone(&state.bucket));
    let layer = if sheds_load { layer.load_shed() } else { layer };
    let work = work(Arc::clone(&state));
    let work = if without_bucket { work } else { BoxCloneSyncService::new(layer.layer(work)) };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener, Arc::clone(&state), work));

    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(address, Arc::clone(&stop)));
    set_limits(address, phase, &state).await?;
    stop.store(true, Ordering::SeqCst);
    let Counts { asked, served, refused } = load.await??;
    server.abort();
    let end = start.elapsed();

    let (_, monitor) = &*state.in_flight.lock().unwrap();
    let mode = if sheds_load { "load shedding" } else { "waiting" };
    monitor.check(claims, &format!("requests in flight ({mode})"));
    let is_right = asked == served.len() + refused.len() && !served.is_empty() && refused.is_empty() != sheds_load;
    let counts = format!("{asked} requests, {} served, {} refused with 503 ({mode})", served.len(), refused.len());
    claims.check(is_right, counts);
    let responses = vec![
        Line::measured(Kind::Use, "served", rate(&served, start, end)),
        Line::measured(Kind::Refused, "refused with 503", rate(&refused, start, end)),
    ];
    Ok(Run { in_flight: monitor.lines("limit", "in flight", end), responses })
}

/// Events per second, in a hundred equal bins.
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn rate(events: &[Instant], start: Instant, end: Duration) -> Vec<(Duration, f64)> {
    let bin = end / 100;
    let is_in = |n: u32, at: Instant| (bin * n..bin * (n + 1)).contains(&at.duration_since(start));
    let count = |n| events.iter().filter(|at| is_in(n, **at)).count() as f64;
    (0..100).map(|n| (bin * n + bin / 2, count(n) / bin.as_secs_f64())).collect()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The service behind the middleware, which takes its time.
fn work(state: Arc<State>) -> Work {
    BoxCloneSyncService::new(service_fn(move |()| {
        let state = Arc::clone(&state);
        async move {
            state.change(|in_flight| *in_flight += 1);
            sleep(WORK * (NUMBER.fetch_add(2, Ordering::Relaxed) % 10 + 1)).await;
            state.change(|in_flight| *in_flight -= 1);
            Ok(answer(StatusCode::OK, "done\n"))
        }
    }))
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

async fn serve(listener: TcpListener, state: Arc<State>, work: Work) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (state, work) = (Arc::clone(&state), work.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // Each request has its own clone of the service, which waits for its own token.
            let (state, work) = (Arc::clone(&state), work.clone());
            async move { Ok::<_, Infallible>(route(&request, &state, work).await) }
        });
        tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn route(request: &Request<Incoming>, state: &State, work: Work) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/work") => match work.oneshot(()).await {
            Ok(answer) => answer,
            Err(error) if error.is::<Overloaded>() => answer(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        (&Method::PUT, path) => match path.strip_prefix("/limit/").map(str::parse) {
            Some(Ok(limit)) => state.set_limit(limit),
            Some(Err(error)) => answer(StatusCode::BAD_REQUEST, error.to_string()),
            None => answer(StatusCode::NOT_FOUND, "PUT /limit/N"),
        },
        _ => answer(StatusCode::NOT_FOUND, "GET /work, or PUT /limit/N"),
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

/// Changes the limit from phase to phase, and checks that a limit out of range is refused.
async fn set_limits(address: SocketAddr, phase: Duration, state: &State) -> Result<()> {
    let mut sender = connect(address).await?;
    let mut progress = Progress::new();
    for limit in LIMITS {
        let status = ask(&mut sender, Method::PUT, &format!("/limit/{limit}")).await?;
        let refusal = ask(&mut sender, Method::PUT, &format!("/limit/{}", LARGEST_LIMIT + 1)).await?;
        if status != StatusCode::OK || refusal != StatusCode::BAD_REQUEST {
            return Err(format!("the response to limit {limit} was {status}, and to a limit out of range {refusal}").into());
        }
        let until = Instant::now() + phase;
        while Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
            progress.print(format_args!("limit {limit}, {} requests in flight", state.in_flight.lock().unwrap().0));
        }
    }
    Ok(())
}

/// How many requests were sent, and when they were served or refused.
#[derive(Default)]
struct Counts {
    asked: usize,
    served: Vec<Instant>,
    refused: Vec<Instant>,
}

/// Sends as many requests as it can until `stop` is set, and waits for the responses.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<Counts> {
    let mut clients = JoinSet::<Result<Counts>>::new();
    for _ in 0..CLIENTS {
        let (mut sender, stop) = (connect(address).await?, Arc::clone(&stop));
        clients.spawn(async move {
            let mut counts = Counts::default();
            while !stop.load(Ordering::SeqCst) {
                counts.asked += 1;
                match ask(&mut sender, Method::GET, "/work").await? {
                    StatusCode::OK => counts.served.push(Instant::now()),
                    StatusCode::SERVICE_UNAVAILABLE => {
                        counts.refused.push(Instant::now());
                        sleep(PAUSE).await;
                    }
                    status => return Err(format!("a request was answered with {status}").into()),
                }
            }
            Ok(counts)
        });
    }
    let mut sum = Counts::default();
    while let Some(counts) = clients.join_next().await {
        let Counts { asked, served, refused } = counts??;
        sum.asked += asked;
        sum.served.extend(served);
        sum.refused.extend(refused);
    }
    Ok(sum)
}
