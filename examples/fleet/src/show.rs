//! What happens to the processes, and what must hold meanwhile.

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fleet::server::Server;
use redis::Commands as _;

use crate::board::{Board, Capacities, SAMPLE};
use crate::proxy::Proxy;
use crate::{LIMIT, Pace, Result, member, picture};

/// More workers than tokens: the largest possible demand.
const ALL: usize = LIMIT + 6;
const HELD_UP: Duration = Duration::MAX;

/// Runs the show. Returns whether all claims hold.
pub(crate) fn run(is_short: bool, without_limit: bool, svg: Option<&Path>) -> Result<bool> {
    let server = Server::start()?;
    eprintln!("Redis listens on port {}", server.port());
    let mut show = Show {
        proxy: Proxy::start(server.port())?,
        server,
        board: Board::start()?,
        members: BTreeMap::new(),
        pace: Pace::new(is_short),
        is_short,
        without_limit,
        events: Vec::new(),
        all_hold: true,
    };
    let scenes = show.scenes();
    let (most, jobs) = {
        let state = show.board.state();
        (state.most, state.jobs)
    };
    show.claim(most <= LIMIT, &format!("at most {most} of {jobs} jobs ran at a time; the limit is {LIMIT}"));
    if let (Some(path), Ok(())) = (svg, &scenes) {
        picture::draw(path, &show.board.state(), &show.events)?;
        eprintln!("picture written to {}", path.display());
    }
    match scenes {
        Err(error) if show.all_hold => Err(error),
        _ => Ok(show.all_hold),
    }
}

struct Show {
    server: Server,
    proxy: Proxy,
    board: Board,
    members: BTreeMap<char, Child>,
    pace: Pace,
    is_short: bool,
    without_limit: bool,
    events: Vec<(Duration, &'static str)>,
    all_hold: bool,
}

impl Drop for Show {
    fn drop(&mut self) {
        for name in ['A', 'B', 'C', 'D', 'E'] {
            let _ = self.kill(name);
        }
    }
}

impl Show {
    fn scenes(&mut self) -> Result<()> {
        self.event("A, B and C start");
        for name in ['A', 'B', 'C'] {
            self.start(name)?;
            self.demand(name, ALL)?;
        }
        self.wait("equal demands give equal shares", |now| now.len() == 3 && now.values().all(|&share| share == LIMIT / 3))?;

        self.event("B and C have little to do");
        self.demand('B', 2)?;
        self.demand('C', 2)?;
        self.wait("shares follow demand", |now| now.get(&'A').is_some_and(|&share| share >= LIMIT - 6))?;

        self.event("A is killed (kill -9)");
        self.kill('A')?;
        self.demand('B', ALL)?;
        self.demand('C', ALL)?;
        // One token is reserved for a third process without a lease.
        self.wait("the share of a dead process returns", |now| total(now) == LIMIT - 1)?;

        self.event("D starts");
        self.start('D')?;
        self.demand('D', ALL)?;
        self.wait("a new process gets its share", |now| now.get(&'D') == Some(&(LIMIT / 3)) && total(now) == LIMIT)?;

        self.event("Redis is slow");
        self.proxy.set_delay(self.pace.lease / 40);
        thread::sleep(self.pace.lease);
        self.wait("shares survive a slow Redis", |now| total(now) == LIMIT)?;

        self.event("Redis does not answer");
        self.proxy.set_delay(HELD_UP);
        self.wait("without Redis, each process ends up with its minimum", |now| now.values().all(|&share| share == 1))?;

        self.event("Redis answers again");
        self.proxy.set_delay(Duration::ZERO);
        self.wait("shares are leased again", |now| now.values().all(|&share| share == LIMIT / 3))?;

        self.restart()?;
        self.leave()
    }

    /// Redis loses all leases: that of a process that dies, and those of processes that live.
    fn restart(&mut self) -> Result<()> {
        self.event("C is killed, Redis restarts empty, E starts");
        let lost = self.board.state().begin.elapsed();
        let before = self.board.state().capacities.clone();
        self.kill('C')?;
        self.server.restart()?;
        let ready = self.board.state().begin.elapsed();
        self.start('E')?;
        self.demand('E', ALL)?;
        self.wait("a process that starts after the restart gets its share", |now| now.get(&'E') == Some(&(LIMIT / 3)))?;

        let sample = |at: Duration| u64::try_from(at.as_millis() / SAMPLE.as_millis()).unwrap_or(u64::MAX);
        let nothing_grew = self.board.state().samples.range(sample(lost)..sample(ready + self.pace.lease)).all(|(_, sample)| {
            let may_have = |name| before.get(name).copied().unwrap_or(1);
            sample.capacities.iter().all(|(name, share)| *share <= may_have(name))
        });
        self.claim(nothing_grew, "after the restart, no share grew for one lease time");
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.event("all leave");
        for (name, child) in &mut self.members {
            writeln!(child.stdin.as_ref().ok_or("its input is closed")?, "leave")?;
            let until = Instant::now() + self.pace.lease * 10;
            let status = loop {
                match child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() > until => return Err(format!("{name} does not leave").into()),
                    None => thread::sleep(Duration::from_millis(5)),
                }
            };
            if !status.success() {
                return Err(format!("{name} ended with {status}").into());
            }
        }
        let fields: Vec<String> = self.server.connect()?.hkeys(member::KEY)?;
        let left = fields.iter().filter(|field| !field.starts_with('@')).count();
        self.claim(left == 0, "processes that leave give up their leases");
        Ok(())
    }

    fn start(&mut self, name: char) -> Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("member").arg(name.to_string());
        command.args(["--redis", &self.proxy.port().to_string(), "--board", &self.board.port().to_string()]);
        command.args(self.is_short.then_some("--short")).args(self.without_limit.then_some("--without-limit"));
        self.members.insert(name, command.stdin(Stdio::piped()).spawn()?);
        Ok(())
    }

    fn demand(&mut self, name: char, workers: usize) -> Result<()> {
        let child = self.members.get(&name).ok_or("there is no such process")?;
        Ok(writeln!(child.stdin.as_ref().ok_or("its input is closed")?, "{workers}")?)
    }

    /// Kills a process as `kill -9` does.
    fn kill(&mut self, name: char) -> Result<()> {
        if let Some(mut child) = self.members.remove(&name) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn event(&mut self, name: &'static str) {
        let at = self.board.state().begin.elapsed();
        eprintln!("{:6.2} s: {name}", at.as_secs_f64());
        self.events.push((at, name));
    }

    /// Waits, within bounds, until the condition holds. An exceeded limit ends the show.
    fn wait(&mut self, claim: &str, comes: impl Fn(&Capacities) -> bool) -> Result<()> {
        let board = self.board.clone();
        let came = board.wait(self.pace.lease * 20, |state| state.most > LIMIT || comes(&state.capacities));
        if board.state().most > LIMIT {
            return Err("the limit was exceeded".into());
        }
        self.claim(came, claim);
        let most = board.state().most;
        if came && !self.is_short {
            thread::sleep(self.pace.lease / 2);
        }
        if most == 0 {
            return Err("no job ran".into());
        }
        Ok(())
    }

    fn claim(&mut self, holds: bool, claim: &str) {
        println!("{} {claim}", if holds { "ok    " } else { "FAILED" });
        self.all_hold &= holds;
    }
}

fn total(now: &Capacities) -> usize {
    now.values().sum()
}
