//! Streams with as many items in work as there are tokens, and a server that goes down in order.
//!
//! ```sh
//! cargo run --release -p stream
//! ```
//!
//! [`tokens`] makes a stream of a bucket. Zipped with a stream of items, each item comes with its token, so the next one is taken out of
//! the stream when it may be worked on. The client does so with the requests that it sends, by `for_each_concurrent`; the server with the
//! connections that it accepts, each in a task of its own. Both limits are changed on the way. At the end the server accepts no more, closes its
//! bucket, and waits until every token is back: then all that were accepted have been answered.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{future, io};

use clap::Parser;
use example_support::{Chart, Claims, Common, Progress, Result, Watch};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{Stream, StreamExt as _, stream};
use futures_lite::FutureExt as _;
use smol::net::{TcpListener, TcpStream};
use smol::{Executor, Timer};
use token_bucket::{OwnedToken, TokenBucket};

/// Capacities of the client and the server, phase by phase.
const CAPACITIES: [(usize, usize); 4] = [(8, 32), (32, 32), (32, 10), (12, 20)];
const ANSWER: usize = 3000;

/// Sends requests to a server that goes down, both on streams with a limit that changes.
#[derive(Parser)]
#[command(name = "stream", after_help = "Exit status: 1 if too much was worked on at a time, or the server cut an answer off.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Send without tokens, to see too many requests in flight
    #[arg(long)]
    without_bucket: bool,
}

/// One token after the other, as long as the bucket is open.
fn tokens(bucket: Arc<TokenBucket>) -> impl Stream<Item = OwnedToken> {
    stream::unfold(bucket, |bucket| async {
        let token = bucket.take_owned().await.ok()?;
        Some((token, bucket))
    })
}

/// A bucket, and how many are worked on with its tokens.
struct Side {
    bucket: Arc<TokenBucket>,
    in_work: Mutex<(usize, Watch)>,
}

impl Side {
    fn new(capacity: usize) -> Result<Arc<Self>> {
        let bucket = Arc::new(TokenBucket::new(100, capacity)?);
        Ok(Arc::new(Self { bucket, in_work: Mutex::new((0, Watch::new(capacity))) }))
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let (in_work, watch) = &mut *self.in_work.lock().unwrap();
        change(in_work);
        watch.look(&self.bucket, *in_work);
    }

    fn resize(&self, capacity: usize) -> Result<()> {
        let (in_work, watch) = &mut *self.in_work.lock().unwrap();
        self.bucket.set_capacity(capacity)?;
        watch.resized(&self.bucket);
        watch.look(&self.bucket, *in_work);
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
                progress.say(format_args!("limits of client and server: {of_client} and {of_server}"));
            }
        }
        // Under load.
        drop(stop);
        let served = serving.await?;
        let Counts { answered, refused, cut_off } = requests.await;
        client.in_work.lock().unwrap().1.check(&mut claims, "requests in flight");
        server.in_work.lock().unwrap().1.check(&mut claims, "connections served");
        claims.check(
            served == answered && cut_off == 0 && answered > 0,
            format_args!("{served} served before the server was gone, {answered} answered, {refused} refused, {cut_off} cut off"),
        );
        Result::<()>::Ok(())
    }))?;

    if let Some(path) = &options.common.svg {
        let end = start.elapsed();
        let lines = |side: &Side, name| side.in_work.lock().unwrap().1.lines(name, end);
        let charts = [
            Chart { y: "client", lines: lines(&client, "requests in flight") },
            Chart { y: "server", lines: lines(&server, "connections served") },
        ];
        example_support::draw(path, "Streams with limits, and a server that goes down in order", &charts)?;
    }
    Ok(claims.verdict())
}

#[derive(Default)]
struct Counts {
    answered: usize,
    refused: usize,
    cut_off: usize,
}

/// Sends requests until the server is gone.
async fn request_all(client: Arc<Side>, address: SocketAddr, without_bucket: bool) -> Counts {
    let (is_gone, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let tokens = if without_bucket {
        stream::repeat_with(|| None).take(100).boxed()
    } else {
        tokens(Arc::clone(&client.bucket)).map(Some).boxed()
    };
    // Without a limit of its own: there are no more items than tokens.
    tokens
        .take_while(|_| future::ready(!is_gone.load(Ordering::SeqCst)))
        .zip(stream::iter(0_u64..))
        .for_each_concurrent(None, async |(_token, number)| {
            client.change(|in_work| *in_work += 1);
            let kind = match request(address, number).await {
                Ok(true) => 0,
                Ok(false) => 2,
                Err(_) => 1,
            };
            client.change(|in_work| *in_work -= 1);
            counts[kind].fetch_add(1, Ordering::SeqCst);
            is_gone.fetch_or(kind == 1, Ordering::SeqCst);
        })
        .await;
    let [answered, refused, cut_off] = counts.map(AtomicUsize::into_inner);
    Counts { answered, refused, cut_off }
}

/// True if the answer was complete; an error if there was none at all.
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

/// Serves until it is stopped, and all that it has begun. Returns how many connections that were.
async fn serve(
    server: Arc<Side>,
    listener: TcpListener,
    executor: &'static Executor<'static>,
    stopped: smol::channel::Receiver<()>,
) -> Result<usize> {
    let served = Arc::new(AtomicUsize::new(0));
    let accept = tokens(Arc::clone(&server.bucket)).zip(listener.incoming()).for_each(async |(token, connection)| {
        let (server, served) = (Arc::clone(&server), Arc::clone(&served));
        executor
            .spawn(async move {
                server.change(|in_work| *in_work += 1);
                let result = match connection {
                    Ok(connection) => answer(connection).await,
                    Err(error) => Err(error),
                };
                served.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
                server.change(|in_work| *in_work -= 1);
                drop(token);
            })
            .detach();
    });
    // What is dropped with the stream: the token for a connection that has not come.
    accept
        .or(async {
            let _ = stopped.recv().await;
        })
        .await;
    server.bucket.close_with("the server is going down");
    server.bucket.idle().await;
    Ok(served.load(Ordering::SeqCst))
}

/// Half of the answer at first, and some work before each half.
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
