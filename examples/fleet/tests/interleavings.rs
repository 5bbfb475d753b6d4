//! Random interleavings of takes, renewals, lost and late messages, crashes and a Redis that forgets, against a real Redis: the
//! tokens held never exceed the limit.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use fleet::lease::{Request, Share, Terms};
use fleet::server::Server;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Commands as _, Connection};
use token_bucket::Token;

const KEY: &str = "fleet";
const MEMBERS: usize = 3;
const TERMS: Terms =
    Terms { limit: 14, minimum: 1, processes: MEMBERS, lease: Duration::from_millis(40), work: Duration::from_millis(10) };

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A member takes as many tokens as it can, up to a number.
    Take(usize, usize),
    Return(usize, usize),
    /// A request is sent. The previous one may still be on its way, but the member no longer waits for its answer.
    Send(usize),
    /// The latest request of a member reaches Redis, and the answer is on its way.
    Deliver(usize),
    /// The answer reaches the member.
    Answer(usize),
    /// All three, as usual.
    Renew(usize),
    /// One of the requests that members have given up reaches Redis.
    DeliverLate(usize),
    /// A process is killed, and another one starts.
    Crash(usize),
    /// Redis loses the key.
    Lose,
    /// Redis saves its data.
    Save,
    /// Redis is replaced by another server, with the saved data.
    FailOver,
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS;
    prop_oneof![
        8 => (member(), 1..15_usize).prop_map(|(member, n)| Step::Take(member, n)),
        5 => (member(), 1..15_usize).prop_map(|(member, n)| Step::Return(member, n)),
        4 => member().prop_map(Step::Send),
        4 => member().prop_map(Step::Deliver),
        4 => member().prop_map(Step::Answer),
        12 => member().prop_map(Step::Renew),
        3 => (0..8_usize).prop_map(Step::DeliverLate),
        1 => member().prop_map(Step::Crash),
        1 => Just(Step::Lose),
        1 => Just(Step::Save),
        1 => Just(Step::FailOver),
        4 => (1..15_u64).prop_map(Step::Sleep),
    ]
}

struct Process {
    share: &'static Share,
    held: Vec<Token<'static>>,
    request: Option<Request>,
    answer: Option<(Request, usize)>,
}

impl Process {
    fn new() -> Self {
        let share = Box::leak(Box::new(Share::new(TERMS).unwrap()));
        Self { share, held: Vec::new(), request: None, answer: None }
    }

    /// What it may hold without asking Redis. If its lease has ended, the work beyond the minimum is ended first.
    fn may_hold(&mut self) -> usize {
        if self.share.is_overdue() {
            self.held.truncate(TERMS.minimum);
        }
        let now = self.share.snapshot();
        assert_eq!(now.outstanding, self.held.len());
        now.capacity.max(now.outstanding)
    }
}

struct World {
    redis: Connection,
    processes: Vec<Process>,
    late: Vec<Request>,
    saved: Option<Vec<u8>>,
}

impl World {
    fn new(mut redis: Connection) -> Self {
        redis.del::<_, ()>(KEY).unwrap();
        let mut world = Self { redis, processes: Vec::new(), late: Vec::new(), saved: None };
        world.processes.resize_with(MEMBERS, Process::new);
        // No member has an older lease, so the grace period is not needed.
        world.step(Step::Renew(0));
        world.redis.hset::<_, _, _, ()>(KEY, "@grace", 0).unwrap();
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Take(member, n) => {
                let Process { share, held, .. } = &mut self.processes[member];
                held.extend((0..n).map_while(|_| share.try_take().ok()));
            }
            Step::Return(member, n) => {
                let held = &mut self.processes[member].held;
                held.truncate(held.len().saturating_sub(n));
            }
            Step::Send(member) => {
                let process = &mut self.processes[member];
                self.late.extend(process.request.replace(process.share.request()));
                process.answer = None;
            }
            Step::Deliver(member) => {
                let process = &mut self.processes[member];
                if let Some(request) = process.request.take() {
                    process.answer = request.send(&mut self.redis, KEY).ok().map(|share| (request, share));
                }
            }
            Step::Answer(member) => {
                let process = &mut self.processes[member];
                if let Some((request, share)) = process.answer.take() {
                    process.share.accept(&request, share);
                }
            }
            Step::Renew(member) => {
                self.step(Step::Send(member));
                self.step(Step::Deliver(member));
                self.step(Step::Answer(member));
            }
            Step::DeliverLate(n) => {
                if n < self.late.len() {
                    let _ = self.late.swap_remove(n).send(&mut self.redis, KEY);
                }
            }
            Step::Crash(member) => {
                let dead = std::mem::replace(&mut self.processes[member], Process::new());
                self.late.extend(dead.request);
            }
            Step::Lose => self.redis.del(KEY).unwrap(),
            Step::Save => self.saved = redis::cmd("DUMP").arg(KEY).query(&mut self.redis).unwrap(),
            Step::FailOver => {
                self.redis.del::<_, ()>(KEY).unwrap();
                if let Some(saved) = &self.saved {
                    redis::cmd("RESTORE").arg(KEY).arg(0).arg(saved).exec(&mut self.redis).unwrap();
                    self.redis.hset::<_, _, _, ()>(KEY, "@run", "another").unwrap();
                }
            }
            Step::Sleep(ms) => sleep(Duration::from_millis(ms)),
        }
    }
}

#[test]
fn the_total_is_never_above_the_limit() {
    let server = Server::start().unwrap();
    let most = Cell::new(0);
    let config = Config { cases: 60, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let all_hold = TestRunner::new(config).run(&vec(step(), 50..300), |steps| {
        let mut world = World::new(server.connect().unwrap());
        for (i, step) in steps.into_iter().enumerate() {
            let name = format!("{i}: {step:?}");
            world.step(step);
            let each: Vec<_> = world.processes.iter_mut().map(Process::may_hold).collect();
            let total = each.iter().sum::<usize>();
            prop_assert!(total <= TERMS.limit, "{each:?} after step {name}");
            most.set(most.get().max(world.processes.iter().map(|process| process.held.len()).sum()));
        }
        Ok(())
    });
    all_hold.unwrap();
    assert_eq!(most.get(), TERMS.limit, "the limit was never used");
}
