//! A pool of `SQLite` connections that is resized while it is used.
//!
//! ```sh
//! cargo run --release -p pool
//! ```
//!
//! A connection in use has an [`OwnedToken`] beside it. So the bucket limits how many are in use, lets the others wait in order, and knows what
//! a shrink has asked back; the pool only keeps connections for the next one, and closes those that are too many.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use example_support::{Chart, Claims, Common, Progress, Result, Watch};
use rusqlite::Connection;
use token_bucket::{OwnedToken, TokenBucket};

const WORKERS: usize = 12;
const CAPACITIES: [usize; 6] = [8, 2, 12, 0, 5, 1];

/// Works on a database through a pool of connections, while the pool is resized.
#[derive(Parser)]
#[command(name = "pool", after_help = "Exit status: 1 if too many connections were open, or work was lost.")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Use connections without tokens, to see too many of them
    #[arg(long)]
    without_bucket: bool,
}

/// Connections to one database.
struct Pool {
    path: PathBuf,
    bucket: Arc<TokenBucket>,
    shelf: Mutex<Shelf>,
}

struct Shelf {
    idle: Vec<Counted>,
    in_use: usize,
    watch: Watch,
}

/// A connection from a pool. Dropped, it goes back there, or is closed if there are too many.
struct Pooled {
    connection: Option<Counted>,
    pool: Arc<Pool>,
    // Declared last, so it is given back when the connection is on the shelf already.
    _token: Option<OwnedToken>,
}

impl Pool {
    fn new(path: &Path, capacity: usize) -> Result<Arc<Self>> {
        let bucket = Arc::new(TokenBucket::new(1000, capacity)?);
        let shelf = Mutex::new(Shelf { idle: Vec::new(), in_use: 0, watch: Watch::new(capacity) });
        Ok(Arc::new(Self { path: path.to_owned(), bucket, shelf }))
    }

    /// A connection, as soon as one more may be in use.
    fn get(self: &Arc<Self>) -> Result<Pooled> {
        let token = self.bucket.take_owned().wait()?;
        self.get_with(Some(token))
    }

    fn get_with(self: &Arc<Self>, token: Option<OwnedToken>) -> Result<Pooled> {
        let mut shelf = self.shelf.lock().unwrap();
        let idle = shelf.idle.pop();
        shelf.in_use += 1;
        shelf.note(&self.bucket);
        drop(shelf);
        // Made first, so that it is counted out again if the connection cannot be opened.
        let mut pooled = Pooled { connection: idle, pool: Arc::clone(self), _token: token };
        if pooled.connection.is_none() {
            pooled.connection = Some(Counted::open(&self.path)?);
        }
        Ok(pooled)
    }

    /// Never waits. Those that are in use stay so; idle ones that are too many are closed at once.
    fn resize(&self, capacity: usize) -> Result<()> {
        let mut shelf = self.shelf.lock().unwrap();
        self.bucket.set_capacity(capacity)?;
        shelf.watch.resized(&self.bucket);
        shelf.trim(capacity);
        shelf.note(&self.bucket);
        Ok(())
    }
}

impl Shelf {
    fn trim(&mut self, capacity: usize) {
        self.idle.truncate(capacity.saturating_sub(self.in_use));
    }

    fn note(&mut self, bucket: &TokenBucket) {
        self.watch.look(bucket, self.in_use + self.idle.len());
    }
}

impl Pooled {
    fn connection(&self) -> &Connection {
        &self.connection.as_ref().expect("it is taken away on drop only").connection
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut shelf = self.pool.shelf.lock().unwrap();
        shelf.in_use -= 1;
        shelf.idle.extend(self.connection.take());
        shelf.trim(self.pool.bucket.capacity());
        shelf.note(&self.pool.bucket);
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let phase = Duration::from_millis(if options.common.short { 200 } else { 1000 });
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("jobs.db");
    let setup = Connection::open(&path)?;
    setup.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE jobs (worker INTEGER, job INTEGER)")?;

    let pool = Pool::new(&path, CAPACITIES[0])?;
    let start = Instant::now();
    let counts = thread::scope(|scope| -> Result<Vec<i64>> {
        let without_bucket = options.without_bucket;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let pool = &pool;
                scope.spawn(move || work(pool, worker, phase, without_bucket))
            })
            .collect();
        let resized = resize(&pool, phase);
        // Now nobody waits any more, and all go home.
        pool.bucket.close_with("the work is done");
        resized?;
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    })?;
    let end = start.elapsed();

    let pool = Arc::into_inner(pool).ok_or("somebody still has the pool")?;
    let in_use = pool.bucket.outstanding();
    let shelf = pool.shelf.into_inner().unwrap();
    drop(shelf.idle);
    let mut claims = Claims::default();
    shelf.watch.check(&mut claims, "connections were open");
    let [open, opened, most] = [OPEN.load(Ordering::SeqCst), OPENED.load(Ordering::SeqCst), MOST.load(Ordering::SeqCst)];
    let largest = CAPACITIES.into_iter().max().unwrap_or(0);
    claims.check(most <= largest, format_args!("{most} connections were open at most, and {largest} were allowed at most"));
    claims.check(open == 0 && in_use == 0, format_args!("of {opened} connections that were opened, {open} are still open"));
    let done: i64 = counts.iter().sum();
    let rows: i64 = setup.query_row("SELECT count(*) FROM jobs", (), |row| row.get(0))?;
    claims.check(
        done == rows && counts.iter().all(|&count| count > 0),
        format_args!("{done} jobs by {WORKERS} workers, {rows} rows"),
    );

    if let Some(path) = &options.common.svg {
        let lines = shelf.watch.lines("open connections", end);
        example_support::draw(path, "A pool that is resized while it is used", &[Chart { y: "connections", lines }])?;
    }
    Ok(claims.verdict())
}

fn resize(pool: &Pool, phase: Duration) -> Result<()> {
    let mut progress = Progress::new();
    for capacity in CAPACITIES {
        pool.resize(capacity)?;
        let until = Instant::now() + phase;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            progress.say(format_args!("capacity {capacity}, {} connections open", OPEN.load(Ordering::SeqCst)));
        }
    }
    // From 0, say, the workers go on.
    pool.resize(WORKERS)
}

/// One job after the other, until the bucket is closed. Returns how many.
fn work(pool: &Arc<Pool>, worker: usize, phase: Duration, without_bucket: bool) -> Result<i64> {
    let mut job = 0;
    // They take different times, so that connections come back one by one.
    let times = [1, 9, 2, 16, 3, 25].map(|time| phase * time / 100);
    loop {
        let pooled = if without_bucket {
            if pool.bucket.is_closed() {
                return Ok(job);
            }
            pool.get_with(None)?
        } else {
            match pool.get() {
                Ok(pooled) => pooled,
                Err(_) if pool.bucket.is_closed() => return Ok(job),
                Err(error) => return Err(error),
            }
        };
        pooled.connection().execute("INSERT INTO jobs VALUES (?1, ?2)", (i64::try_from(worker)?, job))?;
        let time = times[(worker + usize::try_from(job)?) % times.len()];
        thread::sleep(time);
        drop(pooled);
        thread::sleep(time / 2);
        job += 1;
    }
}

static OPEN: AtomicUsize = AtomicUsize::new(0);
static OPENED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// A connection that is counted while it is open.
struct Counted {
    connection: Connection,
}

impl Counted {
    fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        OPENED.fetch_add(1, Ordering::SeqCst);
        MOST.fetch_max(OPEN.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let counted = Self { connection };
        counted.connection.busy_timeout(Duration::from_secs(10))?;
        counted.connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::SeqCst);
    }
}
