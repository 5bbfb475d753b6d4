//! An adaptive concurrency limit: a controller sets the capacity of a bucket, driven only by the latency that it measures.
//!
//! ```sh
//! cargo run --release -p adaptive
//! ```
//!
//! A backend processes a certain number of requests at a time, and queues the others. The clients do not know this number, and it
//! changes; once, the backend stops altogether. Two well-known controllers follow it, first in simulated time, in which every run
//! is the same, then in real time. The bucket makes it simple: a lower limit takes effect at once, and no request is cut off.
//!
//! **The limit overshoots**, and it must: a controller that sees only latency learns that the limit is too high only when requests
//! queue in the backend. Every request takes the same time here, so the median latency rises when more than half of the requests
//! must queue, which is when the limit is about 1.5 times what the backend can process. The controller then lowers the limit, and
//! tries again.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "moderate numbers")]

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use example_support::{Chart, Claims, Common, Kind, Line, Progress, Result};
use token_bucket::TokenBucket;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

const CLIENTS: usize = 100;
const FIRST_LIMIT: usize = 10;

/// Adapts a concurrency limit to a backend whose capacity changes, driven only by latency.
#[derive(Parser)]
#[command(name = "adaptive", after_help = "Exit status: 1 if a limit did not follow the capacity of the backend.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Keep the first limit, to see that it does not fit
    #[arg(long)]
    without_controller: bool,
}

/// What a controller measures in an interval.
#[derive(Clone, Copy)]
struct Sample {
    /// The median latency of the completed requests; infinite if none has completed although some are in flight.
    latency: f64,
    /// The lowest median so far.
    base: f64,
    /// Whether the limit was reached. If not, a higher one would change nothing.
    is_full: bool,
}

/// Returns the next limit. It has a fraction so that small steps add up.
type Controller = fn(f64, Sample) -> f64;

/// Additive increase, multiplicative decrease.
fn aimd(limit: f64, sample: Sample) -> f64 {
    if sample.latency > 1.5 * sample.base {
        limit * 0.8
    } else if sample.is_full {
        limit + 1.0
    } else {
        limit
    }
}

/// Lowers the limit in proportion to the rise of the latency above its base, and adds room for a small queue, to find out whether
/// more is possible.
fn gradient(limit: f64, sample: Sample) -> f64 {
    let gradient = (1.1 * sample.base / sample.latency).clamp(0.5, 1.0);
    let next = limit * gradient + if sample.is_full { limit.sqrt() / 2.0 } else { 0.0 };
    f64::midpoint(limit, next)
}

/// At a limit of 0, no request would be sent, and nothing could be measured.
const LOWEST: f64 = 1.0;

struct Plan {
    service: Duration,
    interval: Duration,
    /// The capacities of the backend, and for how many intervals each.
    phases: &'static [(usize, usize)],
}

const SIMULATED: Plan = Plan {
    service: Duration::from_millis(10),
    interval: Duration::from_millis(100),
    phases: &[(32, 60), (10, 30), (0, 20), (16, 40)],
};
const REAL: Plan = Plan { phases: &[(16, 30), (4, 30), (0, 5), (10, 40)], ..SIMULATED };
const SHORT: Plan =
    Plan { service: Duration::from_millis(5), interval: Duration::from_millis(50), phases: &[(8, 14), (2, 12), (0, 2), (8, 16)] };

/// The state at the end of an interval.
struct Track {
    at: Duration,
    capacity: f64,
    limit: f64,
    in_flight: f64,
    latency: f64,
}

/// Lets each client send one request after another, while the controller adapts the limit.
async fn run(plan: &Plan, controller: Controller, reports: bool) -> Result<Vec<Track>> {
    let limit = Rc::new(TokenBucket::new(10 * CLIENTS, FIRST_LIMIT)?);
    // The backend is simulated by a bucket of its own.
    let backend = Rc::new(TokenBucket::new(CLIENTS, plan.phases[0].0)?);
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (limit, backend, latencies, service) = (limit.clone(), backend.clone(), latencies.clone(), plan.service);
            tokio::task::spawn_local(async move {
                while let Ok(_token) = limit.take().await {
                    let start = Instant::now();
                    let Ok(_place) = backend.take().await else { return };
                    sleep(service).await;
                    latencies.borrow_mut().push(start.elapsed().as_secs_f64());
                }
            })
        })
        .collect();

    let (start, mut at, mut wanted, mut base) = (Instant::now(), Duration::ZERO, FIRST_LIMIT as f64, f64::INFINITY);
    let (mut track, mut progress) = (Vec::new(), Progress::new());
    for &(capacity, intervals) in plan.phases {
        backend.set_capacity(capacity)?;
        for _ in 0..intervals {
            at += plan.interval;
            sleep_until(start + at).await;
            let mut latencies = latencies.take();
            latencies.sort_by(f64::total_cmp);
            let now = limit.snapshot();
            let latency = latencies.get(latencies.len() / 2).copied().unwrap_or(f64::INFINITY);
            base = base.min(latency);
            let sample = Sample { latency, base, is_full: now.available == 0 };
            wanted = controller(wanted, sample).clamp(LOWEST, CLIENTS as f64);
            let now = limit.set_capacity(wanted.round() as usize)?;
            let [capacity, limit, in_flight] = [capacity, now.capacity, now.outstanding].map(|number| number as f64);
            track.push(Track { at, capacity, limit, in_flight, latency });
            if reports {
                progress.print(format_args!("the backend capacity {capacity}, limit {limit}, {in_flight} in flight"));
            }
        }
    }
    limit.close();
    backend.close();
    for client in clients {
        client.await?;
    }
    Ok(track)
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut claims = Claims::default();
    let controllers: [(&str, Controller); 2] = if options.without_controller {
        [("no controller", |limit, _| limit); 2]
    } else {
        [("AIMD", aimd), ("gradient", gradient)]
    };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let mut simulated = Vec::new();
    for (name, controller) in controllers {
        let track = LocalSet::new().block_on(&runtime, run(&SIMULATED, controller, false))?;
        check(&mut claims, &format!("{name}, simulated time"), &SIMULATED, &track, 0.5..=2.0);
        simulated.push(track);
    }

    // Real time is noisy. On a busy machine, where the short mode may run, the backend achieves less than its capacity.
    let (plan, bounds) = if options.common.short { (SHORT, 0.0..=4.0) } else { (REAL, 0.5..=2.0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let [(first, aimd), (second, gradient)] = controllers;
    let (one, two) =
        LocalSet::new().block_on(&runtime, async { tokio::join!(run(&plan, aimd, false), run(&plan, gradient, true)) });
    let real = [one?, two?];
    for (name, track) in [first, second].iter().zip(&real) {
        check(&mut claims, &format!("{name}, real time"), &plan, track, bounds.clone());
    }

    if let Some(path) = &options.common.svg {
        draw(path, &simulated, &real[1])?;
    }
    Ok(claims.verdict())
}

fn draw(path: &Path, simulated: &[Vec<Track>], real: &[Track]) -> Result<()> {
    let points =
        |track: &[Track], number: fn(&Track) -> f64| track.iter().map(|track| (track.at, number(track))).collect::<Vec<_>>();
    let limits = |title, track: &[Track]| {
        let end = track.last().map_or(Duration::ZERO, |last| last.at);
        let lines = vec![
            Line::measured(Kind::Limit, "limit", points(track, |track| track.limit)),
            Line::measured(Kind::Use, "in flight", points(track, |track| track.in_flight)),
            Line::steps(Kind::Backend, "backend capacity", points(track, |track| track.capacity), end).marked(),
        ];
        Chart { title, unit: "requests", change: "backend changed", lines }
    };
    let latency = |title, track: &[Track]| {
        // While the backend is stopped, it is infinite.
        let latency = Line::measured(Kind::Latency, "median latency", points(track, |track| (track.latency * 1000.0).min(60.0)));
        Chart { title, unit: "milliseconds", change: "", lines: vec![latency] }
    };
    let charts = [
        limits("AIMD: additive increase, multiplicative decrease (simulated time)", &simulated[0]),
        latency("AIMD: latency, cut off at 60 ms", &simulated[0]),
        limits("Gradient (simulated time)", &simulated[1]),
        latency("Gradient: latency, cut off at 60 ms", &simulated[1]),
        limits("Gradient (real time, with another sequence of backend capacities)", real),
    ];
    let notes = [
        "Why the limit overshoots: a controller sees only latency, and the median rises only when more than half",
        "of the requests queue in the backend, that is, when the limit is 1.5 times the backend capacity.",
        "Only then does the controller lower the limit.",
    ];
    example_support::draw(path, "Adaptive limits that follow a backend, driven only by latency", &charts, &notes)
}

/// Checks that the limit is near the capacity of the backend in the last quarter of each phase.
fn check(claims: &mut Claims, name: &str, plan: &Plan, track: &[Track], bounds: RangeInclusive<f64>) {
    let mut rest = track;
    for &(capacity, intervals) in plan.phases {
        let (phase, later) = rest.split_at(intervals);
        rest = later;
        let settled = &phase[intervals * 3 / 4..];
        let limit = settled.iter().map(|track| track.limit).sum::<f64>() / settled.len() as f64;
        let limit_text = format!("{name}: limit {limit:.1} at a backend capacity of {capacity}");
        if capacity > 0 {
            let ratio = limit / capacity as f64;
            claims.check(bounds.contains(&ratio), format_args!("{limit_text}, allowed ratios are {bounds:?}"));
        } else {
            let is_paused = phase.iter().any(|track| track.limit < 1.0);
            claims.check(!is_paused && limit < FIRST_LIMIT as f64, format_args!("{limit_text}, and never 0 itself"));
        }
    }
}
