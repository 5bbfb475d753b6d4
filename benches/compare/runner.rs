//! Runs situations with criterion, in rounds: in each round, all candidates of a situation run back to back, so that a longer
//! disturbance of the machine affects them all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode, Throughput};

use crate::rivals::{Order, Rival};
use crate::target::Target;

/// Overrides the number of rounds.
const ROUNDS_VARIABLE: &str = "TOKEN_BUCKET_ROUNDS";
const ROUNDS: usize = 3;

/// One candidate in one situation.
pub(crate) struct Candidate {
    name: &'static str,
    order: Order,
    bench: Box<dyn Fn(&mut Bencher<'_>)>,
}

impl Candidate {
    pub(crate) fn new(name: &'static str, order: Order, bench: impl Fn(&mut Bencher<'_>) + 'static) -> Self {
        Self { name, order, bench: Box::new(bench) }
    }

    pub(crate) fn of<R: Rival>(bench: impl Fn(&mut Bencher<'_>) + 'static) -> Self {
        Self::new(R::NAME, R::ORDER, bench)
    }
}

/// The candidates that run a generic function: `against!(all: function(arguments))` is for all semaphores.
macro_rules! against {
    (baseline, $rivals:ident: $($bench:tt)*) => {{
        let mut candidates = $crate::runner::against!([Baseline]: $($bench)*);
        candidates.extend($crate::runner::against!($rivals: $($bench)*));
        candidates
    }};
    (all: $($bench:tt)*) => {
        $crate::runner::against!([Fifo, Barging, Tokio, AsyncLock, Mea, IntrusiveFair, IntrusiveUnfair]: $($bench)*)
    };
    (weighted: $($bench:tt)*) => {
        $crate::runner::against!([Fifo, Barging, Tokio, Mea, IntrusiveFair, IntrusiveUnfair]: $($bench)*)
    };
    (resizing: $($bench:tt)*) => { $crate::runner::against!([Fifo, Barging, Tokio, Mea]: $($bench)*) };
    (closing: $($bench:tt)*) => { $crate::runner::against!([Fifo, Barging, Tokio]: $($bench)*) };
    ([$($rival:ident),+]: $bench:ident()) => {
        vec![$($crate::runner::Candidate::of::<$crate::rivals::$rival>($bench::<$crate::rivals::$rival>)),+]
    };
    ([$($rival:ident),+]: $bench:ident($argument:expr)) => {
        vec![$($crate::runner::Candidate::of::<$crate::rivals::$rival>(move |b| {
            $bench::<$crate::rivals::$rival>(b, $argument);
        })),+]
    };
}
pub(crate) use against;

/// Part of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// There are more tokens than takers.
    Uncontended,
    /// Futures wait, and are polled by hand.
    Waiting,
    /// Tasks or threads compete for few tokens.
    Contended,
}

/// The results of a situation.
pub(crate) struct Outcome {
    pub(crate) group: Group,
    pub(crate) situation: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) results: Vec<Times>,
}

/// The results of a candidate: a time for each round, if it was measured. The unit does not matter.
pub(crate) struct Times {
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    pub(crate) rounds: Vec<Option<f64>>,
}

pub(crate) struct Runner {
    criterion: Criterion,
    /// The directory of criterion's results.
    directory: PathBuf,
    /// Whether to measure, or else only to try or to list everything.
    measures: bool,
    pub(crate) rounds: usize,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Runner {
    /// Configures the run by the arguments of the command.
    pub(crate) fn from_args() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion");
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(500))
            .sample_size(10)
            .nresamples(2000)
            .without_plots()
            .output_directory(&directory)
            .configure_from_args();
        let has = |flag: &str| std::env::args().any(|argument| argument == flag);
        let measures = has("--bench") && !has("--test") && !has("--list");
        let rounds = match std::env::var(ROUNDS_VARIABLE) {
            _ if !measures => 1,
            Ok(rounds) => rounds.parse().unwrap_or_else(|_| panic!("{ROUNDS_VARIABLE} is not a number: {rounds}")),
            Err(_) => ROUNDS,
        };
        Self { criterion, directory, measures, rounds, outcomes: Vec::new() }
    }

    /// Measures all candidates, in rounds. `elements` is what criterion's throughput counts in one iteration.
    pub(crate) fn compare(
        &mut self,
        (group, situation): (Group, &str),
        elements: u64,
        targets: Vec<Target>,
        candidates: Vec<Candidate>,
    ) {
        let mut benches = self.criterion.benchmark_group(situation);
        benches.throughput(Throughput::Elements(elements)).sampling_mode(SamplingMode::Flat);
        let mut results: Vec<_> = candidates.into_iter().map(|candidate| (candidate, Vec::new())).collect();
        let candidates = results.len();
        for round in 1..=self.rounds {
            // Each round begins with another candidate, so that a drift of the machine favours none.
            let (first, last) = results.split_at_mut(round % candidates);
            for (candidate, rounds) in last.iter_mut().chain(first) {
                let round = round.to_string();
                let estimates = self.directory.join(situation).join(candidate.name).join(&round).join("new/estimates.json");
                if self.measures {
                    // A file that is there afterwards is from this run, not from an earlier one.
                    let _ = fs::remove_file(&estimates);
                }
                benches.bench_function(BenchmarkId::new(candidate.name, round), &candidate.bench);
                rounds.push(if self.measures { median(&estimates) } else { None });
            }
        }
        benches.finish();
        let results = results.into_iter().map(|(Candidate { name, order, .. }, rounds)| Times { name, order, rounds }).collect();
        self.outcomes.push(Outcome { group, situation: situation.to_owned(), targets, results });
    }

    /// Call this after the last situation.
    pub(crate) fn finish(&mut self) {
        self.criterion.final_summary();
    }

    /// The directory for the report of a partial run.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Criterion's median, unless the benchmark was skipped.
fn median(estimates: &Path) -> Option<f64> {
    let text = fs::read_to_string(estimates).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).expect("criterion writes JSON");
    Some(estimates["median"]["point_estimate"].as_f64().expect("criterion's median"))
}
