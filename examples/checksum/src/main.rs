//! Prints the checksums of files as `sha256sum` does, computed by threads and async tasks that share one bucket.
//!
//! ```sh
//! cargo run --release -p checksum -- /usr/lib/python3 | sha256sum --check --quiet
//! ```
//!
//! A thread or task holds a token while it hashes a file. Meanwhile the bucket is resized up and down, even to 1 and 0, and at every
//! take and every resize the program checks what a bucket guarantees: see [`Audit`].

mod options;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use async_channel::{Receiver, Sender};
use async_executor::Executor;
use blocking::{Unblock, unblock};
use example_support::{Chart, History};
use futures_lite::{future, io as async_io};
use indicatif::{HumanBytes, ProgressBar, ProgressState, ProgressStyle};
use options::Options;
use sha2::{Digest as _, Sha256};
use token_bucket::{Snapshot, TokenBucket};
use walkdir::{DirEntry, WalkDir};

/// How long the capacity may be 0, and how often the program checks whether a resize is due.
const BLINK: Duration = Duration::from_millis(10);
const PATHS_AHEAD: usize = 1024;
const BYTES_AHEAD: usize = 64 * 1024;
const EXECUTOR_THREADS: usize = 2;

/// A file, and its position in the output.
type Job = (usize, PathBuf);
/// The checksum and length of a file.
type Outcome = (usize, PathBuf, io::Result<(String, u64)>);

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n\nFor more information, try '--help'.");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let run = Arc::new(Run::new(options.max_capacity, options.svg.as_ref().map(|_| start)));
    let bar = progress_bar(&run, options.quiet);
    let mut output = Output { bar: &bar, files: 0, bytes: 0, errors: 0, is_open: true, is_terminal: io::stdout().is_terminal() };
    hash_all(&options, &run, &mut output);
    bar.finish_and_clear();

    let mut audit = run.audit.lock().unwrap();
    audit.finish(&run.bucket);
    if let Some(path) = &options.svg {
        let lines = audit.history.lines("capacity of the bucket", "in flight", start.elapsed());
        let chart = Chart { title: "Files being hashed at the same time", unit: "files", change: "resized", lines };
        if let Err(error) = example_support::draw(path, "Hashing files while the limit is resized", &[chart], &[]) {
            say(&bar, format_args!("{}: {error}", path.display()));
            return ExitCode::FAILURE;
        }
    }
    if !options.quiet {
        say(&bar, format_args!("{} files, {}, {:.1?}", output.files, HumanBytes(output.bytes), start.elapsed()));
        say(&bar, format_args!("{}", audit.summary()));
    }
    if let Some(broken) = &audit.broken {
        say(&bar, format_args!("the bucket broke its guarantee: {broken}"));
        return ExitCode::from(3);
    }
    if output.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts the threads and tasks, prints the results, and returns when all of them have finished.
fn hash_all(options: &Options, run: &Arc<Run>, output: &mut Output<'_>) {
    let bar = output.bar;
    let executor = Executor::new();
    let (to_do, jobs) = async_channel::bounded(PATHS_AHEAD);
    let (done, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        let (stop, stopped) = async_channel::bounded::<()>(1);
        for _ in 0..EXECUTOR_THREADS {
            let (executor, stopped) = (&executor, stopped.clone());
            scope.spawn(move || future::block_on(executor.run(stopped.recv())));
        }
        for _ in 0..options.threads {
            let (jobs, done) = (jobs.clone(), done.clone());
            scope.spawn(move || work_in_thread(run, &jobs, &done));
        }
        for _ in 0..options.tasks {
            executor.spawn(work_in_task(Arc::clone(run), jobs.clone(), done.clone())).detach();
        }
        let period = Duration::from_millis(options.resize_every);
        let stop_resizes = every(scope, BLINK.min(period), move || run.resize_if_due(period));
        let status = move || say(bar, format_args!("{} done, {}", bar.position(), run.status()));
        let stop_status = (bar.is_hidden() && !options.quiet).then(|| every(scope, Duration::from_secs(1), status));
        // Only the workers have a receiver now: when they finish, the walk ends.
        drop(jobs);
        scope.spawn(move || walk(&options.paths, bar, &to_do, &done));
        output.print_in_order(&outcomes, &run.bucket);
        drop((stop, stop_resizes, stop_status));
    });
}

/// Calls `action` periodically in a thread of its own, until the returned sender is dropped.
fn every<'scope>(scope: &'scope Scope<'scope, '_>, period: Duration, action: impl Fn() + Send + 'scope) -> mpsc::Sender<()> {
    let (stop, stopped) = mpsc::channel();
    scope.spawn(move || {
        while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            action();
        }
    });
    stop
}

/// Without the statistics, a take would be just `bucket.take().wait()`.
fn work_in_thread(run: &Run, jobs: &Receiver<Job>, done: &mpsc::Sender<Outcome>) {
    while let Ok((index, path)) = jobs.recv_blocking() {
        let mut waited = false;
        let token = run.bucket.try_take().or_else(|_| {
            waited = true;
            run.bucket.take().wait()
        });
        let Ok(token) = token else { return };
        run.enter(waited);
        let result = hash(&path);
        run.leave();
        drop(token);
        let _ = done.send((index, path, result));
    }
}

/// Without the statistics, a take would be just `bucket.take_owned().await`.
async fn work_in_task(run: Arc<Run>, jobs: Receiver<Job>, done: mpsc::Sender<Outcome>) {
    while let Ok((index, path)) = jobs.recv().await {
        let (token, waited) = match run.bucket.try_take_owned() {
            Ok(token) => (Ok(token), false),
            Err(_) => (run.bucket.take_owned().await, true),
        };
        let Ok(token) = token else { return };
        run.enter(waited);
        let result = hash_async(path.clone()).await;
        run.leave();
        drop(token);
        let _ = done.send((index, path, result));
    }
}

fn hash(path: &Path) -> io::Result<(String, u64)> {
    let mut sha = Sha256::new();
    let bytes = io::copy(&mut fs::File::open(path)?, &mut sha)?;
    Ok((format!("{:x}", sha.finalize()), bytes))
}

async fn hash_async(path: PathBuf) -> io::Result<(String, u64)> {
    let mut sha = Sha256::new();
    let file = unblock(|| fs::File::open(path)).await?;
    let file = Unblock::with_capacity(BYTES_AHEAD, file);
    let bytes = async_io::copy(file, async_io::AssertAsync::new(&mut sha)).await?;
    Ok((format!("{:x}", sha.finalize()), bytes))
}

/// Numbers the files and sends them to the workers.
fn walk(roots: &[PathBuf], bar: &ProgressBar, to_do: &Sender<Job>, done: &mpsc::Sender<Outcome>) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned);
    let (roots, skipped): (_, &[&str]) = if roots.is_empty() { (repository.as_slice(), &["target", ".git"]) } else { (roots, &[]) };
    let found = roots.iter().flat_map(|root| files_below(root, skipped));
    for (index, (path, result)) in found.enumerate() {
        bar.inc_length(1);
        let is_sent = match result {
            Ok(()) => to_do.send_blocking((index, path)).is_ok(),
            Err(error) => done.send((index, path, Err(error))).is_ok(),
        };
        if !is_sent {
            return;
        }
    }
}

/// Regular files in order, and errors for what cannot be read. A symbolic link is followed only if it is the root.
fn files_below(root: &Path, skipped: &[&str]) -> impl Iterator<Item = (PathBuf, io::Result<()>)> {
    let is_wanted = |entry: &DirEntry| entry.depth() == 0 || !skipped.iter().any(|name| entry.file_name() == *name);
    WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(is_wanted).filter_map(|entry| {
        let (path, is_root, found) = match entry {
            Ok(entry) if entry.depth() == 0 => (entry.path().to_owned(), true, fs::metadata(entry.path())),
            Ok(entry) => (entry.path().to_owned(), false, entry.metadata().map_err(without_path)),
            Err(error) => (error.path().unwrap_or(root).to_owned(), false, Err(without_path(error))),
        };
        match found {
            Ok(found) if found.is_file() => Some((path, Ok(()))),
            Ok(found) if is_root && !found.is_dir() => Some((path, Err(io::Error::other("Not a regular file")))),
            Ok(_) => None,
            Err(error) => Some((path, Err(error))),
        }
    })
}

/// Removes the path from the error, as it is printed anyway.
fn without_path(error: walkdir::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// State shared by the workers.
struct Run {
    bucket: Arc<TokenBucket>,
    audit: Mutex<Audit>,
}

impl Run {
    fn new(max_capacity: usize, start: Option<Instant>) -> Self {
        let bucket = TokenBucket::new(max_capacity, max_capacity).expect("the option was checked");
        let audit = Audit { capacity: max_capacity, ceiling: max_capacity, next_resize: 3, start, ..Audit::default() };
        Self { bucket: Arc::new(bucket), audit: Mutex::new(audit) }
    }

    /// Call this right after a take.
    fn enter(&self, waited: bool) {
        let mut audit = self.audit.lock().unwrap();
        audit.in_flight += 1;
        audit.waits += usize::from(waited);
        audit.look(self.bucket.snapshot());
    }

    /// Call this right before the token is dropped. Resizes by progress, so that even a few small files see all capacities.
    fn leave(&self) {
        let mut audit = self.audit.lock().unwrap();
        audit.in_flight -= 1;
        audit.files += 1;
        if audit.files >= audit.next_resize {
            audit.resize(&self.bucket);
        }
    }

    /// Resizes by time. At capacity 0 there is no progress, so it is raised soon.
    fn resize_if_due(&self, period: Duration) {
        let mut audit = self.audit.lock().unwrap();
        if audit.capacity == 0 || audit.last_resize.is_none_or(|at| at.elapsed() >= period) {
            audit.resize(&self.bucket);
        }
    }

    fn status(&self) -> String {
        let Snapshot { capacity, outstanding, deficit, .. } = self.bucket.snapshot();
        let waiting = self.bucket.waiting();
        format!("capacity {capacity}, outstanding {outstanding}, deficit {deficit}, waiting {waiting}")
    }
}

/// Resizes the bucket, and checks what it guarantees:
///
/// A take finds its tokens in the bucket, so it never raises the number of outstanding tokens above the capacity in force. More are
/// outstanding only after a later shrink, and then their number can only decrease. Therefore, between two checks, at most the *ceiling* is
/// outstanding: the capacity or, if that is larger, the number of outstanding tokens at the first check. A resize takes no token.
///
/// The check has no race, because the bucket is resized and checked under one lock. The files in flight are counted under the same
/// lock, after the take and before the drop: each holds a token, so the bucket must report at least as many as outstanding.
#[derive(Default)]
struct Audit {
    in_flight: usize,
    capacity: usize,
    ceiling: usize,
    broken: Option<String>,
    files: usize,
    next_resize: usize,
    last_resize: Option<Instant>,
    // For the summary.
    resizes: usize,
    waits: usize,
    /// The most files in flight, and the ceiling then.
    most: (usize, usize),
    largest_deficit: usize,
    // For the picture.
    history: History,
    start: Option<Instant>,
}

impl Audit {
    fn resize(&mut self, bucket: &TokenBucket) {
        let max = bucket.max_capacity();
        let steps = [max.div_ceil(2), 1, 0, max.div_ceil(4), max];
        let capacity = steps[self.resizes % steps.len()];
        // The bucket is closed when the reader of the output is gone.
        let Ok(now) = bucket.set_capacity(capacity) else { return };
        self.capacity = capacity;
        self.look(now);
        self.resizes += 1;
        self.last_resize = Some(Instant::now());
        self.next_resize = self.files + (self.files / 4).clamp(3, 500);
    }

    fn look(&mut self, now: Snapshot) {
        let Self { in_flight, capacity, ceiling, .. } = *self;
        if !(in_flight <= now.outstanding && now.outstanding <= ceiling && now.capacity == capacity) {
            self.broken.get_or_insert(format!("{in_flight} in flight, at most {ceiling} allowed, capacity {capacity}: {now:?}"));
        }
        self.ceiling = now.outstanding.max(now.capacity);
        if let Some(start) = self.start {
            self.history.record(start.elapsed(), now.capacity, in_flight);
        }
        self.most = self.most.max((in_flight, self.ceiling));
        self.largest_deficit = self.largest_deficit.max(now.deficit);
    }

    fn summary(&self) -> String {
        let Self { resizes, waits, most: (most, ceiling), largest_deficit, .. } = self;
        format!(
            "{resizes} resizes, {waits} takes waited; most in flight: {most} of {ceiling} allowed; largest deficit: {largest_deficit}"
        )
    }

    /// Checks that all tokens are back at the end.
    fn finish(&mut self, bucket: &TokenBucket) {
        let (now, waiting) = (bucket.snapshot(), bucket.waiting());
        if now.outstanding != 0 || now.available != now.capacity || waiting != 0 {
            self.broken.get_or_insert(format!("all workers have finished, but {waiting} wait: {now:?}"));
        }
    }
}

struct Output<'a> {
    bar: &'a ProgressBar,
    files: usize,
    bytes: u64,
    errors: usize,
    is_open: bool,
    is_terminal: bool,
}

impl Output<'_> {
    /// Prints each outcome as soon as it and all earlier ones are available.
    fn print_in_order(&mut self, outcomes: &mpsc::Receiver<Outcome>, bucket: &TokenBucket) {
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (index, path, result) in outcomes {
            self.bar.inc(1);
            early.insert(index, (path, result));
            while let Some((path, result)) = early.remove(&next) {
                next += 1;
                match result {
                    Ok((sum, bytes)) => self.print(&line(&sum, &path), bytes),
                    Err(error) => self.complain(format_args!("{}: {error}", path.display())),
                }
            }
            if !self.is_open {
                // Ends all waiting workers.
                bucket.close();
            }
        }
    }

    fn print(&mut self, line: &[u8], bytes: u64) {
        if !self.is_open {
            return;
        }
        let print = || io::stdout().write_all(line);
        // Only on a terminal is the bar in the way.
        if let Err(error) = if self.is_terminal { self.bar.suspend(print) } else { print() } {
            self.is_open = false;
            // A reader that stops early, such as `head`, is no error.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.complain(format_args!("write error: {error}"));
            }
            return;
        }
        self.files += 1;
        self.bytes += bytes;
        self.bar.set_message(HumanBytes(self.bytes).to_string());
    }

    fn complain(&mut self, message: fmt::Arguments<'_>) {
        self.errors += 1;
        say(self.bar, message);
    }
}

/// Prints to stderr. Errors are ignored, as they could not be reported anywhere.
fn say(bar: &ProgressBar, message: fmt::Arguments<'_>) {
    bar.suspend(|| {
        let _ = writeln!(io::stderr(), "checksum: {message}");
    });
}

/// A line as GNU `sha256sum` prints it: a leading backslash means that the name contains escapes.
fn line(sum: &str, path: &Path) -> Vec<u8> {
    let mut name = Vec::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' => name.extend(b"\\\\"),
            b'\n' => name.extend(b"\\n"),
            b'\r' => name.extend(b"\\r"),
            _ => name.push(byte),
        }
    }
    let mark = if name.len() == path.as_os_str().len() { "" } else { "\\" };
    [mark.as_bytes(), sum.as_bytes(), b"  ", &name, b"\n"].concat()
}

fn progress_bar(run: &Arc<Run>, is_quiet: bool) -> ProgressBar {
    if is_quiet {
        return ProgressBar::hidden();
    }
    let run = Arc::clone(run);
    let style = ProgressStyle::with_template("{spinner} {bar:40} {pos}/{len} files, {msg}, {elapsed}\n  {bucket}")
        .expect("the template is valid")
        .with_key("bucket", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&run.status());
        });
    let bar = ProgressBar::new(0).with_style(style).with_message("0 B");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
