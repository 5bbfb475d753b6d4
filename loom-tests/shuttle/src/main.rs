//! Random programs on a bucket, in random schedules: what models of two or three threads are too small for.
//!
//! `.ci/shuttle [seconds]` runs it. Six kinds of programs take turns, under both fairness modes, with 4 to 8 threads, scheduled at
//! random or by PCT (which prefers schedules with few, but unexpected, preemptions). A failure prints what the threads did, and the
//! arguments that repeat it.

#[cfg(not(loom))]
compile_error!("this is to be built with `--cfg loom`: run .ci/shuttle");

mod blocking;
mod bypass;
mod histories;
#[allow(dead_code, reason = "these programs do not make every call")]
#[path = "../../../tests/support/history.rs"]
mod history;
mod mixed;
#[allow(dead_code, reason = "these programs do not make every call")]
#[path = "../../../tests/support/spec.rs"]
mod spec;
mod waiting;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use token_bucket::Fairness;

/// What the threads do, so many of them.
type Program = fn(Fairness, usize);

const SCENARIOS: [(&str, Program); 6] = [
    ("blocking", blocking::run),
    ("bypass", bypass::run),
    ("histories", histories::run),
    ("resizes", mixed::resizes),
    ("deposits", mixed::deposits),
    ("everything", mixed::everything),
];
/// As many as one seed stands for.
const SCHEDULES: usize = 500;

/// What the threads of the present schedule have done.
static TRACE: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn trace(what: impl FnOnce() -> String) {
    let line = format!("{:?} {}", shuttle::current::me(), what());
    TRACE.lock().unwrap().push(line);
}

#[derive(Clone, Copy)]
struct Case {
    scenario: usize,
    fairness: Fairness,
    is_pct: bool,
    threads: usize,
    seed: u64,
}

impl Case {
    fn nth(n: usize, seed: u64) -> Self {
        let (scenario, n) = (n % SCENARIOS.len(), n / SCENARIOS.len());
        let (fairness, n) = (if n % 2 == 0 { Fairness::Fifo } else { Fairness::Barging }, n / 2);
        Self { scenario, fairness, is_pct: n % 2 == 1, threads: 4 + n / 2 % 5, seed }
    }

    fn run(self) {
        if self.is_pct {
            self.run_with(PctScheduler::new_from_seed(self.seed, 3, SCHEDULES));
        } else {
            self.run_with(RandomScheduler::new_from_seed(self.seed, SCHEDULES));
        }
    }

    fn run_with(self, scheduler: impl Scheduler + 'static) {
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::None;
        config.max_steps = MaxSteps::FailAfter(100_000);
        config.silence_warnings = true;
        let program = SCENARIOS[self.scenario].1;
        Runner::new(scheduler, config).run(move || {
            TRACE.lock().unwrap().clear();
            program(self.fairness, self.threads);
        });
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("arguments are numbers"));
    let seconds = arguments.next().unwrap_or(60);
    let only = arguments.next().zip(arguments.next());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        for line in std::mem::take(&mut *TRACE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            eprintln!("  {line}");
        }
    }));
    if let Some((n, seed)) = only {
        return attempt(usize::try_from(n).unwrap(), seed);
    }
    let base = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() << 20;
    let (begin, mut schedules) = (Instant::now(), [0; SCENARIOS.len()]);
    for n in 0.. {
        if begin.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        attempt(n, base + n as u64);
        schedules[n % SCENARIOS.len()] += SCHEDULES;
    }
    for ((name, _), count) in SCENARIOS.iter().zip(schedules) {
        println!("{name}: {count} schedules");
    }
}

fn attempt(n: usize, seed: u64) {
    let case = Case::nth(n, seed);
    if std::panic::catch_unwind(|| case.run()).is_err() {
        let (name, scheduler) = (SCENARIOS[case.scenario].0, if case.is_pct { "PCT" } else { "random" });
        eprintln!(
            "error: {name} fails in {:?}, {} threads, {scheduler}: repeat with .ci/shuttle 0 {n} {seed}",
            case.fairness, case.threads
        );
        std::process::exit(1);
    }
}
