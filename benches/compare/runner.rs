//! Runs situations by criterion, in rounds: each round has every rival of a situation shortly after one another, so that what
//! disturbs the machine for longer than that disturbs them all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode, Throughput};

use crate::rivals::{Order, Rival};
use crate::target::Target;

/// How many rounds there are, if not this many.
const ROUNDS_VARIABLE: &str = "TOKEN_BUCKET_ROUNDS";
const ROUNDS: usize = 3;

/// One rival in one situation.
pub(crate) struct Contender {
    name: &'static str,
    order: Order,
    bench: Box<dyn Fn(&mut Bencher<'_>)>,
}

impl Contender {
    pub(crate) fn new(name: &'static str, order: Order, bench: impl Fn(&mut Bencher<'_>) + 'static) -> Self {
        Self { name, order, bench: Box::new(bench) }
    }

    pub(crate) fn of<R: Rival>(bench: impl Fn(&mut Bencher<'_>) + 'static) -> Self {
        Self::new(R::NAME, R::ORDER, bench)
    }
}

/// The contenders that run a generic function: `against!(all: function(arguments))` is for all rivals.
macro_rules! against {
    (floor, $rivals:ident: $($bench:tt)*) => {{
        let mut contenders = $crate::runner::against!([Floor]: $($bench)*);
        contenders.extend($crate::runner::against!($rivals: $($bench)*));
        contenders
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
        vec![$($crate::runner::Contender::of::<$crate::rivals::$rival>($bench::<$crate::rivals::$rival>)),+]
    };
    ([$($rival:ident),+]: $bench:ident($argument:expr)) => {
        vec![$($crate::runner::Contender::of::<$crate::rivals::$rival>(move |b| {
            $bench::<$crate::rivals::$rival>(b, $argument);
        })),+]
    };
}
pub(crate) use against;

/// What came of a situation.
pub(crate) struct Outcome {
    pub(crate) situation: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) results: Vec<Times>,
}

/// What came of a contender: a time for each round, if it was measured. Its unit does not matter.
pub(crate) struct Times {
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    pub(crate) rounds: Vec<Option<f64>>,
}

pub(crate) struct Runner {
    criterion: Criterion,
    /// Where criterion puts its results.
    directory: PathBuf,
    /// Or only tries everything, or only lists it.
    measures: bool,
    pub(crate) rounds: usize,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Runner {
    /// As the arguments of the command want it.
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

    /// Measures all contenders, in rounds. `elements` is what criterion's throughput counts in one iteration.
    pub(crate) fn compare(&mut self, situation: &str, elements: u64, targets: Vec<Target>, contenders: Vec<Contender>) {
        let mut group = self.criterion.benchmark_group(situation);
        group.throughput(Throughput::Elements(elements)).sampling_mode(SamplingMode::Flat);
        let mut results: Vec<_> = contenders.into_iter().map(|contender| (contender, Vec::new())).collect();
        for round in 1..=self.rounds {
            for (contender, rounds) in &mut results {
                let round = round.to_string();
                let estimates = self.directory.join(situation).join(contender.name).join(&round).join("new/estimates.json");
                if self.measures {
                    // What is there afterwards is of this run, not of an earlier one.
                    let _ = fs::remove_file(&estimates);
                }
                group.bench_function(BenchmarkId::new(contender.name, round), &contender.bench);
                rounds.push(if self.measures { median(&estimates) } else { None });
            }
        }
        group.finish();
        let results = results.into_iter().map(|(Contender { name, order, .. }, rounds)| Times { name, order, rounds }).collect();
        self.outcomes.push(Outcome { situation: situation.to_owned(), targets, results });
    }

    /// After the last situation.
    pub(crate) fn finish(&mut self) {
        self.criterion.final_summary();
    }

    /// Where a report can go that is not of everything.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The median that criterion has found, unless the benchmark was left out or criterion could not make anything of it.
fn median(estimates: &Path) -> Option<f64> {
    let text = fs::read_to_string(estimates).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).expect("criterion writes JSON");
    Some(estimates["median"]["point_estimate"].as_f64().expect("criterion's median"))
}
