//! The ratios as a picture: for each group of situations one panel, in which both buckets are compared with one peer.

use std::error::Error;
use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::report::{Ratio, Row};
use crate::rivals::Order;
use crate::runner::Group;

/// Situations that are compared with one peer.
pub(crate) struct Panel {
    what: What,
    peer: &'static str,
    title: &'static str,
}

enum What {
    All(Group),
    These(&'static [&'static str]),
}

const fn panel(what: What, title: &'static str) -> Panel {
    Panel { what, peer: "tokio", title }
}

pub(crate) const ALL: &[Panel] = &[
    panel(What::All(Group::Uncontended), "Uncontended: there are enough tokens"),
    panel(What::All(Group::Waiting), "Waiting: hand-over, resize, cancel, close"),
    panel(What::All(Group::Contended), "Contended: tasks or threads compete for few tokens"),
];
pub(crate) const SUMMARY: &[Panel] = &[panel(
    What::These(&[
        "uncontended try_take",
        "uncontended take.await, Result kept",
        "2 threads, uncontended",
        "hand-over, 1 waiting",
        "hand-over, 1000 waiting",
        "grow by 1000 under 1000 tasks",
        "cancel one pending take",
        "saturated, tokio, 1 thread",
        "saturated, tokio, 2 workers",
        "8 blocked threads, 2 tokens, 1 µs",
    ]),
    "Ten situations",
)];
const MOST_ROWS: usize = 12;

// In pixels.
const LABELS: i32 = 352;
const SCALE: i32 = 314;
const NUMBERS: i32 = 134;
const WIDTH: i32 = LABELS + SCALE + NUMBERS;
const ROW: i32 = 21;
const HEAD: i32 = 96;
const TITLE: i32 = 46;
const AXIS: i32 = 52;
// Plotters draws letters at four fifths of these.
const LARGE_FONT: i32 = 23;
const FONT: i32 = 17;

// As powers of 2. Values beyond are marked by triangles at the edge.
const MIN: i32 = -3;
const MAX: i32 = 2;

// Of the palette of Okabe and Ito, which colour-blind readers can tell apart.
const FIFO: RGBColor = RGBColor(0, 114, 178);
const BARGING: RGBColor = RGBColor(213, 94, 0);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(215, 215, 215);
const SHADE: RGBColor = RGBColor(245, 245, 245);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) fn draw(path: &Path, panels: &[Panel], rows: &[Row<'_>]) -> Result {
    let panels: Vec<_> = panels.iter().map(|panel| (panel, panel.situations(rows))).filter(|panel| !panel.1.is_empty()).collect();
    let mut height = HEAD;
    for (_, situations) in &panels {
        height += TITLE + ROW * i32::try_from(situations.len())? + AXIS;
    }
    let area = SVGBackend::new(path, (u32::try_from(WIDTH)?, u32::try_from(height)?)).into_drawing_area();
    // Opaque, for pages with a dark background.
    area.fill(&WHITE)?;
    draw_head(&area)?;
    let mut top = HEAD;
    for (Panel { peer, title, .. }, situations) in panels {
        if situations.len() > MOST_ROWS {
            return Err(format!("the panel {title:?} has {} rows, and {MOST_ROWS} are allowed", situations.len()).into());
        }
        let bottom = top + TITLE + ROW * i32::try_from(situations.len())?;
        draw_frame(&area, title, peer, &situations, (top, bottom))?;
        for (place, situation) in (0..).zip(&situations) {
            for row in rows.iter().filter(|row| row.situation == *situation) {
                if let Some(ratio) = row.to(peer) {
                    draw_bucket(&area, row.order, ratio, top + TITLE + ROW * place)?;
                }
            }
        }
        top = bottom + AXIS;
    }
    area.present()?;
    Ok(())
}

impl Panel {
    /// The situations in which the peer was measured.
    fn situations<'a>(&self, rows: &[Row<'a>]) -> Vec<&'a str> {
        let measured = || rows.iter().filter(|row| row.to(self.peer).is_some());
        let mut situations: Vec<_> = match self.what {
            What::All(group) => measured().filter(|row| row.group == group).map(|row| row.situation).collect(),
            What::These(situations) => situations
                .iter()
                .filter_map(|situation| measured().find(|row| row.situation == *situation))
                .map(|row| row.situation)
                .collect(),
        };
        situations.dedup();
        situations
    }
}

fn draw_head(area: &Area<'_>) -> Result {
    text(area, "Time of token-bucket ÷ time of tokio’s semaphore", (WIDTH / 2, 20), HPos::Center, (LARGE_FONT, INK))?;
    let y = 52;
    for (order, x) in [(Order::Fifo, 30), (Order::Barging, 240)] {
        let (colour, _, _) = looks(order);
        line(area, (x, y), (x + 40, y), colour.stroke_width(2))?;
        draw_dot(area, order, (x + 20, y))?;
        text(area, &format!("token-bucket, {order:?}"), (x + 50, y), HPos::Left, (FONT, INK))?;
    }
    text(area, "dot: median, line: spread of the rounds", (480, y), HPos::Left, (FONT, INK))?;
    draw_edge(area, (40, y + 24), -1, 5, INK)?;
    draw_edge(area, (58, y + 24), 1, 5, INK)?;
    text(area, "beyond the scale (for the median, see the number on the right)", (80, y + 24), HPos::Left, (FONT, INK))
}

/// Where a ratio is, from left to right, and whether that is at the edge, as it is beyond.
fn x(ratio: f64) -> (i32, i32) {
    let share = (ratio.log2() - f64::from(MIN)) / f64::from(MAX - MIN);
    #[allow(clippy::cast_possible_truncation, reason = "pixels")]
    let offset = (share.clamp(0.0, 1.0) * f64::from(SCALE)).round() as i32;
    (LABELS + offset, i32::from(share > 1.0) - i32::from(share < 0.0))
}

fn text(area: &Area<'_>, what: &str, at: (i32, i32), side: HPos, (size, colour): (i32, RGBColor)) -> Result {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&colour).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(what.to_owned(), at, style))?;
    Ok(())
}

fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), style: ShapeStyle) -> Result {
    area.draw(&PathElement::new([from, to], style))?;
    Ok(())
}

/// Title, axis, and the names of the situations.
fn draw_frame(area: &Area<'_>, title: &str, peer: &str, situations: &[&str], (top, bottom): (i32, i32)) -> Result {
    text(area, &format!("{title} (peer: {peer})"), (10, top + 12), HPos::Left, (FONT + 2, INK))?;
    for order in [Order::Fifo, Order::Barging] {
        let (colour, _, number) = looks(order);
        text(area, &format!("{order:?}"), (number, top + TITLE - 12), HPos::Right, (FONT, colour))?;
    }
    for (i, situation) in (0..).zip(situations) {
        let y = top + TITLE + ROW * i;
        if i % 2 == 0 {
            area.draw(&Rectangle::new([(0, y), (WIDTH, y + ROW)], SHADE.filled()))?;
        }
        text(area, situation, (LABELS - 12, y + ROW / 2), HPos::Right, (FONT, INK))?;
    }
    for power in MIN..=MAX {
        let (at, _) = x(f64::from(power).exp2());
        let style = if power == 0 { INK.stroke_width(1) } else { GRID.stroke_width(1) };
        line(area, (at, top + TITLE), (at, bottom + 4), style)?;
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { (1 << power).to_string() };
        text(area, &label, (at, bottom + 14), HPos::Center, (FONT, INK))?;
    }
    let (one, _) = x(1.0);
    text(area, "← faster than the peer", (one - 12, bottom + 34), HPos::Right, (FONT, INK))?;
    text(area, "slower →", (one + 12, bottom + 34), HPos::Left, (FONT, INK))
}

/// The colour of a bucket, how far below the middle of the row it is, and where its number ends.
fn looks(order: Order) -> (RGBColor, i32, i32) {
    if order == Order::Barging { (BARGING, 4, WIDTH - 10) } else { (FIFO, -4, WIDTH - 80) }
}

/// A circle or a square, so that not the colour alone tells the buckets apart.
fn draw_dot(area: &Area<'_>, order: Order, (x, y): (i32, i32)) -> Result {
    let (colour, _, _) = looks(order);
    if order == Order::Barging {
        area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], colour.filled()))?;
    } else {
        area.draw(&Circle::new((x, y), 4, colour.filled()))?;
    }
    Ok(())
}

/// A triangle that points beyond the edge.
fn draw_edge(area: &Area<'_>, (x, y): (i32, i32), side: i32, size: i32, colour: RGBColor) -> Result {
    let corners = vec![(x + side * 2 * size, y), (x, y - size), (x, y + size)];
    area.draw(&Polygon::new(corners, colour.filled()))?;
    Ok(())
}

fn draw_bucket(area: &Area<'_>, order: Order, ratio: Ratio, y: i32) -> Result {
    let (colour, offset, number) = looks(order);
    let y_dot = y + ROW / 2 + offset;
    let [(left, left_edge), (middle, edge), (right, right_edge)] = [ratio.min, ratio.median, ratio.max].map(x);
    line(area, (left, y_dot), (right, y_dot), colour.stroke_width(2))?;
    for (at, side) in [(left, left_edge), (right, right_edge)] {
        if side != 0 {
            draw_edge(area, (at, y_dot), side, 3, colour)?;
        }
    }
    if edge == 0 {
        draw_dot(area, order, (middle, y_dot))?;
    } else {
        draw_edge(area, (middle, y_dot), edge, 5, colour)?;
    }
    text(area, &ratio.to_string(), (number, y + ROW / 2), HPos::Right, (FONT, colour))
}
