//! A file sent through TCP at a rate that changes on the way.
//!
//! ```sh
//! cargo run --release -p shaper -- FILE
//! ```
//!
//! A token is a byte. The sender takes as many as it is going to write, and forgets them; a thread with a [`Refill`] puts new ones in, and
//! changes the rate from phase to phase. The receiver, at the other end of a connection over the loopback interface, measures.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "moderate numbers")]

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Line, Progress, Result};
use sha2::{Digest as _, Sha256};
use token_bucket::{Refill, TokenBucket};

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
/// What is written at a time. It must not be above the burst, for more tokens than that are never there at once.
const BLOCK: usize = 16 << 10;
const BURST: usize = MIB;
const TICK: Duration = Duration::from_millis(1);
/// Bytes per second, phase by phase, and again from the first one.
const RATES: [usize; 3] = [8 * MIB, 2 * MIB, 16 * MIB];

/// Sends a file through TCP at a rate that changes on the way, and measures the rate at the other end.
#[derive(Parser)]
#[command(name = "shaper", after_help = "Exit status: 1 if the file did not arrive as it was, or not at the rates that were set.")]
struct Options {
    /// The file to send [default: one that is made up, and lasts for all phases]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Send without tokens, to see how fast it would be
    #[arg(long)]
    without_bucket: bool,
}

/// What was received, and when how much of it.
struct Received {
    bytes: Vec<u8>,
    counts: Vec<(Instant, usize)>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    // A busy machine may send less. (It is the short form that others run beside other things.)
    let (phase, scale, less, more) = if options.common.short { (SECOND * 3 / 5, 4, 0.9, 0.5) } else { (SECOND * 2, 1, 0.05, 0.05) };
    let rates = RATES.map(|rate| rate / scale);
    let made_up;
    let path: &Path = if let Some(path) = &options.file {
        path
    } else {
        made_up = make_up(rates.iter().map(|&rate| (rate as f64 * phase.as_secs_f64()) as usize).sum())?;
        made_up.path()
    };
    let length = path.metadata()?.len();

    // Empty at first: tokens come by time alone.
    let bucket = TokenBucket::new(BURST, BURST)?;
    bucket.try_take_many(BURST)?.forget();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let start = Instant::now();
    let (received, changes) = thread::scope(|scope| -> Result<_> {
        let driver = scope.spawn(|| drive(&bucket, &rates, phase));
        let receiver = scope.spawn(|| receive(&listener, length));
        let sent = send(path, &mut stream, (!options.without_bucket).then_some(&bucket));
        // Whatever has happened, the others are to end.
        bucket.close();
        stream.shutdown(Shutdown::Both)?;
        let received = receiver.join().expect("no panic")?;
        sent?;
        Ok((received, driver.join().expect("no panic")?))
    })?;

    let mut claims = Claims::default();
    let sum = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let (length, sum, sent) = (received.bytes.len(), sum(&received.bytes), sum(&fs::read(path)?));
    claims.check(sum == sent, format_args!("{length} bytes have arrived as they were, SHA-256 {sum}"));

    // What the bucket promises at every moment, however busy the machine is.
    let ahead = received.counts.iter().map(|&(at, count)| count as f64 - due(&changes, at)).fold(0.0, f64::max);
    claims.check(ahead <= BLOCK as f64, format_args!("at no moment had more arrived than was due, but for {ahead:.0} bytes"));

    let end = received.counts.last().ok_or("nothing was received")?.0;
    for (index, &(begin, rate)) in changes.iter().enumerate() {
        let stop = changes.get(index + 1).map_or(end, |next| next.0.min(end));
        // What was late in the phase before, is given some time; and the last one may be cut short.
        let begin = begin + phase / 3;
        let length = stop.saturating_duration_since(begin);
        if length >= phase / 3 {
            let measured = (count_at(&received.counts, stop) - count_at(&received.counts, begin)) as f64 / length.as_secs_f64();
            let claim = format!("phase {}: {:.2} MiB/s were set, {:.2} measured", index + 1, mib(rate as f64), mib(measured));
            claims.check(
                (1.0 - less..=1.0 + more).contains(&(measured / rate as f64)),
                format_args!("{claim}, {:.0}% less and {:.0}% more allowed", less * 100.0, more * 100.0),
            );
        }
    }
    if let Some(path) = &options.common.svg {
        let set = changes.iter().map(|&(at, rate)| (at - start, mib(rate as f64)));
        let bin = (end - start) / 120;
        let measured = (1..=120).map(|n| {
            let bytes = count_at(&received.counts, start + bin * n) - count_at(&received.counts, start + bin * (n - 1));
            (bin * n, mib(bytes as f64) / bin.as_secs_f64())
        });
        let lines = vec![Line::set("set", set, end - start), Line::measured("measured at the other end", measured)];
        example_support::draw(path, "A file sent at a rate that changes", &[Chart { y: "MiB per second", lines }])?;
    }
    Ok(claims.verdict())
}

/// Puts tokens into the bucket until it is closed. Returns when which rate was set.
fn drive(bucket: &TokenBucket, rates: &[usize], phase: Duration) -> Result<Vec<(Instant, usize)>> {
    let mut changes = Vec::new();
    let mut refill = Refill::new(0, SECOND)?;
    let start = Instant::now();
    for (&rate, n) in rates.iter().cycle().zip(1..) {
        changes.push((Instant::now(), rate));
        refill.set_rate_now(rate, SECOND)?;
        while start.elapsed() < phase * n {
            if bucket.is_closed() {
                return Ok(changes);
            }
            refill.tick_now(bucket);
            thread::sleep(TICK);
        }
    }
    Ok(changes)
}

fn send(path: &Path, stream: &mut TcpStream, bucket: Option<&TokenBucket>) -> Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(bucket) = bucket {
            bucket.take_many(length).wait()?.forget();
        }
        stream.write_all(&block[..length])?;
    }
}

fn receive(listener: &TcpListener, in_all: u64) -> io::Result<Received> {
    let (mut stream, _) = listener.accept()?;
    let mut received = Received { bytes: Vec::new(), counts: vec![(Instant::now(), 0)] };
    let mut buffer = vec![0; BLOCK];
    let mut progress = Progress::new();
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(received);
        }
        received.bytes.extend_from_slice(&buffer[..length]);
        received.counts.push((Instant::now(), received.bytes.len()));
        progress.say(format_args!("{:.1} MiB of {:.1}", mib(received.bytes.len() as f64), mib(in_all as f64)));
    }
}

/// What the rates had yielded at that moment.
fn due(changes: &[(Instant, usize)], at: Instant) -> f64 {
    let ends = changes.iter().skip(1).map(|change| change.0.min(at)).chain([at]);
    changes.iter().zip(ends).map(|(&(begin, rate), end)| rate as f64 * end.saturating_duration_since(begin).as_secs_f64()).sum()
}

fn count_at(counts: &[(Instant, usize)], at: Instant) -> usize {
    let index = counts.partition_point(|count| count.0 <= at);
    index.checked_sub(1).map_or(0, |last| counts[last].1)
}

fn mib(bytes: f64) -> f64 {
    bytes / MIB as f64
}

/// A file of bytes that no one can mistake for others.
fn make_up(length: usize) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let mut state = 1_u64;
    let words = std::iter::from_fn(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((state >> 32) as u32)
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take(length).collect();
    file.write_all(&bytes)?;
    Ok(file)
}
