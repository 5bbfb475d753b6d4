//! The table of ratios, and the machine it was measured on.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::{fs, io, thread};

use crate::plot;
use crate::rivals::Order;
use crate::runner::{Group, Outcome, Runner, Times};
use crate::target::{ALL, BASELINE, Target};

/// The ratios of two times, over the rounds.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Ratio {
    /// Returns `None` if both were measured in no round.
    fn of(times: &Times, other: &Times) -> Option<Self> {
        let rounds = times.rounds.iter().zip(&other.rounds);
        let mut ratios: Vec<_> = rounds.filter_map(|(time, other)| Some((*time)? / (*other)?)).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        let median = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        Some(Self { median, min, max })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.median)
    }
}

/// A bucket in a situation.
pub(crate) struct Row<'a> {
    pub(crate) group: Group,
    pub(crate) situation: &'a str,
    pub(crate) order: Order,
    bucket: &'a Times,
    outcome: &'a Outcome,
}

impl<'a> Row<'a> {
    fn all(outcomes: &'a [Outcome]) -> impl Iterator<Item = Self> {
        outcomes.iter().flat_map(|outcome| {
            let buckets = outcome
                .results
                .iter()
                .filter(|times| times.name.starts_with("token-bucket") && times.rounds.iter().any(Option::is_some));
            buckets.map(move |bucket| Self {
                group: outcome.group,
                situation: &outcome.situation,
                order: bucket.order,
                bucket,
                outcome,
            })
        })
    }

    /// The ratio to the fastest of these peers, with its name. That is where the ratio is largest.
    fn to_best_of(&self, peers: &[&str], wanted: impl Fn(&Times) -> bool) -> Option<(&'static str, Ratio)> {
        let peers = self.outcome.results.iter().filter(|times| peers.contains(&times.name) && wanted(times));
        let ratios = peers.filter_map(|peer| Some((peer.name, Ratio::of(self.bucket, peer)?)));
        ratios.max_by(|(_, one), (_, other)| one.median.total_cmp(&other.median))
    }

    /// The ratio to a candidate, if both were measured.
    pub(crate) fn to(&self, name: &str) -> Option<Ratio> {
        self.to_best_of(&[name], |_| true).map(|(_, ratio)| ratio)
    }

    /// The ratio to the fastest peer of the same order, or of any order if there is none.
    fn to_best_peer(&self) -> Option<(&'static str, Ratio)> {
        self.to_best_of(ALL, |peer| peer.order == self.order).or_else(|| self.to_best_of(ALL, |_| true))
    }

    /// Whether targets are met, of those whose candidates were all measured.
    fn verdicts(&self) -> impl Iterator<Item = (bool, String)> {
        self.outcome.targets.iter().filter(|target| target.is_for(self.order)).filter_map(|target| {
            let &Target { limit, against, .. } = target;
            against.iter().try_for_each(|rival| self.to(rival).map(drop))?;
            let (best, ratio) = self.to_best_of(against, |_| true)?;
            let met = ratio.median <= limit;
            Some((met, format!("{} {ratio} ≤ {limit:.2} × {best}", if met { "✓" } else { "✗" })))
        })
    }
}

/// Prints the table, and writes it and the pictures: to `benches` after a complete run, or else to the directory of criterion's results.
pub(crate) fn write(runner: &Runner) -> io::Result<()> {
    let rows: Vec<_> = Row::all(&runner.outcomes).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut all_times = runner.outcomes.iter().flat_map(|outcome| &outcome.results);
    let is_complete = all_times.all(|times| times.rounds.iter().all(Option::is_some));
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = if is_complete { benches } else { runner.directory() };

    let mut text = String::from("# Ratios\n\n");
    text.push_str(&origin(&benches.join("../Cargo.lock"), runner.rounds));
    text.push_str(LEGEND);
    text.push_str(&table(&rows).expect("writing to a string succeeds"));
    if let Ok(bytes) = fs::read_to_string(Path::new(env!("CARGO_TARGET_TMPDIR")).join("bytes.md")) {
        text.push('\n');
        text.push_str(&bytes);
    }
    println!("\n{text}");
    fs::write(directory.join("ratios.md"), &text)?;
    for (name, panels) in [("ratios.svg", plot::ALL), ("summary.svg", plot::SUMMARY)] {
        plot::draw(&directory.join(name), panels, &rows).map_err(io::Error::other)?;
    }
    println!("Wrote ratios.md, ratios.svg and summary.svg to {}", directory.display());
    Ok(())
}

const LEGEND: &str = "\
Each number is the bucket's time divided by that of another candidate: below 1, the bucket is faster. In each round, all candidates run back
to back, and each round begins with another one. The number is the median of the rounds; the spread shows the smallest and the largest. The best peer is the fastest one
with the same order (with any order, if none has the same).

The *baseline* is the minimum any implementation needs: a compare-exchange to take and one to return, one to resize, a load to read. A hand-over has no such minimum;
its baseline is what `event-listener` alone takes, with the same number of listeners.

mea and futures-intrusive have no blocking form. They run under `pollster::block_on`, which allocates once for each wait. tokio's futures take part in its cooperative
budget; the bucket's do so only with the feature `tokio`, which is off here.

FIFO lowers throughput, and barging makes the longest waits longer, so most contended situations also report the *longest wait* seen in 200 ms. Then all candidates
stop, so a starved waiter shows as about 200 ms, no matter which candidate starved it.

✓ and ✗ show whether a performance target was met.

";

fn table(rows: &[Row<'_>]) -> Result<String, fmt::Error> {
    let mut text = String::from("| situation | order | baseline | best peer | spread | ");
    writeln!(text, "{} | target |", ALL.join(" | "))?;
    writeln!(text, "|---|---|--:|--:|--:|{}---|", "--:|".repeat(ALL.len()))?;
    let (mut met, mut targets) = (0, 0);
    for row in rows {
        let cell = |ratio: Option<Ratio>| ratio.map_or(String::new(), |ratio| ratio.to_string());
        write!(text, "| {} | {:?} | {} | ", row.situation, row.order, cell(row.to(BASELINE[0])))?;
        match row.to_best_peer() {
            Some((name, ratio)) => write!(text, "{ratio} {name} | {:.2}–{:.2} | ", ratio.min, ratio.max)?,
            None => text.push_str(" | | "),
        }
        for peer in ALL {
            write!(text, "{} | ", cell(row.to(peer)))?;
        }
        let verdicts: Vec<_> = row.verdicts().collect();
        targets += verdicts.len();
        met += verdicts.iter().filter(|verdict| verdict.0).count();
        let verdicts: Vec<_> = verdicts.into_iter().map(|verdict| verdict.1).collect();
        writeln!(text, "{} |", verdicts.join("<br>"))?;
    }
    writeln!(text, "\n{met} of {targets} targets met.")?;
    Ok(text)
}

/// When and where this was measured, and which versions.
fn origin(lock: &Path, rounds: usize) -> String {
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let rivals = ["tokio", "async-lock", "mea", "futures-intrusive", "event-listener", "smol"];
    let versions: Vec<_> = rivals.iter().map(|name| format!("{name} {}", version(&lock, name))).collect();
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    format!(
        "Measured by `cargo bench -p token-bucket-benches --bench compare` on {}, source {}, rounds: {rounds}, with {} cores ({}), {}, {}.\n\n",
        said_by("date", &["+%F"]),
        said_by("git", &["describe", "--always", "--dirty"]),
        thread::available_parallelism().map_or(0, usize::from),
        model.unwrap_or("unknown CPU"),
        said_by("rustc", &["--version"]),
        versions.join(", "),
    )
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| format!("({program} unknown)"), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of a package in the lock file.
fn version<'a>(lock: &'a str, name: &str) -> &'a str {
    let line = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|other| **other != line);
    lines.nth(1).and_then(|version| version.split('"').nth(1)).unwrap_or("(unknown)")
}
