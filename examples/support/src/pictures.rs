//! Charts of numbers over seconds, drawn as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::{Chart, Result};

const WIDTH: u32 = 760;
const HEIGHT: u32 = 260;
const COLOURS: [RGBColor; 4] = [RGBColor(200, 60, 40), RGBColor(40, 90, 170), RGBColor(60, 140, 80), RGBColor(140, 90, 160)];

/// Draws charts of numbers over seconds, one above the other.
///
/// # Errors
///
/// If the file cannot be written.
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
