//! A pool of `SQLite` connections that is resized while it is used.
//!
//! ```sh
//! cargo run --release -p pool
//! ```
//!
//! The pool itself is `pool.rs`, to copy. This program uses it from several threads, resizes it from phase to phase, and checks that it
//! never lends out too many connections, that a shrink closes the surplus, and that no work is lost.

mod pool;
#[cfg(test)]
mod pool_tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, History, Monitor, Progress};
use pool::{Pool, Result};
use rusqlite::Connection;

const WORKERS: usize = 12;
const SIZES: [usize; 6] = [8, 2, 12, 0, 5, 1];
/// How long surplus connections may take to be closed once they are back. On a busy machine, a thread may be suspended in between.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Uses a database through a pool of connections while the pool is resized.
#[derive(Parser)]
#[command(name = "pool", after_help = "Exit status: 1 if too many connections were used or left open, or work was lost.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Open connections without the pool, to see too many of them
    #[arg(long)]
    without_bucket: bool,
}

/// Connections, idle ones included.
struct Connections {
    start: Instant,
    size: usize,
    open: usize,
    opened: usize,
    history: History,
}

impl Connections {
    fn record(&mut self) {
        self.history.record(self.start.elapsed(), self.size, self.open);
    }
}

/// A connection that is counted while it is open.
struct Counted {
    connection: Connection,
    all: Arc<Mutex<Connections>>,
}

impl Counted {
    fn open(path: &Path, all: &Arc<Mutex<Connections>>) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        let mut counts = all.lock().unwrap();
        counts.open += 1;
        counts.opened += 1;
        counts.record();
        Ok(Self { connection, all: Arc::clone(all) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap();
        counts.open -= 1;
        counts.record();
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let phase = Duration::from_millis(if options.common.short { 200 } else { 1000 });
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("jobs.db");
    let setup = Connection::open(&path)?;
    setup.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE jobs (worker INTEGER, job INTEGER)")?;

    let start = Instant::now();
    let all = Connections { start, size: SIZES[0], open: 0, opened: 0, history: History::default() };
    let all = Arc::new(Mutex::new(all));
    let (pool_path, pool_all) = (path.clone(), Arc::clone(&all));
    let pool = Pool::new(SIZES[0], move || Counted::open(&pool_path, &pool_all))?;
    let in_use = Mutex::new((0, Monitor::new(SIZES[0])));
    let path_without_pool = options.without_bucket.then_some(path);
    let work = Work { pool, all: Arc::clone(&all), in_use, phase, path_without_pool };
    let (surplus, counts) = thread::scope(|scope| -> Result<_> {
        let work = &work;
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work.run(worker))).collect();
        let surplus = work.resize_all();
        // No worker waits any longer, and all of them finish.
        work.pool.bucket.close_with("the work is done");
        let counts: Result<Vec<i64>> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        Ok((surplus?, counts?))
    })?;
    let end = start.elapsed();

    let outstanding = work.pool.bucket.outstanding();
    let Work { pool, in_use, .. } = work;
    drop(pool);
    let (_, monitor) = in_use.into_inner()?;
    let all = all.lock().unwrap();
    let Connections { open, opened, .. } = *all;
    let mut claims = Claims::default();
    monitor.check(&mut claims, "connections in use");
    claims.check(surplus == 0, format_args!("{surplus} of {} resizes left surplus connections open", SIZES.len()));
    claims.check(open == 0 && outstanding == 0, format_args!("of {opened} connections that were opened, {open} are still open"));
    let done: i64 = counts.iter().sum();
    let rows: i64 = setup.query_row("SELECT count(*) FROM jobs", (), |row| row.get(0))?;
    let all_worked = counts.iter().all(|&count| count > 0);
    claims.check(done == rows && all_worked, format_args!("{done} jobs by {WORKERS} workers, {rows} rows in the database"));

    if let Some(path) = &options.common.svg {
        let chart = |title, lines| Chart { title, unit: "connections", change: "resized", lines };
        let charts = [
            chart("Open connections, including idle ones", all.history.lines("size of the pool", "open", end)),
            chart("Connections in use", monitor.lines("size of the pool", "in use", end)),
        ];
        let note = "A shrink closes idle connections at once, and connections in use as they come back.";
        example_support::draw(path, "A connection pool that is resized while it is used", &charts, &[note])?;
    }
    Ok(claims.verdict())
}

struct Work {
    pool: Arc<Pool<Counted>>,
    all: Arc<Mutex<Connections>>,
    in_use: Mutex<(usize, Monitor)>,
    phase: Duration,
    path_without_pool: Option<PathBuf>,
}

impl Work {
    /// Resizes the pool from phase to phase. Returns after how many of the resizes too many connections stayed open.
    fn resize_all(&self) -> Result<usize> {
        let mut progress = Progress::new();
        let mut surplus = 0;
        for size in SIZES {
            self.resize(size)?;
            let until = Instant::now() + self.phase;
            while Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
                progress.print(format_args!("pool of {size}, {} connections open", self.open()));
            }
            surplus += usize::from(!self.is_settled(size));
        }
        // Even if the last size is small, each worker gets its turn.
        self.resize(WORKERS)?;
        Ok(surplus)
    }

    fn open(&self) -> usize {
        self.all.lock().unwrap().open
    }

    /// Whether the surplus connections are closed once those in use are back.
    fn is_settled(&self, size: usize) -> bool {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        if !self.pool.bucket.settled().wait_deadline(deadline) {
            return false;
        }
        while self.open() > size {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn resize(&self, size: usize) -> Result<()> {
        self.all.lock().unwrap().size = size;
        // The lock is for the monitor only.
        let (in_use, monitor) = &mut *self.in_use.lock().unwrap();
        self.pool.resize(size)?;
        monitor.resized(&self.pool.bucket);
        monitor.record(&self.pool.bucket, *in_use);
        self.all.lock().unwrap().record();
        Ok(())
    }

    fn change_in_use(&self, change: impl FnOnce(&mut usize)) {
        let (in_use, monitor) = &mut *self.in_use.lock().unwrap();
        change(in_use);
        monitor.record(&self.pool.bucket, *in_use);
    }

    /// Does one job after another until the pool is closed. Returns how many.
    fn run(&self, worker: usize) -> Result<i64> {
        let mut job = 0;
        // Of different lengths, so that connections come back one by one.
        let times = [1, 9, 2, 16, 3, 25].map(|time| self.phase * time / 100);
        while !self.pool.bucket.is_closed() {
            let time = times[(worker + usize::try_from(job)?) % times.len()];
            if let Some(path) = &self.path_without_pool {
                self.insert(&Counted::open(path, &self.all)?, worker, job, time)?;
            } else {
                match self.pool.get() {
                    Ok(pooled) => self.insert(&pooled, worker, job, time)?,
                    Err(_) if self.pool.bucket.is_closed() => break,
                    Err(error) => return Err(error),
                }
            }
            thread::sleep(time / 2);
            job += 1;
        }
        Ok(job)
    }

    fn insert(&self, counted: &Counted, worker: usize, job: i64, time: Duration) -> Result<()> {
        self.change_in_use(|in_use| *in_use += 1);
        let inserted = counted.connection.execute("INSERT INTO jobs VALUES (?1, ?2)", (i64::try_from(worker)?, job));
        thread::sleep(time);
        self.change_in_use(|in_use| *in_use -= 1);
        inserted?;
        Ok(())
    }
}
