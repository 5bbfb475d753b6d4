//! Charts of numbers over seconds, drawn as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Chart, Kind, Line, Result};

/// The palette of Okabe and Ito, which colour-blind readers can tell apart. Each colour means the same in every picture.
pub mod palette {
    use plotters::style::RGBColor;

    /// The limit in force: a capacity, or a rate.
    pub const LIMIT: RGBColor = RGBColor(213, 94, 0);
    /// What uses the limit: tasks in flight, open connections, requests served.
    pub const USE: RGBColor = RGBColor(0, 114, 178);
    /// Refused requests.
    pub const REFUSED: RGBColor = RGBColor(204, 121, 167);
    /// Latency.
    pub const LATENCY: RGBColor = RGBColor(0, 158, 115);
    /// What a backend could do, which the limit must find out.
    pub const BACKEND: RGBColor = RGBColor(0, 0, 0);
    /// Text and axes.
    pub const INK: RGBColor = RGBColor(40, 40, 40);
    /// The moments at which something was changed.
    pub const MARK: RGBColor = RGBColor(170, 170, 170);
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

// In pixels.
const WIDTH: u32 = 800;
const TITLE: u32 = 36;
const PANEL: u32 = 244;
const SMALL_PANEL: u32 = 212;
const NOTE: u32 = 21;
const LEFT: u32 = 66;
const ROW: i32 = 20;
// Plotters draws letters at four fifths of these.
const LARGE_FONT: u32 = 23;
const FONT: u32 = 17;
/// Roughly the width of a character.
const CHARACTER: f64 = 7.0;
/// More changes than this are marked by short ticks.
const LONG_MARKS: usize = 30;

/// Draws charts one above the other, with notes below them.
///
/// # Errors
///
/// If the file cannot be written.
pub fn draw(path: &Path, title: &str, charts: &[Chart], notes: &[&str]) -> Result<()> {
    let panel = if charts.len() > 3 { SMALL_PANEL } else { PANEL };
    let panels = panel * u32::try_from(charts.len())?;
    let height = TITLE + panels + NOTE * u32::try_from(notes.len())? + 8;
    {
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        // Opaque, for pages with a dark background.
        area.fill(&WHITE)?;
        area.draw(&Text::new(title, (i32::try_from(WIDTH / 2)?, 20), text(LARGE_FONT, HPos::Center)))?;
        let (_, below) = area.split_vertically(TITLE);
        let (panels, below) = below.split_vertically(panels);
        for (area, chart) in panels.split_evenly((charts.len(), 1)).iter().zip(charts) {
            draw_chart(area, chart)?;
        }
        for (i, note) in (0..).zip(notes) {
            below.draw(&Text::new(*note, (14, 10 + i * i32::try_from(NOTE)?), text(FONT, HPos::Left)))?;
        }
        area.present()?;
    }
    eprintln!("picture written to {}", path.display());
    Ok(())
}

fn draw_chart(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let right = points().map(|&(x, _)| x).fold(0.0, f64::max);
    let top = points().map(|&(_, y)| y).fold(0.0, f64::max) * 1.05;
    area.draw(&Text::new(chart.title, (i32::try_from(LEFT)?, 10), text(FONT, HPos::Left).color(&BLACK)))?;
    draw_legend(area, chart)?;
    let mut plot = ChartBuilder::on(area)
        .margin(8)
        .margin_top(2 * ROW + 18)
        .x_label_area_size(42)
        .y_label_area_size(LEFT - 8)
        .build_cartesian_2d(0.0..right, 0.0..top.max(1.0))?;
    plot.configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(palette::MARK.mix(0.4))
        .axis_style(palette::INK)
        .x_desc("time (seconds)")
        .y_desc(chart.unit)
        .y_labels(5)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style(text(FONT - 1, HPos::Center))
        .axis_desc_style(text(FONT, HPos::Center))
        .draw()?;
    let changes: Vec<_> = chart.lines.iter().flat_map(|line| &line.changes).copied().collect();
    mark(area, &mut plot, &changes, top)?;
    for line in &chart.lines {
        let (colour, width) = looks(line);
        plot.draw_series(LineSeries::new(thinned(line, right), colour.stroke_width(width)))?;
    }
    Ok(())
}

/// Draws the names of the lines in a row above the plot, where they hide nothing.
fn draw_legend(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let lines = chart.lines.iter().map(|line| (looks(line), line.name.to_owned()));
    let mark = chart.lines.iter().any(|line| !line.changes.is_empty());
    let mark = mark.then(|| ((palette::MARK, 1), format!("{} (new value above)", chart.change)));
    let (mut x, y) = (i32::try_from(LEFT)?, ROW + 10);
    for ((colour, width), name) in lines.chain(mark) {
        area.draw(&PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(width)))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "pixels")]
        let length = (name.chars().count() as f64 * CHARACTER) as i32;
        area.draw(&Text::new(name, (x + 30, y), text(FONT, HPos::Left)))?;
        x += 30 + length + 20;
    }
    Ok(())
}

/// Marks the moments of changes by vertical lines, with the new values above them where there is room.
fn mark(area: &Area<'_>, plot: &mut Plot<'_, '_>, changes: &[(f64, f64)], top: f64) -> Result<()> {
    let bottom = if changes.len() > LONG_MARKS { top * 0.93 } else { 0.0 };
    let mut free_from = 0;
    for &(x, value) in changes {
        plot.draw_series([PathElement::new([(x, bottom), (x, top)], palette::MARK.stroke_width(1))])?;
        let (pixel, y) = plot.backend_coord(&(x, top));
        if pixel >= free_from {
            // Coordinates of the whole picture, and the area begins somewhere below its top.
            let (left, above) = area.get_base_pixel();
            area.draw(&Text::new(format!("{value:.0}"), (pixel - left, y - above - 8), text(FONT - 1, HPos::Center)))?;
            free_from = pixel + 26;
        }
    }
    Ok(())
}

/// The colour of a line, and its width: a limit is wide, so that a line on top of it does not hide it.
fn looks(line: &Line) -> (RGBColor, u32) {
    match line.kind {
        Kind::Limit => (palette::LIMIT, 4),
        Kind::Use => (palette::USE, 2),
        Kind::Refused => (palette::REFUSED, 2),
        Kind::Latency => (palette::LATENCY, 2),
        Kind::Backend => (palette::BACKEND, 2),
    }
}

/// The points of a line that have a pixel of their own.
fn thinned(line: &Line, right: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in &line.points {
        if points.last().is_none_or(|last| last.1.to_bits() != y.to_bits() || x - last.0 > right / f64::from(WIDTH)) {
            points.push((x, y));
        }
    }
    points
}

fn text(size: u32, at: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&palette::INK).pos(Pos::new(at, VPos::Center))
}
