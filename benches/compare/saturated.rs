//! Many tasks that compete for few tokens, on common executors.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Bencher;
use crossbeam_utils::CachePadded;
use futures_lite::future::{block_on, yield_now};
use smol::Executor;

use crate::rivals::{Resize, Rival};
use crate::runner::{Group, Runner, against};
use crate::target::{ALL, ASYNC_LOCK, MEA, TOKIO, Target};
use crate::threads::{Longest, WATCH};

const TASKS: u64 = 64;
const TOKENS: usize = 4;
const THREADS: usize = 2;

pub(crate) fn run(runner: &mut Runner) {
    let name = |situation| (Group::Contended, situation);
    let targets =
        vec![Target::fifo(1.05, TOKIO), Target::fifo(1.00, MEA), Target::barging(0.98, ASYNC_LOCK), Target::barging(1.00, ALL)];
    runner.compare(name("saturated, tokio, 1 thread"), TASKS, targets, against!(all: saturated(OneThread)));
    let targets =
        vec![Target::fifo(1.05, TOKIO), Target::fifo(1.00, MEA), Target::barging(0.60, ASYNC_LOCK), Target::barging(1.00, ALL)];
    runner.compare(name("saturated, tokio, 2 workers"), TASKS, targets, against!(all: saturated(Workers)));
    runner.compare(name("saturated, smol, 2 threads"), TASKS, vec![], against!(all: saturated(Smol)));
    runner.compare(name("saturated, tokio, 1 thread, longest wait"), 1, vec![], against!(all: longest_wait(OneThread)));
    runner.compare(name("saturated, tokio, 2 workers, longest wait"), 1, vec![], against!(all: longest_wait(Workers)));
    // Not tokio's semaphore: it can only forget permits that are available, so it would keep the larger size.
    runner.compare(name("saturated, tokio, 2 workers, resized"), TASKS, vec![], against!([Fifo, Barging, Mea]: resized()));
}

/// Runs tasks to completion.
trait Runtime: Copy {
    /// Runs `TASKS` tasks. Returns how long that took.
    fn run<F: Future<Output = ()> + Send + 'static>(self, task: impl Fn() -> F) -> Duration;
}

#[derive(Clone, Copy)]
struct OneThread;
#[derive(Clone, Copy)]
struct Workers;
#[derive(Clone, Copy)]
struct Smol;

fn run_tokio<F: Future<Output = ()> + Send + 'static>(runtime: &tokio::runtime::Runtime, task: impl Fn() -> F) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(task())).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        start.elapsed()
    })
}

impl Runtime for OneThread {
    fn run<F: Future<Output = ()> + Send + 'static>(self, task: impl Fn() -> F) -> Duration {
        run_tokio(&tokio::runtime::Builder::new_current_thread().build().expect("a runtime"), task)
    }
}

impl Runtime for Workers {
    fn run<F: Future<Output = ()> + Send + 'static>(self, task: impl Fn() -> F) -> Duration {
        run_tokio(&tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).build().expect("a runtime"), task)
    }
}

impl Runtime for Smol {
    fn run<F: Future<Output = ()> + Send + 'static>(self, task: impl Fn() -> F) -> Duration {
        let executor = Executor::new();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| block_on(executor.run(stopped.recv())));
            }
            let time = block_on(async {
                let start = Instant::now();
                let tasks: Vec<_> = (0..TASKS).map(|_| executor.spawn(task())).collect();
                for task in tasks {
                    task.await;
                }
                start.elapsed()
            });
            drop(stop);
            time
        })
    }
}

/// Takes a token, lets other tasks run while it is held, and returns it, several times.
async fn work<R: Rival>(rival: Arc<CachePadded<R>>, times: u64) {
    for _ in 0..times {
        let guard = rival.take().await;
        yield_now().await;
        drop(guard);
    }
}

fn saturated<R: Rival>(b: &mut Bencher<'_>, runtime: impl Runtime) {
    let rival = Arc::new(CachePadded::new(R::new(TOKENS)));
    b.iter_custom(|iterations| runtime.run(|| work(Arc::clone(&rival), iterations)));
}

/// Measures not the throughput, but the longest time that a task waited for a token.
fn longest_wait<R: Rival>(b: &mut Bencher<'_>, runtime: impl Runtime) {
    let rival = Arc::new(CachePadded::new(R::new(TOKENS)));
    b.iter_custom(|iterations| {
        let longest = Arc::new(Longest::default());
        let begin = Instant::now();
        runtime.run(|| {
            let (rival, longest) = (Arc::clone(&rival), Arc::clone(&longest));
            async move {
                // At least once, even if the time is already over.
                loop {
                    let start = Instant::now();
                    let guard = rival.take().await;
                    longest.note(start.elapsed());
                    yield_now().await;
                    drop(guard);
                    if begin.elapsed() > WATCH {
                        return;
                    }
                }
            }
        });
        longest.times(iterations)
    });
}

/// Like `saturated`, while the number of tokens changes a thousand times a second.
fn resized<R: Resize>(b: &mut Bencher<'_>) {
    let rival = Arc::new(CachePadded::new(R::new(TOKENS)));
    b.iter_custom(|iterations| {
        crate::resize::meanwhile(&**rival, [TOKENS, 2 * TOKENS], || Workers.run(|| work(Arc::clone(&rival), iterations)))
    });
}
