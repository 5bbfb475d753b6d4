//! A client that keeps to the limit of an API: as many requests as are allowed, and never a `429 Too Many Requests`.
//!
//! ```sh
//! cargo run --release -p api_client
//! ```
//!
//! The server is a real one on the loopback interface. It counts the requests of the last second, and answers 429 above its limit, which
//! changes. The clients take a token for each request, and forget it; a [`Refill`] puts tokens in, at a rate that follows the
//! limit. Why that can be relied on, and not just likely to go well: see [`budget`].

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Line, Progress, Result};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use token_bucket::{Refill, TokenBucket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CLIENTS: usize = 8;
/// What the server allows in a window, phase by phase.
const LIMITS: [usize; 3] = [1000, 400, 1500];
const WINDOWS_PER_PHASE: u32 = 3;

/// Sends requests to an API as fast as its limit allows, while the limit changes.
#[derive(Parser)]
#[command(name = "api_client", after_help = "Exit status: 1 if a request was refused, or too few were sent.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Send without tokens, to see requests refused
    #[arg(long)]
    without_bucket: bool,
}

/// How many tokens are to be made in a window, and how many there can be at once, so that no window sees more than `limit` requests.
///
/// What arrives in a window was in flight when it began (one request for each client), or took its token within the window. Those
/// tokens were in the bucket at its beginning (a burst), or were put in by the first tick in it, for the time before
/// (another burst at most, as there is no more room), or became due in the window: the rate, rounded up.
///
/// The smaller a burst, the more of the limit is used; the larger, the longer may the machine be busy with other things.
fn budget(limit: usize, bursts: usize) -> (usize, usize) {
    let burst = limit / bursts;
    (limit - CLIENTS - 2 * burst - 1, burst)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let second = Duration::from_secs(1);
    let (window, bursts, least) = if options.common.short { (second / 4, 10, 0.2) } else { (second, 50, 0.9) };
    let limits = LIMITS.map(|limit| if options.common.short { limit / 4 } else { limit });

    let api = Arc::new(Api::new(limits[0], window));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener, Arc::clone(&api)));

    let (rate, burst) = budget(limits[0], bursts);
    let bucket = Arc::new(TokenBucket::new(LIMITS[2], burst)?);
    let (set_rate, rates) = watch::channel(rate);
    let driver = tokio::spawn(drive(Arc::clone(&bucket), rates, window));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let bucket = (!options.without_bucket).then(|| Arc::clone(&bucket));
        clients.spawn(send(TcpStream::connect(address).await?, bucket));
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
        set_rate.send(rate)?;
        bucket.set_capacity(burst)?;
        let (before, begin) = (api.served(), Instant::now());
        if !is_raised {
            // The window still has requests that were sent at the old rate.
            sleep(window).await;
            api.set_limit(limit);
            bounds.push((start.elapsed(), limit));
        }
        sleep((window * WINDOWS_PER_PHASE).saturating_sub(begin.elapsed())).await;
        let allowed = limit as f64 * begin.elapsed().as_secs_f64() / window.as_secs_f64();
        let share = (api.served() - before) as f64 / allowed;
        let phase = format!("phase {} of {limit} per {window:?}: {:.1}% of what is allowed", phase + 1, share * 100.0);
        claims.check(share >= least, format_args!("{phase}, at least {:.0}%", least * 100.0));
    }
    let end = start.elapsed();
    bucket.close_with("the show is over");
    sampler.abort();
    drop(set_rate);
    driver.await??;
    let refused = if options.without_bucket {
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
            Line::set("limit", bounds.into_iter().map(|(at, limit)| (at, limit as f64)), end),
            Line::measured("requests in the last window", counts),
        ];
        example_support::draw(path, "A client at the limit of an API", &[Chart { y: "requests", lines }])?;
    }
    Ok(claims.verdict())
}

/// Puts tokens into the bucket, at the rate that was set last, until nobody sets rates any more.
async fn drive(bucket: Arc<TokenBucket>, mut rates: watch::Receiver<usize>, window: Duration) -> Result<()> {
    let mut refill = Refill::new(*rates.borrow_and_update(), window)?;
    loop {
        refill.tick_now(&bucket);
        let next = refill.next_at().ok_or("the rate is 0")?;
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            changed = rates.changed() => match changed {
                Ok(()) => refill.set_rate_now(*rates.borrow(), window)?,
                Err(_) => return Ok(()),
            },
        }
    }
}

/// Sends one request after the other, each for a token, until the bucket is closed. Returns how many were refused.
async fn send(stream: TcpStream, bucket: Option<Arc<TokenBucket>>) -> Result<usize> {
    stream.set_nodelay(true)?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut refused = 0;
    loop {
        if let Some(bucket) = &bucket {
            match bucket.take().await {
                Ok(token) => token.forget(),
                Err(_) => return Ok(refused),
            }
        }
        sender.ready().await?;
        let response = sender.send_request(Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?).await?;
        refused += usize::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
        response.into_body().collect().await?;
    }
}

/// The server: it knows nothing of tokens.
struct Api {
    window: Duration,
    log: Mutex<Log>,
}

struct Log {
    limit: usize,
    /// When the requests of the last window were served.
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

    /// Whether one more request is within the limit.
    fn admit(&self) -> bool {
        let mut log = self.log.lock().unwrap();
        let now = Instant::now();
        log.forget_before(now, self.window);
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
    fn forget_before(&mut self, now: Instant, window: Duration) {
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

/// Notes how full the window is.
async fn sample(api: Arc<Api>, start: Instant) {
    let mut progress = Progress::new();
    loop {
        sleep(Duration::from_millis(20)).await;
        let mut log = api.log.lock().unwrap();
        log.forget_before(Instant::now(), api.window);
        let count = log.recent.len();
        progress.say(format_args!("{count} requests in the last window, {} are allowed", log.limit));
        log.samples.push((start.elapsed(), count as f64));
    }
}
