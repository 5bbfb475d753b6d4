//! One of the processes that share the limit. It does jobs and reports them to the board.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fleet::lease::{Member, Share};

use crate::{LIMIT, Pace, Result};

pub(crate) const KEY: &str = "fleet";

#[derive(clap::Args, Debug)]
pub(crate) struct Role {
    name: char,
    #[arg(long)]
    redis: u16,
    #[arg(long)]
    board: u16,
    #[arg(long)]
    short: bool,
    #[arg(long)]
    without_limit: bool,
}

/// How many of the workers do jobs.
#[derive(Debug, Default)]
struct Gate(Mutex<usize>, Condvar);

impl Gate {
    fn set(&self, active: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = active;
        self.1.notify_all();
    }

    fn pass(&self, worker: usize) {
        let active = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(active, |active| worker >= *active));
    }
}

/// Does jobs until it is told to leave, or its input ends because its parent has ended.
pub(crate) fn run(role: &Role) -> Result<()> {
    let pace = Pace::new(role.short);
    let member = Member::join(&format!("redis://127.0.0.1:{}", role.redis), KEY, pace.terms())?;
    let gate = Arc::new(Gate::default());
    for worker in 0..LIMIT + 6 {
        let (board, share, gate) = (connect(role.board)?, Arc::clone(member.share()), Arc::clone(&gate));
        let without_limit = role.without_limit;
        thread::spawn(move || {
            // The board or the member is gone.
            let _ = work(worker, &board, &share, &gate, pace, without_limit);
        });
    }
    let (board, share, name) = (connect(role.board)?, Arc::clone(member.share()), role.name);
    thread::spawn(move || report(name, &board, &share));
    for line in io::stdin().lines() {
        let line = line?;
        if line == "leave" {
            member.leave();
            break;
        }
        gate.set(line.parse()?);
    }
    Ok(())
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn work(worker: usize, board: &TcpStream, share: &Share, gate: &Gate, pace: Pace, without_limit: bool) -> Result<()> {
    let mut answers = BufReader::new(board).lines();
    let mut tell = |mut board: &TcpStream, line: &[u8]| {
        board.write_all(line)?;
        answers.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    };
    for job in 0.. {
        gate.pass(worker);
        let token = if without_limit { None } else { Some(share.take()?) };
        tell(board, b"begin\n")?;
        thread::sleep(pace.job * (1 + (u32::try_from(worker)? + job) % 4));
        tell(board, b"end\n")?;
        drop(token);
    }
    Ok(())
}

/// Reports each change of the capacity, and ends the process if its work outlives its lease.
fn report(name: char, mut board: &TcpStream, share: &Share) {
    let mut last = None;
    loop {
        if share.is_overdue() {
            eprintln!("{name} has failed: its work outlived its lease");
            process::exit(3);
        }
        let now = share.snapshot();
        if last.replace(now.capacity) != Some(now.capacity) && writeln!(board, "{name} {}", now.capacity).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(3));
    }
}
