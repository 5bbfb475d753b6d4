//! A limit that finds itself: a controller steers the capacity of a bucket by the latency that it measures.
//!
//! ```sh
//! cargo run --release -p adaptive
//! ```
//!
//! A backend can work on so many requests at a time, and lets the others wait. Nobody tells the clients how many, and it changes; once it
//! stands still altogether. Two well-known controllers follow it, first in virtual time, where a run is the same every time, then in
//! real time. The bucket does the rest: a limit that is lowered takes effect at once, without a request being cut off.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "moderate numbers")]

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use example_support::{Chart, Claims, Common, Line, Progress, Result};
use token_bucket::TokenBucket;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

const CLIENTS: usize = 100;
const FIRST_LIMIT: usize = 10;

/// Steers a limit of requests in flight by their latency, against a backend whose capacity changes.
#[derive(Parser)]
#[command(name = "adaptive", after_help = "Exit status: 1 if a limit did not follow the capacity of the backend.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Leave the limit as it is, to see that it does not fit
    #[arg(long)]
    without_controller: bool,
}

/// What a controller learns in an interval.
#[derive(Clone, Copy)]
struct Sample {
    /// The median latency of the requests that have ended; infinite if none has, although some are in flight.
    latency: f64,
    /// The lowest such latency so far.
    base: f64,
    /// Whether the limit was reached. If not, there is no telling what a higher one would do.
    is_full: bool,
}

/// Finds the next limit. As a number with a fraction, so that small steps add up.
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

/// As much less as the latency is above the base, and room for a small queue, by which it finds out whether more would do.
fn gradient(limit: f64, sample: Sample) -> f64 {
    let gradient = (1.1 * sample.base / sample.latency).clamp(0.5, 1.0);
    let next = limit * gradient + if sample.is_full { limit.sqrt() / 2.0 } else { 0.0 };
    f64::midpoint(limit, next)
}

/// No request is ever sent to learn from if none may be sent.
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

/// What was so at the end of an interval.
struct Track {
    at: Duration,
    capacity: f64,
    limit: f64,
    in_flight: f64,
    latency: f64,
}

/// Lets all clients send what they can, in steps of one request, while the controller steers.
async fn run(plan: &Plan, controller: Controller, reports: bool) -> Result<Vec<Track>> {
    let limit = Rc::new(TokenBucket::new(10 * CLIENTS, FIRST_LIMIT)?);
    // It has places, and tokens for them.
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
                progress.say(format_args!("the backend can do {capacity}, the limit is {limit}, {in_flight} in flight"));
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
        [("aimd", aimd), ("gradient", gradient)]
    };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let mut simulated = Vec::new();
    for (name, controller) in controllers {
        let track = LocalSet::new().block_on(&runtime, run(&SIMULATED, controller, false))?;
        check(&mut claims, &format!("{name}, simulated"), &SIMULATED, &track, 0.5..=2.0);
        simulated.push(track);
    }

    // Real time is noisy; on a busy machine, which the short form may well run on, the backend can do less than it should.
    let (plan, bounds) = if options.common.short { (SHORT, 0.0..=4.0) } else { (REAL, 0.5..=2.0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let [(first, aimd), (second, gradient)] = controllers;
    let (one, two) =
        LocalSet::new().block_on(&runtime, async { tokio::join!(run(&plan, aimd, false), run(&plan, gradient, true)) });
    let real = [one?, two?];
    for (name, track) in [first, second].iter().zip(&real) {
        check(&mut claims, &format!("{name}, in real time"), &plan, track, bounds.clone());
    }

    if let Some(path) = &options.common.svg {
        let chart = |y, track: &[Track]| {
            let line = |number: fn(&Track) -> f64| track.iter().map(move |track| (track.at, number(track))).collect::<Vec<_>>();
            let lines = vec![
                Line::measured("what the backend can do", line(|track| track.capacity)),
                Line::measured("limit", line(|track| track.limit)),
                Line::measured("in flight", line(|track| track.in_flight)),
            ];
            Chart { y, lines }
        };
        let latency = |name, track: &[Track]| {
            // Where the backend stands still it is infinite.
            Line::measured(name, track.iter().map(|track| (track.at, (track.latency * 1000.0).min(60.0))).collect::<Vec<_>>())
        };
        let latencies = vec![latency("aimd", &simulated[0]), latency("gradient", &simulated[1])];
        let charts = [
            chart("aimd", &simulated[0]),
            chart("gradient", &simulated[1]),
            Chart { y: "latency, up to 60 ms", lines: latencies },
            chart("gradient, real time", &real[1]),
        ];
        example_support::draw(path, "Limits that follow the capacity of a backend", &charts)?;
    }
    Ok(claims.verdict())
}

/// Once a controller has had some time, its limit is near what the backend can do.
fn check(claims: &mut Claims, name: &str, plan: &Plan, track: &[Track], bounds: RangeInclusive<f64>) {
    let mut rest = track;
    for &(capacity, intervals) in plan.phases {
        let (phase, later) = rest.split_at(intervals);
        rest = later;
        let settled = &phase[intervals * 3 / 4..];
        let limit = settled.iter().map(|track| track.limit).sum::<f64>() / settled.len() as f64;
        let limit_text = format!("{name}: the limit is {limit:.1} where the backend can do {capacity}");
        if capacity > 0 {
            let ratio = limit / capacity as f64;
            claims.check(bounds.contains(&ratio), format_args!("{limit_text}, {bounds:?} times that is allowed"));
        } else {
            let is_paused = phase.iter().any(|track| track.limit < 1.0);
            claims.check(!is_paused && limit < FIRST_LIMIT as f64, format_args!("{limit_text}, and never 0"));
        }
    }
}
