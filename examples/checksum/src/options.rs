//! The command line.

use std::error::Error;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt as _};
use token_bucket::TokenBucket;

const HELP: &str = "\
Prints SHA-256 sums like sha256sum, computed by threads and async tasks that share a token bucket, which is resized meanwhile

Usage: checksum [OPTIONS] [PATH]...

Arguments:
  [PATH]...  Files, and directories to walk [default: this repository, without `target` and `.git`]

Options:
      --threads <N>        Threads, which block while they wait for a token, up to 256 [default: 8]
      --tasks <N>          Async tasks, which wait for a token without blocking a thread, up to 512 [default: 32]
      --max-capacity <N>   Largest capacity of the bucket: how many files are hashed at the same time [default: 16]
      --resize-every <MS>  Milliseconds after which the bucket is resized, unless progress resized it before [default: 50]
      --quiet              Print only checksums and errors
      --svg <PATH>         Draw what happened as an SVG picture
  -h, --help               Print help

Exit status: 1 if a file could not be read, 3 if the bucket broke its guarantee.
";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// See [`HELP`].
pub(crate) struct Options {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) threads: u16,
    pub(crate) tasks: u16,
    pub(crate) max_capacity: usize,
    pub(crate) resize_every: u64,
    pub(crate) quiet: bool,
    pub(crate) svg: Option<PathBuf>,
}

/// Returns the options, or `None` if help was requested and printed.
pub(crate) fn parse() -> Result<Option<Options>> {
    let mut options =
        Options { paths: Vec::new(), threads: 8, tasks: 32, max_capacity: 16, resize_every: 50, quiet: false, svg: None };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("threads") => options.threads = number(&mut parser, "--threads", |n: u16| in_range(n, 0, 256))?,
            Arg::Long("tasks") => options.tasks = number(&mut parser, "--tasks", |n: u16| in_range(n, 0, 512))?,
            // The bucket itself checks its capacity.
            Arg::Long("max-capacity") => {
                options.max_capacity = number(&mut parser, "--max-capacity", |n| Ok(TokenBucket::new(n, 0).map(drop)?))?;
            }
            Arg::Long("resize-every") => {
                options.resize_every = number(&mut parser, "--resize-every", |n: u64| in_range(n, 1, u64::MAX))?;
            }
            Arg::Long("quiet") => options.quiet = true,
            Arg::Long("svg") => options.svg = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Arg::Value(path) => options.paths.push(path.into()),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if options.threads == 0 && options.tasks == 0 {
        return Err("--threads and --tasks are both 0, so there would be no worker".into());
    }
    Ok(Some(options))
}

/// Returns the value of an option if it passes the check.
fn number<N: Copy + FromStr<Err: Error + 'static>>(
    parser: &mut Parser,
    option: &str,
    check: impl Fn(N) -> Result<()>,
) -> Result<N> {
    let text = parser.value()?.string()?;
    let number = text.parse().map_err(Into::into).and_then(|n| check(n).map(|()| n));
    number.map_err(|error| format!("invalid value '{text}' for '{option}': {error}").into())
}

fn in_range<N: Copy + PartialOrd + Display>(n: N, least: N, most: N) -> Result<()> {
    if n < least || n > most { Err(format!("{n} is not in {least}..={most}").into()) } else { Ok(()) }
}
