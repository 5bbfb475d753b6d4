//! What the examples share: options, claims that are checked, and pictures.
#![allow(dead_code, unreachable_pub, reason = "each example uses a part of it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use plotters::prelude::*;
use token_bucket::TokenBucket;

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Options that every example has.
#[derive(clap::Args)]
pub struct Common {
    /// Take three seconds at most, with wide bounds: for a machine that is busy with other things
    #[arg(long)]
    pub short: bool,
    /// Draw what happened
    #[arg(long, value_name = "PATH")]
    pub svg: Option<PathBuf>,
}

/// What an example claims, and whether it holds.
#[derive(Default)]
pub struct Claims {
    broken: usize,
}

impl Claims {
    pub fn check(&mut self, holds: bool, claim: impl Display) {
        println!("{} {claim}", if holds { "ok    " } else { "BROKEN" });
        self.broken += usize::from(!holds);
    }

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
pub struct Watch {
    start: Instant,
    ceiling: usize,
    most: usize,
    broken: Option<String>,
    notes: Notes,
}

impl Watch {
    pub fn new(capacity: usize) -> Self {
        Self { start: Instant::now(), ceiling: capacity, most: 0, broken: None, notes: Notes::default() }
    }

    pub fn resized(&mut self, bucket: &TokenBucket) {
        let now = bucket.snapshot();
        self.ceiling = now.capacity.max(now.outstanding);
    }

    pub fn look(&mut self, bucket: &TokenBucket, users: usize) {
        let now = bucket.snapshot();
        if users > self.ceiling {
            self.broken.get_or_insert(format!("there were {users}, but at most {} were allowed: {now:?}", self.ceiling));
        }
        self.ceiling = now.capacity.max(now.outstanding);
        self.most = self.most.max(users);
        self.notes.note(self.start.elapsed(), now.capacity, users);
    }

    pub fn check(&self, claims: &mut Claims, users: &str) {
        let Self { most, broken, .. } = self;
        let broken = broken.as_deref().unwrap_or("never more than were allowed when they got their tokens");
        claims.check(self.broken.is_none(), format_args!("{most} {users} at most; {broken}"));
    }

    pub fn lines(&self, users: &'static str, end: Duration) -> Vec<Line> {
        self.notes.lines(users, end)
    }
}

/// How many there were of what is limited: in each bin of milliseconds, the last capacity, the most users, and the last ones.
#[derive(Default)]
pub struct Notes(BTreeMap<u64, [usize; 3]>);

impl Notes {
    pub fn note(&mut self, at: Duration, capacity: usize, users: usize) {
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let note = self.0.entry(at / BIN * BIN).or_default();
        *note = [capacity, note[1].max(users), users];
    }

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
pub struct Progress {
    start: Instant,
    lines: u32,
}

impl Progress {
    pub fn new() -> Self {
        Self { start: Instant::now(), lines: 0 }
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
pub struct Chart {
    pub y: &'static str,
    pub lines: Vec<Line>,
}

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

const WIDTH: u32 = 760;
const HEIGHT: u32 = 260;
const COLOURS: [RGBColor; 4] = [RGBColor(200, 60, 40), RGBColor(40, 90, 170), RGBColor(60, 140, 80), RGBColor(140, 90, 160)];

/// Draws charts of numbers over seconds, one above the other.
pub fn draw(path: &Path, title: &str, charts: &[Chart]) -> Result<()> {
    let height = (HEIGHT - if charts.len() > 1 { 60 } else { 0 }) * u32::try_from(charts.len())? + 30;
    {
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(title, ("sans-serif", 18))?;
        for (area, chart) in area.split_evenly((charts.len(), 1)).iter().zip(charts) {
            draw_chart(area, chart)?;
        }
        area.present()?;
    }
    eprintln!("{} drawn", path.display());
    Ok(())
}

fn draw_chart(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, chart: &Chart) -> Result<()> {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let right = points().map(|&(x, _)| x).fold(0.0, f64::max);
    let top = points().map(|&(_, y)| y).fold(0.0, f64::max) * 1.4;
    let mut chart_area = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top.max(1.0))?;
    chart_area
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds")
        .y_desc(chart.y)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (line, colour) in chart.lines.iter().zip(COLOURS) {
        // A point where there is a pixel for it.
        let mut points: Vec<(f64, f64)> = Vec::new();
        for &(x, y) in &line.points {
            if points.last().is_none_or(|last| last.1.to_bits() != y.to_bits() || x - last.0 > right / f64::from(WIDTH)) {
                points.push((x, y));
            }
        }
        chart_area
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart_area
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 13))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
