//! Every operation, at random, without blocking: when all threads have ended, no waiter may sleep that could proceed, and every
//! token is accounted for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use token_bucket::{Fairness, Token, TokenBucket};

use crate::trace;
use crate::waiting::{Kind, Outcome, Shared, Waiting, set_at_rest};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The capacity changes, and no token comes from outside.
    Resizes,
    /// Tokens come from outside, and the capacity stays.
    Deposits,
    /// Both, and the bucket may be closed: the numbers are not checked.
    Everything,
}

pub(crate) fn resizes(fairness: Fairness, threads: usize) {
    run(Program::Resizes, fairness, threads);
}

pub(crate) fn deposits(fairness: Fairness, threads: usize) {
    run(Program::Deposits, fairness, threads);
}

pub(crate) fn everything(fairness: Fairness, threads: usize) {
    run(Program::Everything, fairness, threads);
}

struct World<'a> {
    program: Program,
    bucket: &'a TokenBucket,
    clock: AtomicUsize,
    /// The smallest capacity that was ever set: a request for no more could always be satisfied.
    least_capacity: AtomicUsize,
    /// Tokens that came from outside, that were forgotten, and that had no room when they came back.
    deposited: AtomicUsize,
    forgotten: AtomicUsize,
    lost: AtomicUsize,
    /// Tokens may have had no room, so that the numbers tell nothing.
    may_have_lost: AtomicBool,
    held: Mutex<Vec<Token<'a>>>,
    waiting: Mutex<Vec<Shared<'a>>>,
}

fn run(program: Program, fairness: Fairness, threads: usize) {
    set_at_rest(false);
    let (max, capacity) = match program {
        Program::Resizes => (40, thread_rng().gen_range(0..4)),
        _ => (4, thread_rng().gen_range(1..5)),
    };
    let bucket = &TokenBucket::const_new(max, capacity).with_fairness(fairness);
    let world = World {
        program,
        bucket,
        clock: AtomicUsize::new(0),
        least_capacity: AtomicUsize::new(capacity),
        deposited: AtomicUsize::new(0),
        forgotten: AtomicUsize::new(0),
        lost: AtomicUsize::new(0),
        may_have_lost: AtomicBool::new(false),
        held: Mutex::default(),
        waiting: Mutex::default(),
    };
    trace(|| format!("{fairness:?} {:?}", bucket.snapshot()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..thread_rng().gen_range(1..5) {
                    world.step();
                }
            });
        }
    });
    set_at_rest(true);
    world.check_and_drain();
}

impl<'a> World<'a> {
    fn now(&self) -> usize {
        self.clock.fetch_add(1, Relaxed)
    }

    fn step(&self) {
        let (mut random, bucket) = (thread_rng(), self.bucket);
        let n = random.gen_range(1..4);
        let what = random.gen_range(0..20);
        trace(|| format!("{what}({n}) begins, {:?}", bucket.snapshot()));
        match what {
            0..=3 => self.wait(Kind::Take { min: n, up_to: n }),
            4 => self.wait(Kind::Take { min: 1, up_to: n }),
            5 | 6 => {
                let begin = self.now();
                let taken = if what == 5 { bucket.try_take_many(n) } else { bucket.try_take_up_to(n) };
                if let Ok(token) = taken {
                    self.check_order(begin);
                    self.held.lock().unwrap().push(token);
                }
            }
            10 | 11 => {
                if let Some(waiting) = self.pick() {
                    self.poll(&waiting);
                }
            }
            12 | 13 => {
                if let Some(waiting) = self.pick() {
                    if let Ok(mut waiting) = waiting.try_lock() {
                        trace(|| format!("cancels {}", waiting.id));
                        // What it was granted may have no room when it comes back.
                        self.may_have_lost.store(self.program == Program::Deposits, Relaxed);
                        if let Some(outcome) = waiting.cancel() {
                            self.receive(outcome);
                        }
                    }
                }
            }
            14 => self.wait(if n == 1 { Kind::Settled } else { Kind::Idle }),
            15 if self.forgotten.load(Relaxed) == 0 => {
                let token = self.held.lock().unwrap().pop();
                if let Some(token) = token {
                    self.forgotten.fetch_add(token.count(), Relaxed);
                    token.forget();
                }
            }
            16..=17 if self.program == Program::Deposits || self.program == Program::Everything && thread_rng().gen_bool(0.5) => {
                self.deposit(n);
            }
            16..=19 if self.program != Program::Deposits => self.resize(what, n),
            _ => self.give_back(),
        }
        trace(|| format!("{what}({n}) has ended, {:?}", bucket.snapshot()));
    }

    fn deposit(&self, n: usize) {
        match n {
            1 => self.wait(Kind::Release),
            2 => self.count_deposits(usize::from(self.bucket.try_release().is_ok())),
            _ => self.count_deposits(self.bucket.refill(2)),
        }
    }

    fn count_deposits(&self, n: usize) {
        self.deposited.fetch_add(n, Relaxed);
    }

    fn resize(&self, what: usize, n: usize) {
        let (bucket, n) = (self.bucket, n - 1);
        match what {
            16 => {
                self.least_capacity.fetch_min(n, Relaxed);
                drop(bucket.set_capacity(n));
            }
            17 => {
                let _ = bucket.update_capacity(|capacity| {
                    let next = if n == 0 { capacity.saturating_sub(1) } else { (capacity + n).min(bucket.max_capacity()) };
                    self.least_capacity.fetch_min(next, Relaxed);
                    next
                });
            }
            18 => {
                if let Ok(token) = bucket.grow_and_take(n) {
                    self.held.lock().unwrap().push(token);
                }
            }
            _ if self.program == Program::Everything && n == 2 && thread_rng().gen_bool(0.2) => {
                bucket.close();
            }
            _ => {
                let token = self.held.lock().unwrap().pop();
                if let Some(token) = token {
                    // Before, as others may look at once.
                    self.least_capacity.store(0, Relaxed);
                    token.retire();
                }
            }
        }
    }

    fn give_back(&self) {
        let token = self.held.lock().unwrap().pop();
        if let Some(token) = token {
            let count = token.count();
            let returned = token.give_back();
            self.lost.fetch_add(count - returned.restored - returned.retired, Relaxed);
        }
    }

    fn pick(&self) -> Option<Shared<'a>> {
        let waiting = self.waiting.lock().unwrap();
        if waiting.is_empty() { None } else { Some(Arc::clone(&waiting[thread_rng().gen_range(0..waiting.len())])) }
    }

    fn wait(&self, kind: Kind) {
        let begin = self.now();
        let waiting = Arc::new(Mutex::new(Waiting::new(self.bucket, begin, begin, kind)));
        trace(|| format!("waiter {begin} is {kind:?}"));
        self.poll(&waiting);
        self.waiting.lock().unwrap().push(waiting);
    }

    fn poll(&self, waiting: &Shared<'a>) {
        let Ok(mut waiting) = waiting.try_lock() else { return };
        let polled = waiting.poll();
        trace(|| format!("poll of {}: {polled:?}", waiting.id));
        let begin = waiting.begin;
        match polled {
            Poll::Ready(outcome) => {
                drop(waiting);
                if matches!(outcome, Outcome::Tokens(_)) {
                    self.check_order(begin);
                }
                self.receive(outcome);
            }
            Poll::Pending if waiting.end == usize::MAX => waiting.end = self.now(),
            Poll::Pending => {}
        }
    }

    fn receive(&self, outcome: Outcome<'a>) {
        match outcome {
            Outcome::Tokens(token) => self.held.lock().unwrap().push(token),
            Outcome::Released => self.count_deposits(1),
            Outcome::Reached | Outcome::Closed => {}
        }
    }

    /// A request that began at `begin` has got its tokens: those that were queued before, and could always be satisfied, have got
    /// theirs.
    fn check_order(&self, begin: usize) {
        if self.bucket.fairness() != Fairness::Fifo {
            return;
        }
        let all: Vec<_> = self.waiting.lock().unwrap().clone();
        for waiting in all {
            let Ok(mut waiting) = waiting.try_lock() else { continue };
            let Kind::Take { min, .. } = waiting.kind else { continue };
            if waiting.end < begin && min <= self.least_capacity.load(Relaxed) && waiting.is_still_pending() {
                // It may have become unsatisfiable while this looked at it.
                assert!(min > self.least_capacity.load(Relaxed), "{} has overtaken {}", begin, waiting.id);
            }
        }
    }

    fn check_and_drain(self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        let mut waiting: Vec<_> =
            waiting.into_iter().map(|shared| Arc::into_inner(shared).unwrap().into_inner().unwrap()).collect();
        waiting.sort_by_key(|waiting| waiting.begin);
        if thread_rng().gen_bool(0.2) {
            trace(|| format!("closes {:?}", self.bucket));
            self.bucket.close();
        }
        for round in 0.. {
            assert!(
                round < 200,
                "waiters are left: {:?} of {:?}",
                waiting.iter().map(|waiting| waiting.kind).collect::<Vec<_>>(),
                self.bucket
            );
            waiting.retain(|waiting| !waiting.is_over());
            self.check_rest(&waiting);
            // Those that were woken, first at random, then all.
            let woken: Vec<_> = (0..waiting.len()).filter(|n| waiting[*n].is_woken()).collect();
            if !woken.is_empty() {
                let chosen = &mut waiting[woken[thread_rng().gen_range(0..woken.len())]];
                let polled = chosen.poll();
                trace(|| format!("poll of {} at rest: {polled:?}, {:?}", chosen.id, self.bucket));
                if let Poll::Ready(outcome) = polled {
                    self.receive(outcome);
                }
                continue;
            }
            self.check_numbers();
            if waiting.is_empty() {
                break;
            }
            if self.held.lock().unwrap().is_empty() {
                self.help(&waiting);
            } else {
                trace(|| format!("gives back at rest {:?}", self.bucket));
                self.give_back();
            }
        }
        assert_eq!(self.bucket.waiting(), 0, "{:?}", self.bucket);
        self.held.lock().unwrap().clear();
    }

    /// No token is held, and no waiter was woken: what is missing?
    fn help(&self, waiting: &[Waiting<'a>]) {
        trace(|| format!("helps {:?} {:?}", waiting[0].kind, self.bucket));
        let now = self.bucket.snapshot();
        match waiting[0].kind {
            Kind::Take { min, .. } if now.capacity < min => {
                // Tokens from outside may leave no room for the new ones.
                self.may_have_lost.store(true, Relaxed);
                drop(self.bucket.set_capacity(4));
            }
            Kind::Release if now.available == now.max_capacity => {
                self.held.lock().unwrap().extend(self.bucket.try_take());
                if self.held.lock().unwrap().is_empty() {
                    self.bucket.close();
                }
            }
            // Forgotten tokens are replaced.
            _ => self.count_deposits(self.bucket.refill(now.deficit.max(1))),
        }
    }

    /// No waiter sleeps that could proceed.
    fn check_rest(&self, waiting: &[Waiting<'a>]) {
        let now = self.bucket.snapshot();
        let available = i64::try_from(now.available).unwrap() - i64::try_from(now.deficit).unwrap();
        let satisfiable = now.capacity.max(now.available);
        let mut claimed = 0;
        let mut sleepers = Vec::new();
        for waiting in waiting {
            match waiting.kind {
                Kind::Take { min, .. } if waiting.is_woken() => {
                    claimed += if self.bucket.fairness() == Fairness::Fifo { 0 } else { i64::try_from(min).unwrap() };
                }
                Kind::Take { .. } => sleepers.push(waiting),
                Kind::Idle => {
                    assert!(waiting.is_woken() || available < i64::try_from(now.capacity).unwrap(), "{} sleeps: idle", waiting.id);
                }
                Kind::Settled => assert!(waiting.is_woken() || now.deficit > 0, "{} sleeps: settled", waiting.id),
                Kind::Release => {}
            }
            let ends = matches!(waiting.kind, Kind::Take { .. } | Kind::Release);
            assert!(!now.closed || waiting.is_woken() || !ends, "{} sleeps in a closed bucket", waiting.id);
        }
        let releasers = waiting.iter().filter(|waiting| waiting.kind == Kind::Release);
        let (woken, asleep): (Vec<_>, Vec<_>) = releasers.partition(|waiting| waiting.is_woken());
        let room = now.max_capacity - now.available;
        assert!(asleep.is_empty() || room + now.deficit <= woken.len(), "a releaser sleeps beside room: {now:?}");
        // The head is one of those that no other one was queued before. Requests above the capacity do not count.
        // (A newcomer that takes tokens above the capacity may make one unsatisfiable; that is noticed when those that were woken
        // before have answered.)
        let reach = if claimed > 0 { now.max_capacity } else { satisfiable };
        sleepers.retain(|waiting| matches!(waiting.kind, Kind::Take { min, .. } if min <= reach));
        let heads: Vec<_> = sleepers.iter().filter(|one| !sleepers.iter().any(|other| other.end < one.begin)).collect();
        let all_fit = heads
            .iter()
            .all(|waiting| matches!(waiting.kind, Kind::Take { min, .. } if i64::try_from(min).unwrap() <= available - claimed));
        let ids: Vec<_> = heads.iter().map(|waiting| waiting.id).collect();
        assert!(heads.is_empty() || !all_fit, "one of {ids:?} sleeps beside tokens: {now:?}, {claimed} are claimed");
    }

    /// With no waiter left that was woken, each token is in the bucket or held, or was forgotten.
    fn check_numbers(&self) {
        let now = self.bucket.snapshot();
        let held: usize = self.held.lock().unwrap().iter().map(Token::count).sum();
        if self.program != Program::Everything && !self.may_have_lost.load(Relaxed) {
            let (forgotten, lost) = (self.forgotten.load(Relaxed), self.lost.load(Relaxed));
            assert_eq!(
                now.available + held + forgotten + lost,
                now.capacity + now.deficit + self.deposited.load(Relaxed),
                "{now:?}, {held} held, {forgotten} forgotten, {lost} lost"
            );
        }
    }
}
