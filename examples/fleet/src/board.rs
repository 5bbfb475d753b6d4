//! Counts the running jobs independently of the buckets under test: workers in all processes report the begin and the end of each job to a
//! TCP server in the parent, and wait for its answer. So the board never counts a job that is not running.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The capacity of each running member, by name.
pub(crate) type Capacities = BTreeMap<char, usize>;

/// What happened in a time span: the last capacities, the largest number of jobs at the same time, and the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) capacities: Capacities,
    pub(crate) most: usize,
    pub(crate) last: usize,
}

/// What is running now, and what has happened.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) begin: Instant,
    /// How many jobs run at this moment, in all processes.
    running: usize,
    pub(crate) most: usize,
    pub(crate) jobs: u64,
    pub(crate) capacities: Capacities,
    pub(crate) samples: BTreeMap<u64, Sample>,
}

/// The length of the time that a sample covers.
pub(crate) const SAMPLE: Duration = Duration::from_millis(10);

impl State {
    fn note(&mut self) {
        let at = u64::try_from(self.begin.elapsed().as_millis() / SAMPLE.as_millis()).unwrap_or(u64::MAX);
        let sample = self.samples.entry(at).or_default();
        sample.capacities.clone_from(&self.capacities);
        sample.most = sample.most.max(self.running);
        sample.last = self.running;
    }

    fn start_job(&mut self) {
        self.running += 1;
        self.most = self.most.max(self.running);
        self.note();
    }

    fn end_job(&mut self) {
        self.note();
        self.running -= 1;
        self.jobs += 1;
        self.note();
    }
}

/// The server. Its threads end with the program.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    state: Arc<(Mutex<State>, Condvar)>,
    port: u16,
}

impl Board {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state =
            State { begin: Instant::now(), running: 0, most: 0, jobs: 0, capacities: BTreeMap::new(), samples: BTreeMap::new() };
        let board = Self { state: Arc::new((Mutex::new(state), Condvar::new())), port: listener.local_addr()?.port() };
        let shared = board.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let board = shared.clone();
                thread::spawn(move || board.serve(&stream));
            }
        });
        Ok(board)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the condition holds, but not longer than `at_most`. Returns whether it holds.
    pub(crate) fn wait(&self, at_most: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let waited = self.state.1.wait_timeout_while(self.state(), at_most, |state| !holds(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.state.1.notify_all();
    }

    /// Serves a connection until it ends, as it does when the process is killed.
    fn serve(&self, stream: &TcpStream) {
        let mut works = false;
        let mut name = None;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                None if line == "begin" && !works => self.change(State::start_job),
                None if line == "end" && works => self.change(State::end_job),
                Some((of, capacity)) => {
                    let (Some(of), Ok(capacity)) = (of.chars().next(), capacity.parse()) else { break };
                    name = Some(of);
                    self.change(|state| {
                        state.note();
                        state.capacities.insert(of, capacity);
                        state.note();
                    });
                    continue;
                }
                None => break,
            }
            works = !works;
            let mut stream = stream;
            if stream.write_all(b"\n").is_err() {
                break;
            }
        }
        if works {
            self.change(State::end_job);
        }
        if let Some(name) = name {
            self.change(|state| {
                state.capacities.remove(&name);
                state.note();
            });
        }
    }
}
