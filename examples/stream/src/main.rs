//! Bounds concurrency in streams, and shuts a server down gracefully.
//!
//! ```sh
//! cargo run --release -p stream
//! ```
//!
//! [`tokens`] turns a bucket into a stream of tokens. For each token, one item is processed: so no item is begun that may not be processed yet. The client bounds
//! its concurrent requests this way, with `for_each_concurrent`; the server its connections, each of which has its own task. Both limits change at run time. At the end the server stops accepting
//! connections, closes its bucket, and waits until all tokens are back: then every accepted connection has been answered.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{future, io};

use clap::Parser;
use example_support::{Chart, Claims, Common, Monitor, Progress, Result};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{Stream, StreamExt as _, stream};
use futures_lite::FutureExt as _;
use smol::net::{TcpListener, TcpStream};
use smol::{Executor, Timer};
use token_bucket::{OwnedToken, TokenBucket};

/// Capacities of the client and the server, phase by phase.
const CAPACITIES: [(usize, usize); 4] = [(8, 32), (32, 32), (32, 10), (12, 20)];
const ANSWER: usize = 3000;

/// Sends requests to a server that shuts down gracefully, with a concurrency limit on both sides that changes.
#[derive(Parser)]
#[command(name = "stream", after_help = "Exit status: 1 if a limit was exceeded, or the server cut off an answer.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Send requests without tokens, to see too many of them in flight
    #[arg(long)]
    without_bucket: bool,
}

/// A stream of tokens that ends when the bucket is closed.
fn tokens(bucket: Arc<TokenBucket>) -> impl Stream<Item = OwnedToken> {
    stream::unfold(bucket, |bucket| async {
        let token = bucket.take_owned().await.ok()?;
        Some((token, bucket))
    })
    .fuse()
}

/// The client or the server: its bucket, and how many of its tasks hold a token.
struct Side {
    bucket: Arc<TokenBucket>,
    in_flight: Mutex<(usize, Monitor)>,
}

impl Side {
    fn new(capacity: usize) -> Result<Arc<Self>> {
        let bucket = Arc::new(TokenBucket::new(100, capacity)?);
        Ok(Arc::new(Self { bucket, in_flight: Mutex::new((0, Monitor::new(capacity))) }))
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let (in_flight, monitor) = &mut *self.in_flight.lock().unwrap();
        change(in_flight);
        monitor.record(&self.bucket, *in_flight);
    }

    fn resize(&self, capacity: usize) -> Result<()> {
        let (in_flight, monitor) = &mut *self.in_flight.lock().unwrap();
        self.bucket.set_capacity(capacity)?;
        monitor.resized(&self.bucket);
        monitor.record(&self.bucket, *in_flight);
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let phase = Duration::from_millis(if options.common.short { 250 } else { 1000 });
    let (client, server) = (Side::new(CAPACITIES[0].0)?, Side::new(CAPACITIES[0].1)?);
    let executor: &'static Executor<'static> = Box::leak(Box::new(Executor::new()));
    let mut claims = Claims::default();
    let start = Instant::now();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let serving = executor.spawn(serve(Arc::clone(&server), listener, executor, stopped));
        let requests = executor.spawn(request_all(Arc::clone(&client), address, options.without_bucket));

        let mut progress = Progress::new();
        for (of_client, of_server) in CAPACITIES {
            client.resize(of_client)?;
            server.resize(of_server)?;
            let until = Instant::now() + phase;
            while Instant::now() < until {
                Timer::after(Duration::from_millis(10)).await;
                progress.print(format_args!("client limit {of_client}, server limit {of_server}"));
            }
        }
        // The load continues while the server shuts down.
        drop(stop);
        let served = serving.await?;
        let Counts { answered, refused, cut_off } = requests.await;
        client.in_flight.lock().unwrap().1.check(&mut claims, "requests in flight");
        server.in_flight.lock().unwrap().1.check(&mut claims, "connections being served");
        claims.check(
            served == answered && cut_off == 0 && answered > 0,
            format_args!(
                "{served} requests served, {answered} answered completely, {cut_off} cut off; {refused} refused after the shutdown"
            ),
        );
        Result::<()>::Ok(())
    }))?;

    if let Some(path) = &options.common.svg {
        let end = start.elapsed();
        let chart = |title, unit, side: &Side, name| {
            let lines = side.in_flight.lock().unwrap().1.lines("limit", name, end);
            Chart { title, unit, change: "limit changed", lines }
        };
        let charts = [chart("Client", "requests", &client, "in flight"), chart("Server", "connections", &server, "being served")];
        let note = "At the end, the server stops accepting connections and finishes those it has accepted.";
        example_support::draw(path, "Concurrency limits on two streams, and a graceful shutdown", &charts, &[note])?;
    }
    Ok(claims.verdict())
}

#[derive(Default)]
struct Counts {
    answered: usize,
    refused: usize,
    cut_off: usize,
}

/// Sends requests until the server has shut down.
async fn request_all(client: Arc<Side>, address: SocketAddr, without_bucket: bool) -> Counts {
    let (is_gone, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let tokens = if without_bucket {
        stream::repeat_with(|| None).take(100).boxed()
    } else {
        tokens(Arc::clone(&client.bucket)).map(Some).boxed()
    };
    // No limit is needed here: there are no more items than tokens.
    tokens
        .take_while(|_| future::ready(!is_gone.load(Ordering::SeqCst)))
        .enumerate()
        .for_each_concurrent(None, async |(number, _token)| {
            client.change(|in_flight| *in_flight += 1);
            let kind = match request(address, number as u64).await {
                Ok(true) => 0,
                Ok(false) => 2,
                Err(_) => 1,
            };
            client.change(|in_flight| *in_flight -= 1);
            counts[kind].fetch_add(1, Ordering::SeqCst);
            is_gone.fetch_or(kind == 1, Ordering::SeqCst);
        })
        .await;
    let [answered, refused, cut_off] = counts.map(AtomicUsize::into_inner);
    Counts { answered, refused, cut_off }
}

/// Returns whether the answer was complete, or an error if there was none at all.
async fn request(address: SocketAddr, number: u64) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&number.to_be_bytes()).await?;
    let mut answer = Vec::new();
    let result = stream.read_to_end(&mut answer).await;
    if answer.is_empty() {
        return Err(result.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()));
    }
    let expected = number.to_be_bytes().into_iter().cycle().take(ANSWER);
    Ok(result.is_ok() && answer.into_iter().eq(expected))
}

/// Serves connections until it is stopped, and finishes those it has accepted. Returns how many it served.
async fn serve(
    server: Arc<Side>,
    listener: TcpListener,
    executor: &'static Executor<'static>,
    stopped: smol::channel::Receiver<()>,
) -> Result<usize> {
    let served = Arc::new(AtomicUsize::new(0));
    let accept = tokens(Arc::clone(&server.bucket)).for_each(async |token| {
        // Only now: what is accepted will be answered.
        let connection = listener.accept().await.map(|(connection, _)| connection);
        let (server, served) = (Arc::clone(&server), Arc::clone(&served));
        executor
            .spawn(async move {
                server.change(|in_flight| *in_flight += 1);
                let result = match connection {
                    Ok(connection) => answer(connection).await,
                    Err(error) => Err(error),
                };
                served.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
                server.change(|in_flight| *in_flight -= 1);
                drop(token);
            })
            .detach();
    });
    // Dropping this also drops the token for a connection that has not arrived.
    accept
        .or(async {
            let _ = stopped.recv().await;
        })
        .await;
    server.bucket.close_with("the server is shutting down");
    server.bucket.idle().await;
    Ok(served.load(Ordering::SeqCst))
}

/// Sends the answer in two halves, with some work before each.
async fn answer(mut connection: TcpStream) -> io::Result<()> {
    let mut number = [0; 8];
    connection.read_exact(&mut number).await?;
    let answer: Vec<u8> = number.into_iter().cycle().take(ANSWER).collect();
    let work = Duration::from_millis(5 + u64::from_be_bytes(number) % 20);
    for half in answer.chunks(ANSWER.div_ceil(2)) {
        Timer::after(work).await;
        connection.write_all(half).await?;
    }
    Ok(())
}
