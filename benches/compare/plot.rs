//! The ratios to the best peer as a picture: a dot for each bucket, a line for its spread.

use std::error::Error;
use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::report::Row;
use crate::rivals::Order;

// In pixels.
const LABELS: i32 = 300;
const SCALE: i32 = 400;
const PEERS: i32 = 150;
const WIDTH: i32 = LABELS + SCALE + 2 * PEERS;
const ROW: i32 = 17;
const TOP: i32 = 56;
const BOTTOM: i32 = 44;

// As powers of 2. What is beyond is shown at the edge.
const MIN: i32 = -4;
const MAX: i32 = 3;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(222, 222, 222);
const SHADE: RGBColor = RGBColor(246, 246, 246);
const FIFO: RGBColor = RGBColor(22, 96, 167);
const BARGING: RGBColor = RGBColor(208, 91, 12);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result = std::result::Result<(), Box<dyn Error + Send + Sync>>;

pub(crate) fn draw(path: &Path, rows: &[Row<'_>]) -> Result {
    let mut situations: Vec<_> = rows.iter().map(|row| row.situation).collect();
    situations.dedup();
    let bottom = TOP + ROW * i32::try_from(situations.len())?;
    let size = (u32::try_from(WIDTH)?, u32::try_from(bottom + BOTTOM)?);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    for (i, situation) in (0..).zip(&situations) {
        let y = TOP + ROW * i;
        if i % 2 == 0 {
            area.draw(&Rectangle::new([(0, y), (WIDTH, y + ROW)], SHADE.filled()))?;
        }
        text(&area, situation, (LABELS - 10, y + ROW / 2), HPos::Right, INK)?;
    }
    axis(&area, bottom)?;
    legend(&area)?;
    for row in rows {
        let place = situations.iter().position(|situation| *situation == row.situation).expect("it is among them");
        bucket(&area, row, TOP + ROW * i32::try_from(place)?)?;
    }
    area.present()?;
    Ok(())
}

/// Where a ratio is, from left to right.
fn x(ratio: f64) -> i32 {
    let share = (ratio.log2() - f64::from(MIN)) / f64::from(MAX - MIN);
    #[allow(clippy::cast_possible_truncation, reason = "pixels")]
    let offset = (share.clamp(0.0, 1.0) * f64::from(SCALE)).round() as i32;
    LABELS + offset
}

fn text(area: &Area<'_>, what: &str, at: (i32, i32), side: HPos, color: RGBColor) -> Result {
    let style = TextStyle::from(("sans-serif", 12).into_font()).color(&color).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(what.to_owned(), at, style))?;
    Ok(())
}

fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), style: ShapeStyle) -> Result {
    area.draw(&PathElement::new([from, to], style))?;
    Ok(())
}

fn axis(area: &Area<'_>, bottom: i32) -> Result {
    for power in MIN..=MAX {
        let at = x(f64::from(power).exp2());
        let style = if power == 0 { INK.stroke_width(1) } else { GRID.stroke_width(1) };
        line(area, (at, TOP), (at, bottom + 4), style)?;
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { (1 << power).to_string() };
        text(area, &label, (at, bottom + 12), HPos::Center, INK)?;
    }
    text(area, "← faster than the best peer", (x(1.0) - 8, bottom + 30), HPos::Right, INK)?;
    text(area, "slower →", (x(1.0) + 8, bottom + 30), HPos::Left, INK)
}

/// The color of a bucket, how far below the middle of the row it is, and where the name of its peer stands.
fn looks(order: Order) -> (RGBColor, i32, i32) {
    if order == Order::Barging { (BARGING, 3, LABELS + SCALE + PEERS) } else { (FIFO, -3, LABELS + SCALE + 16) }
}

fn legend(area: &Area<'_>) -> Result {
    text(area, "Time of token-bucket ÷ time of the best peer of the same order", (LABELS, 14), HPos::Left, INK)?;
    for order in [Order::Fifo, Order::Barging] {
        let (color, _, peer) = looks(order);
        text(area, &format!("{order:?} against"), (peer, 40), HPos::Left, color)?;
    }
    text(area, "dot: median, line: all rounds", (LABELS, 32), HPos::Left, INK)
}

fn bucket(area: &Area<'_>, row: &Row<'_>, y: i32) -> Result {
    let Some((peer, ratio)) = row.to_best_peer() else { return Ok(()) };
    let (color, offset, name_at) = looks(row.order);
    let middle = y + ROW / 2;
    line(area, (x(ratio.min), middle + offset), (x(ratio.max), middle + offset), color.stroke_width(2))?;
    area.draw(&Circle::new((x(ratio.median), middle + offset), 3, color.filled()))?;
    text(area, peer, (name_at, middle), HPos::Left, color)
}
