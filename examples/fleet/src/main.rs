//! Several processes share one limit through a real Redis, while processes are killed and Redis is slow, away, or restarted.
//!
//! ```sh
//! cargo run --release -p fleet
//! ```
//!
//! The lease logic is in `lease.rs` and `lease.lua`. This program starts a Redis server, a proxy that makes it slow, and processes
//! that do jobs. It counts the jobs that run at the same time, and checks that there are never more than the limit.

mod board;
mod member;
mod picture;
mod proxy;
mod show;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fleet::lease::Terms;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LIMIT: usize = 24;

/// Shares one limit among several processes through Redis, while processes are killed and Redis is slow, away, or restarted.
#[derive(Debug, Parser)]
#[command(name = "fleet", after_help = "Exit status: 1 if a claim fails, such as that the limit is never exceeded.")]
struct Options {
    /// Run for a few seconds only
    #[arg(long)]
    short: bool,
    /// Draw what happened as an SVG picture
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// Do jobs without tokens, to see the limit exceeded
    #[arg(long)]
    without_limit: bool,
    #[command(subcommand)]
    role: Option<Roles>,
}

#[derive(Debug, Subcommand)]
enum Roles {
    /// One of the processes; the program starts them itself
    #[command(hide = true)]
    Member(member::Role),
}

/// The times of the whole program.
#[derive(Clone, Copy, Debug)]
struct Pace {
    lease: Duration,
    work: Duration,
    /// The shortest job; the longest takes four times as long.
    job: Duration,
}

impl Pace {
    fn new(is_short: bool) -> Self {
        let [lease, work, job] = if is_short { [600, 300, 10] } else { [2000, 600, 40] }.map(Duration::from_millis);
        Self { lease, work, job }
    }

    fn terms(self) -> Terms {
        Terms { limit: LIMIT, minimum: 1, processes: 3, lease: self.lease, work: self.work }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.role {
        Some(Roles::Member(role)) => member::run(role).map(|()| true),
        None => show::run(options.short, options.without_limit, options.svg.as_deref()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}
