//! Sends a file through TCP at a rate that changes on the way.
//!
//! ```sh
//! cargo run --release -p shaper -- FILE
//! ```
//!
//! A token is a byte. Before each write, the sender waits until a [`RateLimiter`] grants as many tokens as there are bytes. Another thread
//! changes the rate from phase to phase. The receiver, at the other end of a connection over the loopback interface, measures the rate.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "moderate numbers")]

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Kind, Line, Progress, Result};
use sha2::{Digest as _, Sha256};
use token_bucket::RateLimiter;

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
/// How many bytes are written at a time. More than the burst are never granted at once.
const BLOCK: usize = 16 << 10;
const BURST: usize = MIB / 4;
const BLINK: Duration = Duration::from_millis(5);
/// Bytes per second, phase by phase. After the last one, the first one follows again.
const RATES: [usize; 3] = [8 * MIB, 2 * MIB, 16 * MIB];

/// Sends a file through TCP at a rate that changes on the way, and measures the rate at the receiver.
#[derive(Parser)]
#[command(name = "shaper", after_help = "Exit status: 1 if the file arrived damaged, or not at the rates that were set.")]
struct Options {
    /// The file to send [default: generated, large enough for all phases]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Send without the limiter, to see how fast that is
    #[arg(long)]
    without_limiter: bool,
}

/// The received bytes, and how many there were at which time.
struct Received {
    bytes: Vec<u8>,
    counts: Vec<(Instant, usize)>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    // A busy machine sends less. Only the short mode allows for that.
    let (phase, scale, less, more) = if options.common.short { (SECOND * 3 / 5, 4, 0.9, 0.5) } else { (SECOND * 2, 1, 0.05, 0.05) };
    let rates = RATES.map(|rate| rate / scale);
    let generated;
    let path: &Path = if let Some(path) = &options.file {
        path
    } else {
        generated = generate(rates.iter().map(|&rate| (rate as f64 * phase.as_secs_f64()) as usize).sum())?;
        generated.path()
    };
    let length = path.metadata()?.len();

    // The thread that changes the rates sets the first one as well, so that it knows when.
    let limiter = RateLimiter::new(0, SECOND, BURST)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let start = Instant::now();
    let (received, changes) = thread::scope(|scope| -> Result<_> {
        let changer = scope.spawn(|| change_rates(&limiter, &rates, phase));
        let receiver = scope.spawn(|| receive(&listener, length));
        let sent = send(path, &mut stream, (!options.without_limiter).then_some(&limiter));
        // Ends the other threads, even after an error.
        limiter.close();
        stream.shutdown(Shutdown::Both)?;
        let received = receiver.join().expect("no panic")?;
        sent?;
        Ok((received, changer.join().expect("no panic")?))
    })?;

    let mut claims = Claims::default();
    let sum = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let (length, sum, sent) = (received.bytes.len(), sum(&received.bytes), sum(&fs::read(path)?));
    claims.check(sum == sent, format_args!("{length} bytes arrived undamaged, SHA-256 {sum}"));

    // The limiter guarantees this at every moment, even on a busy machine.
    let ahead = received.counts.iter().map(|&(at, count)| count as f64 - due(&changes, at)).fold(0.0, f64::max);
    claims.check(
        ahead <= BURST as f64 + 1.0,
        format_args!("never more than a burst ahead of the rate: at most {:.0} KiB of {}", ahead / 1024.0, BURST / 1024),
    );

    let end = received.counts.last().ok_or("nothing was received")?.0;
    for (index, &(begin, rate)) in changes.iter().enumerate() {
        let stop = changes.get(index + 1).map_or(end, |next| next.0.min(end));
        // The first third is left out, as bytes of the phase before may arrive late. The last phase may be cut short.
        let begin = begin + phase / 3;
        let length = stop.saturating_duration_since(begin);
        if length >= phase / 3 {
            let measured = (count_at(&received.counts, stop) - count_at(&received.counts, begin)) as f64 / length.as_secs_f64();
            let claim = format!("phase {}: {:.2} MiB/s set, {:.2} measured", index + 1, mib(rate as f64), mib(measured));
            claims.check(
                (1.0 - less..=1.0 + more).contains(&(measured / rate as f64)),
                format_args!("{claim} (tolerance −{:.0}% and +{:.0}%)", less * 100.0, more * 100.0),
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
        let lines = vec![
            Line::steps(Kind::Limit, "rate limit", set, end - start).marked(),
            Line::measured(Kind::Use, "rate measured by the receiver", measured),
        ];
        let chart = Chart { title: "Rate of a TCP connection", unit: "MiB per second", change: "limit changed", lines };
        example_support::draw(path, "Sending a file at a rate that changes on the way", &[chart], &[])?;
    }
    Ok(claims.verdict())
}

/// Changes the rate until the limiter is closed. Returns when which rate came into force.
fn change_rates(limiter: &RateLimiter, rates: &[usize], phase: Duration) -> Result<Vec<(Instant, usize)>> {
    let start = Instant::now();
    let mut changes: Vec<(Instant, usize)> = Vec::new();
    for (&rate, n) in rates.iter().cycle().zip(1..) {
        let before = Instant::now();
        limiter.set_rate(rate, SECOND)?;
        // The moment is not known exactly: of the two rates, assume the higher one.
        let is_raised = changes.last().is_none_or(|&(_, last)| rate > last);
        changes.push((if is_raised { before } else { Instant::now() }, rate));
        while start.elapsed() < phase * n {
            if limiter.is_closed() {
                return Ok(changes);
            }
            thread::sleep(BLINK);
        }
    }
    Ok(changes)
}

fn send(path: &Path, stream: &mut TcpStream, limiter: Option<&RateLimiter>) -> Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(limiter) = limiter {
            limiter.wait(length)?;
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
        progress.print(format_args!("{:.1} of {:.1} MiB received", mib(received.bytes.len() as f64), mib(in_all as f64)));
    }
}

/// How many bytes the rates allowed until that moment.
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

/// Creates a file of pseudo-random bytes.
fn generate(length: usize) -> io::Result<tempfile::NamedTempFile> {
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
