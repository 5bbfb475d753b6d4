//! Shared code of the example programs: options, checked claims and pictures, and what their tests use to run them.
//!
//! A program enables only the features it uses, so one without pictures does not compile the plotting code.

#[cfg(feature = "pictures")]
mod pictures;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "pictures")]
pub use pictures::{draw, palette};

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use token_bucket::TokenBucket;

/// Result of a program's functions: every error is printed.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Options that most of the programs have.
#[cfg(feature = "options")]
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Run for at most three seconds, with wide tolerances, for busy machines
    #[arg(long)]
    pub short: bool,
    /// Draw what happened as an SVG picture
    #[arg(long, value_name = "PATH")]
    pub svg: Option<std::path::PathBuf>,
}

/// Checks what a program claims.
#[derive(Debug, Default)]
pub struct Claims {
    failed: usize,
}

impl Claims {
    /// Prints the claim, and whether it holds.
    pub fn check(&mut self, holds: bool, claim: impl Display) {
        println!("{} {claim}", if holds { "ok    " } else { "FAILED" });
        self.failed += usize::from(!holds);
    }

    /// Returns success if all claims hold.
    #[must_use]
    pub fn verdict(&self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const BIN: u64 = 10;

/// Checks that the number of users of a limited resource never exceeds what its bucket allows. Call it under one lock, whenever that
/// number changes and at every resize.
///
/// A take finds its tokens in the bucket, so it never raises the number of outstanding tokens above the capacity in force. More are
/// outstanding only after a later shrink. Therefore, between two checks, there are at most as many users as the *ceiling*: the
/// capacity or, if that is larger, the number of outstanding tokens at the first of them.
#[derive(Debug)]
pub struct Monitor {
    start: Instant,
    ceiling: usize,
    most: usize,
    violation: Option<String>,
    history: History,
}

impl Monitor {
    /// Creates a monitor for a full bucket with this capacity.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { start: Instant::now(), ceiling: capacity, most: 0, violation: None, history: History::default() }
    }

    /// Call this after a resize.
    pub fn resized(&mut self, bucket: &TokenBucket) {
        let now = bucket.snapshot();
        self.ceiling = now.capacity.max(now.outstanding);
    }

    /// Call this after the number of users has changed.
    pub fn record(&mut self, bucket: &TokenBucket, users: usize) {
        let now = bucket.snapshot();
        if users > self.ceiling {
            self.violation.get_or_insert(format!("there were {users}, but at most {} were allowed: {now:?}", self.ceiling));
        }
        self.ceiling = now.capacity.max(now.outstanding);
        self.most = self.most.max(users);
        self.history.record(self.start.elapsed(), now.capacity, users);
    }

    /// Claims that there were never too many.
    pub fn check(&self, claims: &mut Claims, users: &str) {
        let Self { most, violation, .. } = self;
        let verdict = violation.as_deref().unwrap_or("never more than the limit in force when they got their tokens");
        claims.check(self.violation.is_none(), format_args!("at most {most} {users} at once; {verdict}"));
    }

    /// Returns lines of the limit and the users, from the start to `end`.
    #[must_use]
    pub fn lines(&self, limit: &'static str, users: &'static str, end: Duration) -> Vec<Line> {
        self.history.lines(limit, users, end)
    }
}

/// How the capacity and the number of users changed. For each bin of a few milliseconds: the last capacity, the largest number of users,
/// and the last one.
#[derive(Debug, Default)]
pub struct History(BTreeMap<u64, [usize; 3]>);

impl History {
    /// Records the state at this time.
    pub fn record(&mut self, at: Duration, capacity: usize, users: usize) {
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let bin = self.0.entry(at / BIN * BIN).or_default();
        *bin = [capacity, bin[1].max(users), users];
    }

    /// Returns lines of the capacity and the users, from the start to `end`.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    pub fn lines(&self, limit: &'static str, users: &'static str, end: Duration) -> Vec<Line> {
        let point = |at, number: usize| (Duration::from_millis(at), number as f64);
        let capacities = self.0.iter().map(|(&at, bin)| point(at, bin[0]));
        // In a gap between bins, the last number of users is still valid.
        let gaps = self.0.iter().map(|(&at, bin)| (at + BIN, bin[2])).filter(|(at, _)| !self.0.contains_key(at));
        let mut numbers: Vec<_> = self.0.iter().map(|(&at, bin)| (at, bin[1])).chain(gaps).collect();
        numbers.sort_unstable();
        let numbers = numbers.into_iter().map(|(at, number)| point(at, number));
        vec![Line::steps(Kind::Limit, limit, capacities, end).marked(), Line::steps(Kind::Use, users, numbers, end)]
    }
}

/// Prints progress to stderr, one line a second.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    lines: u32,
}

impl Default for Progress {
    fn default() -> Self {
        Self { start: Instant::now(), lines: 0 }
    }
}

impl Progress {
    /// Starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Prints a line if the next one is due. Call this much more often than that.
    pub fn print(&mut self, now: impl Display) {
        let passed = self.start.elapsed();
        if passed >= Duration::from_secs(1) * (self.lines + 1) {
            self.lines += 1;
            eprintln!("{:3.0} s: {now}", passed.as_secs_f64());
        }
    }
}

/// One of the charts in a picture.
#[derive(Debug)]
pub struct Chart {
    /// Title of the panel.
    pub title: &'static str,
    /// What the y axis counts or measures, with its unit.
    pub unit: &'static str,
    /// What happens at the changes that are marked, for the legend.
    pub change: &'static str,
    /// The last one is drawn on top.
    pub lines: Vec<Line>,
}

/// What a line shows. It has the same colour in every picture.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The limit in force.
    Limit,
    /// What uses the limit.
    Use,
    /// Refused requests.
    Refused,
    /// Latency.
    Latency,
    /// What a backend could do.
    Backend,
}

/// A line in a chart: numbers over seconds.
#[derive(Debug)]
#[cfg_attr(not(feature = "pictures"), expect(dead_code, reason = "they are for pictures"))]
pub struct Line {
    kind: Kind,
    name: &'static str,
    points: Vec<(f64, f64)>,
    changes: Vec<(f64, f64)>,
}

impl Line {
    /// A number that was measured at intervals.
    pub fn measured(kind: Kind, name: &'static str, points: impl IntoIterator<Item = (Duration, f64)>) -> Self {
        let points = points.into_iter().map(|(at, y)| (at.as_secs_f64(), y)).collect();
        Self { kind, name, points, changes: Vec::new() }
    }

    /// A number that stays the same until the next point, or to the end.
    pub fn steps(kind: Kind, name: &'static str, points: impl IntoIterator<Item = (Duration, f64)>, end: Duration) -> Self {
        let mut steps = Vec::<(f64, f64)>::new();
        for (at, y) in points {
            if let Some(&(_, before)) = steps.last() {
                steps.push((at.as_secs_f64(), before));
            }
            steps.push((at.as_secs_f64(), y));
        }
        steps.extend(steps.last().map(|&(_, y)| (end.as_secs_f64(), y)));
        Self { kind, name, points: steps, changes: Vec::new() }
    }

    /// Marks each change of the number, with its new value.
    #[must_use]
    pub fn marked(mut self) -> Self {
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        self.changes = pairs.filter(|(one, next)| one.1.to_bits() != next.1.to_bits()).map(|(_, next)| *next).collect();
        self
    }
}
