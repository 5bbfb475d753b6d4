//! Threads: uncontended with plenty of tokens, and blocked with few.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Bencher;
use crossbeam_utils::CachePadded;

use crate::rivals::Rival;
use crate::runner::{Group, Runner, against};
use crate::target::{ALL, ASYNC_LOCK, TOKIO, Target};

const BLOCKED: usize = 8;
const TOKENS: usize = 2;
/// How long the waits are observed. A starved waiter waits about this long, because then the others stop.
pub(crate) const WATCH: Duration = Duration::from_millis(200);
const PLENTY: usize = 1000;
const CROWD: usize = 32;

pub(crate) fn run(runner: &mut Runner) {
    for threads in [2, 4] {
        let targets = if threads == 2 { vec![Target::both(1.00, ALL)] } else { vec![] };
        let candidates = against!(baseline, all: beside(threads));
        runner.compare((Group::Uncontended, &format!("{threads} threads, uncontended")), threads as u64, targets, candidates);
    }
    for micros in [0, 1, 10] {
        let work = Duration::from_micros(micros);
        let targets = if micros == 1 { vec![Target::fifo(1.00, TOKIO), Target::barging(0.95, ASYNC_LOCK)] } else { vec![] };
        let name = format!("8 blocked threads, 2 tokens, {micros} µs");
        runner.compare((Group::Contended, &name), 1, targets, against!(all: blocked(work)));
        runner.compare((Group::Contended, &format!("{name}, longest wait")), 1, vec![], against!(all: longest_wait(work)));
    }
    runner.compare((Group::Waiting, "grow by 32 under 32 blocked threads"), CROWD as u64, vec![], against!(all: grow()));
}

/// Runs the work on several threads at once. Returns the time from the start of the first to the end of the last.
pub(crate) fn at_once(threads: usize, work: impl Fn() + Sync) -> Duration {
    let start_line = Barrier::new(threads);
    let times: Vec<_> = thread::scope(|scope| {
        let run = || {
            start_line.wait();
            let start = Instant::now();
            work();
            (start, Instant::now())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    let start = times.iter().map(|time| time.0).min().expect("threads");
    let end = times.iter().map(|time| time.1).max().expect("threads");
    end - start
}

/// Each thread takes and returns a token, repeatedly.
fn beside<R: Rival>(b: &mut Bencher<'_>, threads: usize) {
    let rival = CachePadded::new(R::new(PLENTY));
    b.iter_custom(|iterations| {
        at_once(threads, || {
            for _ in 0..iterations {
                drop(rival.try_take().expect("there are plenty"));
            }
        })
    });
}

fn spin(work: Duration) {
    if !work.is_zero() {
        let start = Instant::now();
        while start.elapsed() < work {
            std::hint::spin_loop();
        }
    }
}

/// A total number of takes, with work while the token is held. All threads take part until the end.
fn blocked<R: Rival>(b: &mut Bencher<'_>, work: Duration) {
    const STRETCH: u64 = 16;

    let rival = CachePadded::new(R::new(TOKENS));
    b.iter_custom(|iterations| {
        let begun = CachePadded::new(AtomicU64::new(0));
        at_once(BLOCKED, || {
            loop {
                let from = begun.fetch_add(STRETCH, Ordering::Relaxed);
                if from >= iterations {
                    return;
                }
                for _ in from..iterations.min(from + STRETCH) {
                    let guard = rival.wait();
                    spin(work);
                    drop(guard);
                }
            }
        })
    });
}

/// Measures not the throughput, but the longest time that a thread waited for a token.
fn longest_wait<R: Rival>(b: &mut Bencher<'_>, work: Duration) {
    let rival = CachePadded::new(R::new(TOKENS));
    b.iter_custom(|iterations| {
        let longest = Longest::default();
        let begin = Instant::now();
        at_once(BLOCKED, || {
            loop {
                let start = Instant::now();
                let guard = rival.wait();
                let end = Instant::now();
                spin(work);
                drop(guard);
                longest.note(end - start);
                if end - begin > WATCH {
                    return;
                }
            }
        });
        longest.times(iterations)
    });
}

/// The longest of many waits.
#[derive(Default)]
pub(crate) struct Longest(CachePadded<AtomicU64>);

impl Longest {
    pub(crate) fn note(&self, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).expect("less than centuries");
        // A new maximum is rare, so the shared line is rarely written.
        if nanos > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// Multiplies by the number of iterations, by which criterion divides.
    pub(crate) fn times(&self, iterations: u64) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).saturating_mul(iterations))
    }
}

/// All threads wait; then tokens for all are added; each thread takes one.
fn grow<R: Rival>(b: &mut Bencher<'_>) {
    /// Almost certainly, all threads wait by then. One that does not still takes its token.
    const LINED_UP: Duration = Duration::from_millis(1);

    let rival = CachePadded::new(R::new(0));
    b.iter_custom(|iterations| {
        let served = CachePadded::new(AtomicU64::new(0));
        let round = Barrier::new(CROWD + 1);
        let controller = thread::current();
        let mut time = Duration::ZERO;
        thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(|| {
                    for i in 1..=iterations {
                        round.wait();
                        R::forget(rival.wait());
                        if served.fetch_add(1, Ordering::AcqRel) + 1 == i * CROWD as u64 {
                            controller.unpark();
                        }
                    }
                });
            }
            for i in 1..=iterations {
                round.wait();
                thread::sleep(LINED_UP);
                let start = Instant::now();
                rival.grow(CROWD);
                while served.load(Ordering::Acquire) < i * CROWD as u64 {
                    thread::park();
                }
                time += start.elapsed();
            }
        });
        time
    });
}
