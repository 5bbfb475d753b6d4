//! Draws the shares, the jobs in progress, and the events.

use std::path::Path;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use example_support::palette;

use crate::board::{SAMPLE, Sample, State};
use crate::{LIMIT, Result};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (800, 556);
const CHART_HEIGHT: u32 = 430;
// Plotters draws letters at four fifths of these.
const LARGE_FONT: u32 = 23;
const FONT: u32 = 17;
/// Colours of the shares. They differ from those of the other pictures' lines, and neighbours differ from each other.
const MEMBERS: [(char, RGBColor); 5] = [
    ('A', RGBColor(150, 150, 150)),
    ('B', RGBColor(86, 180, 233)),
    ('C', RGBColor(230, 159, 0)),
    ('D', RGBColor(240, 228, 66)),
    ('E', RGBColor(190, 190, 190)),
];
/// How many samples make a point of a line.
const BIN: usize = 4;

pub(crate) fn draw(path: &Path, state: &State, events: &[(Duration, &'static str)]) -> Result<()> {
    let bins = bins(state);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("Processes share a limit of {LIMIT} jobs at a time through Redis");
    area.draw(&Text::new(title, (i32::try_from(SIZE.0 / 2)?, 20), text(LARGE_FONT, HPos::Center)))?;
    let (upper, lower) = area.split_vertically(CHART_HEIGHT);
    draw_chart(&upper, &bins, events)?;
    draw_key(&lower, events)?;
    area.present()?;
    Ok(())
}

/// One state for each bin, even if no sample was recorded in it because nothing changed.
fn bins(state: &State) -> Vec<Sample> {
    let mut now = Sample::default();
    let end = state.samples.keys().next_back().copied().unwrap_or(0);
    let samples: Vec<_> = (0..=end)
        .map(|at| {
            now.most = now.last;
            now = state.samples.get(&at).unwrap_or(&now).clone();
            now.clone()
        })
        .collect();
    let bin =
        |bin: &[Sample]| Sample { most: bin.iter().map(|sample| sample.most).max().unwrap_or(0), ..bin[bin.len() - 1].clone() };
    samples.chunks(BIN).map(bin).collect()
}

fn draw_chart(area: &Area<'_>, bins: &[Sample], events: &[(Duration, &'static str)]) -> Result<()> {
    let top = number(LIMIT) + 2.0;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_top(58)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..time(bins.len()), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("time (seconds)")
        .y_desc("jobs at a time")
        .y_labels(7)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(text(FONT - 1, HPos::Center))
        .axis_desc_style(text(FONT, HPos::Center))
        .draw()?;

    // The shares, stacked.
    let mut base = vec![0; bins.len()];
    for (name, colour) in MEMBERS {
        let shares: Vec<_> = bins.iter().map(|bin| bin.capacities.get(&name).copied().unwrap_or(0)).collect();
        let bands: Vec<_> = shares.iter().zip(&base).map(|(share, base)| (*base, base + share)).collect();
        for (start, band) in runs(&bands, |a, b| (a.0 < a.1) == (b.0 < b.1)).filter(|(_, band)| band[0].0 < band[0].1) {
            let mut outline = steps(start, band.iter().map(|band| band.1));
            outline.extend(steps(start, band.iter().map(|band| band.0)).into_iter().rev());
            chart.draw_series([Polygon::new(outline, colour.mix(0.6))])?;
        }
        // The name goes where the share is large for the longest time.
        if let Some((start, band)) = runs(&bands, |a, b| a == b).max_by_key(|(_, band)| band.len() * (band[0].1 - band[0].0).min(8))
        {
            let centre =
                (f64::midpoint(time(start), time(start + band.len())), f64::midpoint(number(band[0].0), number(band[0].1)));
            chart.draw_series([Text::new(name.to_string(), centre, text(FONT + 4, HPos::Center))])?;
        }
        base = bands.iter().map(|band| band.1).collect();
    }

    chart.draw_series([PathElement::new(steps(0, bins.iter().map(|bin| bin.most)), palette::USE.stroke_width(2))])?;
    let limit = [(0.0, number(LIMIT)), (time(bins.len()), number(LIMIT))];
    chart.draw_series([PathElement::new(limit, palette::LIMIT.stroke_width(4))])?;
    for (i, (at, _)) in events.iter().enumerate() {
        let x = at.as_secs_f64();
        chart.draw_series([PathElement::new([(x, 0.0), (x, top)], palette::INK.mix(0.6).stroke_width(1))])?;
        let marker = EmptyElement::at((x, top)) + Text::new((i + 1).to_string(), (0, -10), text(FONT - 1, HPos::Center));
        chart.plotting_area().draw(&marker)?;
    }
    Ok(())
}

/// Explains the numbers and the colours.
fn draw_key(area: &Area<'_>, events: &[(Duration, &'static str)]) -> Result<()> {
    let line = |n: usize| i32::try_from(n * 23 + 12);
    for (i, (_, event)) in events.iter().enumerate() {
        let rows = events.len().div_ceil(2);
        let x = if i < rows { 14 } else { 240 };
        area.draw(&Text::new(format!("{}: {event}", i + 1), (x, line(i % rows)?), text(FONT, HPos::Left)))?;
    }
    let x = 610;
    area.draw(&PathElement::new([(x, line(0)?), (x + 24, line(0)?)], palette::LIMIT.stroke_width(4)))?;
    area.draw(&PathElement::new([(x, line(1)?), (x + 24, line(1)?)], palette::USE.stroke_width(2)))?;
    for (i, (_, colour)) in (0_i32..).zip(MEMBERS) {
        let left = x + i * 5;
        area.draw(&Rectangle::new([(left, line(2)? - 7), (left + 5, line(2)? + 7)], colour.mix(0.6).filled()))?;
    }
    for (i, name) in ["limit", "jobs in progress", "shares, stacked"].into_iter().enumerate() {
        area.draw(&Text::new(name, (x + 32, line(i)?), text(FONT, HPos::Left)))?;
    }
    Ok(())
}

fn text(size: u32, at: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&palette::INK).pos(Pos::new(at, VPos::Center))
}

/// Runs of neighbours that belong together, with the index of the first.
fn runs<T>(items: &[T], belong: impl FnMut(&T, &T) -> bool) -> impl Iterator<Item = (usize, &[T])> {
    items.chunk_by(belong).scan(0, |next, run| {
        let start = *next;
        *next += run.len();
        Some((start, run))
    })
}

/// A line that stays at each number until the next, beginning at some bin.
fn steps(start: usize, numbers: impl Iterator<Item = usize>) -> Vec<(f64, f64)> {
    let numbers: Vec<_> = numbers.collect();
    let levels = runs(&numbers, |a, b| a == b);
    levels.flat_map(|(at, run)| [at, at + run.len()].map(|at| (time(start + at), number(run[0])))).collect()
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn number(n: usize) -> f64 {
    n as f64
}

fn time(bin: usize) -> f64 {
    number(bin * BIN) * SAMPLE.as_secs_f64()
}
