//! What the example programs share: options, claims that are checked, and pictures; and how their tests run them.
//!
//! A program names the features that it uses, so that one without pictures does not compile what draws them.

#[cfg(feature = "pictures")]
mod pictures;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "pictures")]
pub use pictures::draw;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use token_bucket::TokenBucket;

/// What a program returns: whatever went wrong is printed.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Options that most of the programs have.
#[cfg(feature = "options")]
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Take three seconds at most, with wide bounds: for a machine that is busy with other things
    #[arg(long)]
    pub short: bool,
    /// Draw what happened
    #[arg(long, value_name = "PATH")]
    pub svg: Option<std::path::PathBuf>,
}

/// What a program claims, and whether it holds.
#[derive(Debug, Default)]
pub struct Claims {
    broken: usize,
}

impl Claims {
    /// Prints the claim, and whether it holds.
    pub fn check(&mut self, holds: bool, claim: impl Display) {
        println!("{} {claim}", if holds { "ok    " } else { "BROKEN" });
        self.broken += usize::from(!holds);
    }

    /// Success, if all claims hold.
    #[must_use]
    pub fn verdict(&self) -> ExitCode {
        if self.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const BIN: u64 = 10;

/// Watches how many use what a bucket limits, to be called under one lock whenever they become more or less, and at every resize.
///
/// A take finds its token in the bucket, so it never brings the tokens that are out above the capacity in force. More are out only
/// if a shrink came later. So from one look to the next, there are no more users than the *ceiling*: the capacity or, if
/// that is more, the tokens that were out at the first look.
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    ceiling: usize,
    most: usize,
    broken: Option<String>,
    notes: Notes,
}

impl Watch {
    /// For a bucket with this capacity, and all tokens in it.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { start: Instant::now(), ceiling: capacity, most: 0, broken: None, notes: Notes::default() }
    }

    /// After a resize.
    pub fn resized(&mut self, bucket: &TokenBucket) {
        let now = bucket.snapshot();
        self.ceiling = now.capacity.max(now.outstanding);
    }

    /// After the number of users has changed.
    pub fn look(&mut self, bucket: &TokenBucket, users: usize) {
        let now = bucket.snapshot();
        if users > self.ceiling {
            self.broken.get_or_insert(format!("there were {users}, but at most {} were allowed: {now:?}", self.ceiling));
        }
        self.ceiling = now.capacity.max(now.outstanding);
        self.most = self.most.max(users);
        self.notes.note(self.start.elapsed(), now.capacity, users);
    }

    /// Claims that there were never too many.
    pub fn check(&self, claims: &mut Claims, users: &str) {
        let Self { most, broken, .. } = self;
        let broken = broken.as_deref().unwrap_or("never more than were allowed when they got their tokens");
        claims.check(self.broken.is_none(), format_args!("{most} {users} at most; {broken}"));
    }

    /// The capacity and the users, from the start to `end`.
    #[must_use]
    pub fn lines(&self, users: &'static str, end: Duration) -> Vec<Line> {
        self.notes.lines(users, end)
    }
}

/// How many there were of what is limited: in each bin of milliseconds, the last capacity, the most users, and the last ones.
#[derive(Debug, Default)]
pub struct Notes(BTreeMap<u64, [usize; 3]>);

impl Notes {
    /// What there is at this time.
    pub fn note(&mut self, at: Duration, capacity: usize, users: usize) {
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let note = self.0.entry(at / BIN * BIN).or_default();
        *note = [capacity, note[1].max(users), users];
    }

    /// The capacity and the users, from the start to `end`.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    pub fn lines(&self, users: &'static str, end: Duration) -> Vec<Line> {
        let point = |at, number: usize| (Duration::from_millis(at), number as f64);
        let capacities = self.0.iter().map(|(&at, note)| point(at, note[0]));
        // Where nothing happens for a while, the last number of users stays.
        let lasts = self.0.iter().map(|(&at, note)| (at + BIN, note[2])).filter(|(at, _)| !self.0.contains_key(at));
        let mut numbers: Vec<_> = self.0.iter().map(|(&at, note)| (at, note[1])).chain(lasts).collect();
        numbers.sort_unstable();
        let numbers = numbers.into_iter().map(|(at, number)| point(at, number));
        vec![Line::set("capacity", capacities, end), Line::set(users, numbers, end)]
    }
}

/// Lines on stderr, one a second.
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
    /// That starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// To be called much more often than that.
    pub fn say(&mut self, now: impl Display) {
        let passed = self.start.elapsed();
        if passed >= Duration::from_secs(1) * (self.lines + 1) {
            self.lines += 1;
            eprintln!("{:3.0} s: {now}", passed.as_secs_f64());
        }
    }
}

/// One of the charts in a picture, which share their x axis.
#[derive(Debug)]
pub struct Chart {
    /// What the y axis shows.
    pub y: &'static str,
    /// Up to four.
    pub lines: Vec<Line>,
}

/// A line in a chart: numbers over seconds.
#[derive(Debug)]
#[cfg_attr(not(feature = "pictures"), expect(dead_code, reason = "they are for pictures"))]
pub struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// A number that was measured now and then.
    pub fn measured(name: &'static str, points: impl IntoIterator<Item = (Duration, f64)>) -> Self {
        let points = points.into_iter().map(|(at, y)| (at.as_secs_f64(), y)).collect();
        Self { name, points }
    }

    /// A number that was set, and stays until it is set again, or to the end.
    pub fn set(name: &'static str, points: impl IntoIterator<Item = (Duration, f64)>, end: Duration) -> Self {
        let mut steps = Vec::<(f64, f64)>::new();
        for (at, y) in points {
            if let Some(&(_, before)) = steps.last() {
                steps.push((at.as_secs_f64(), before));
            }
            steps.push((at.as_secs_f64(), y));
        }
        steps.extend(steps.last().map(|&(_, y)| (end.as_secs_f64(), y)));
        Self { name, points: steps }
    }
}
