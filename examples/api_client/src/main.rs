//! Sends requests as fast as an API permits, without ever receiving a `429 Too Many Requests`, while the limit changes.
//!
//! ```sh
//! cargo run --release -p api_client
//! ```
//!
//! The server uses a real socket on the loopback interface. It counts the requests of the last second, and answers 429 above its limit,
//! which changes. The clients share a [`RateLimiter`] and take a token for each request. For why no request can be refused, see [`budget`].

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Kind, Line, Progress, Result};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use token_bucket::{LimitError, RateLimiter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const CLIENTS: usize = 8;
/// How many requests the server allows in a window, phase by phase.
const LIMITS: [usize; 3] = [1000, 400, 1500];
const WINDOWS_PER_PHASE: u32 = 3;

/// Sends requests as fast as an API permits, without ever receiving a 429, while the limit changes.
#[derive(Parser)]
#[command(name = "api_client", after_help = "Exit status: 1 if a request was refused, or too few were sent.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Send requests without the limiter, to see them refused
    #[arg(long)]
    without_limiter: bool,
}

/// The rate per window and the burst of a limiter with which no window sees more than `limit` requests.
///
/// A request that arrives in a window was granted within it, as at most the rate plus one burst (rounded up) are, or was in flight
/// when the window began, as at most one for each client is.
///
/// The smaller the burst, the more of the limit is used; the larger it is, the longer a client can be delayed without losing tokens.
fn budget(limit: usize, bursts: usize) -> (usize, usize) {
    let burst = limit / bursts;
    (limit - CLIENTS - burst - 1, burst)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let second = Duration::from_secs(1);
    let (window, bursts, least) = if options.common.short { (second / 4, 10, 0.2) } else { (second, 25, 0.9) };
    let limits = LIMITS.map(|limit| if options.common.short { limit / 4 } else { limit });

    let api = Arc::new(Api::new(limits[0], window));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener, Arc::clone(&api)));

    let (rate, burst) = budget(limits[0], bursts);
    let limiter = Arc::new(RateLimiter::new(rate, window, burst)?);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let limiter = (!options.without_limiter).then(|| Arc::clone(&limiter));
        clients.spawn(send(TcpStream::connect(address).await?, limiter));
    }
    let start = Instant::now();
    let sampler = tokio::spawn(sample(Arc::clone(&api), start));

    let mut claims = Claims::default();
    let mut bounds = vec![(Duration::ZERO, limits[0])];
    for (phase, limit) in limits.into_iter().enumerate() {
        let is_raised = limit > api.limit();
        if is_raised {
            api.set_limit(limit);
            bounds.push((start.elapsed(), limit));
        }
        let (rate, burst) = budget(limit, bursts);
        limiter.set_rate(rate, window)?;
        limiter.set_burst(burst);
        let (before, begin) = (api.served(), Instant::now());
        if !is_raised {
            // The window still contains requests that were sent at the old rate.
            sleep(window).await;
            api.set_limit(limit);
            bounds.push((start.elapsed(), limit));
        }
        sleep((window * WINDOWS_PER_PHASE).saturating_sub(begin.elapsed())).await;
        let allowed = limit as f64 * begin.elapsed().as_secs_f64() / window.as_secs_f64();
        let share = (api.served() - before) as f64 / allowed;
        let phase = format!("phase {}: {limit} requests per {window:?} allowed, {:.1}% of them sent", phase + 1, share * 100.0);
        claims.check(share >= least, format_args!("{phase} (at least {:.0}%)", least * 100.0));
    }
    let end = start.elapsed();
    limiter.close_with("the demonstration is over");
    sampler.abort();
    let refused = if options.without_limiter {
        clients.abort_all();
        api.refused()
    } else {
        clients.join_all().await.into_iter().sum::<Result<usize>>()?
    };
    server.abort();
    claims.check(refused == 0, format_args!("{refused} of {} requests were refused", api.served() + refused));

    if let Some(path) = &options.common.svg {
        let counts = api.log.lock().unwrap().samples.clone();
        let lines = vec![
            Line::steps(Kind::Limit, "limit of the API", bounds.into_iter().map(|(at, limit)| (at, limit as f64)), end).marked(),
            Line::measured(Kind::Use, "requests served", counts),
        ];
        let title = "Requests within the last second, counted by the server";
        let chart = Chart { title, unit: "requests", change: "limit changed", lines };
        let note = "Before the server lowers its limit, the client has reduced its rate, and a second has passed.";
        example_support::draw(path, "Using all that an API permits, without a refusal", &[chart], &[note])?;
    }
    Ok(claims.verdict())
}

/// Sends one request after another, each for a token, until the limiter is closed. Returns how many were refused.
async fn send(stream: TcpStream, limiter: Option<Arc<RateLimiter>>) -> Result<usize> {
    stream.set_nodelay(true)?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut refused = 0;
    loop {
        if let Some(limiter) = &limiter {
            match limiter.take(1, sleep).await {
                Ok(()) => {}
                Err(LimitError::Closed(_)) => return Ok(refused),
                Err(error) => return Err(error.into()),
            }
        }
        sender.ready().await?;
        let response = sender.send_request(Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?).await?;
        refused += usize::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
        response.into_body().collect().await?;
    }
}

/// The server, which knows nothing about tokens.
struct Api {
    window: Duration,
    log: Mutex<Log>,
}

struct Log {
    limit: usize,
    /// The times of the requests that were served within the last window.
    recent: VecDeque<Instant>,
    served: usize,
    refused: usize,
    samples: Vec<(Duration, f64)>,
}

impl Api {
    fn new(limit: usize, window: Duration) -> Self {
        let log = Log { limit, recent: VecDeque::new(), served: 0, refused: 0, samples: Vec::new() };
        Self { window, log: Mutex::new(log) }
    }

    fn limit(&self) -> usize {
        self.log.lock().unwrap().limit
    }

    fn set_limit(&self, limit: usize) {
        self.log.lock().unwrap().limit = limit;
    }

    fn served(&self) -> usize {
        self.log.lock().unwrap().served
    }

    fn refused(&self) -> usize {
        self.log.lock().unwrap().refused
    }

    /// Counts the request if it is within the limit, and returns whether it is.
    fn admit(&self) -> bool {
        let mut log = self.log.lock().unwrap();
        let now = Instant::now();
        log.remove_before(now, self.window);
        let is_admitted = log.recent.len() < log.limit;
        if is_admitted {
            log.recent.push_back(now);
            log.served += 1;
        } else {
            log.refused += 1;
        }
        is_admitted
    }
}

impl Log {
    fn remove_before(&mut self, now: Instant, window: Duration) {
        while self.recent.front().is_some_and(|&at| now.duration_since(at) >= window) {
            self.recent.pop_front();
        }
    }
}

async fn serve(listener: TcpListener, api: Arc<Api>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let api = Arc::clone(&api);
        let answer = service_fn(move |_: Request<Incoming>| {
            let status = if api.admit() { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
            let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
            *response.status_mut() = status;
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// Records how many requests are in the window.
async fn sample(api: Arc<Api>, start: Instant) {
    let mut progress = Progress::new();
    loop {
        sleep(Duration::from_millis(20)).await;
        let mut log = api.log.lock().unwrap();
        log.remove_before(Instant::now(), api.window);
        let count = log.recent.len();
        progress.print(format_args!("{count} requests in the last window, {} allowed", log.limit));
        log.samples.push((start.elapsed(), count as f64));
    }
}
