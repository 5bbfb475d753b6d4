//! A plain sequential model of a bucket, and scripts of calls that are run on both. Random scripts are made by `model.rs`,
//! and by a fuzzer in `fuzz/`.
//!
//! The model of a Fifo bucket is two numbers and a `Vec` of those who wait, in the order in which they were first polled.
//! A Barging bucket may choose whom it lets on, so there the model follows what the bucket does, and checks that it may
//! do that, that nobody is forgotten, and that who was called or passed over in vain for 16 times is served first.
#![allow(unreachable_pub, reason = "it is a module of a test")]

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use token_bucket::{
    Fairness, Idle, OwnedToken, Refill, Release, ReleaseError, SetCapacityError, Take, TakeError, TakeOwned, Token, TokenBucket,
    TryReleaseError, TryTakeError,
};

/// One line of a script. What it is done to is chosen by an index, modulo the number of things that there are.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Take {
        n: usize,
        owned: bool,
    },
    Release,
    Idle,
    Poll(usize),
    /// As `Poll`, with another waker, as if the task had moved.
    PollElsewhere(usize),
    /// Polls all that have been woken, in the order in which they were.
    PollWoken,
    Cancel(usize),
    TryTake {
        n: usize,
        owned: bool,
    },
    TryTakeUpTo(usize),
    Return(usize),
    Forget(usize),
    Split {
        from: usize,
        n: usize,
    },
    Merge {
        from: usize,
        into: usize,
    },
    TryRelease(usize),
    Refill(usize),
    SetCapacity(usize),
    /// Of so many tokens in so many nanoseconds.
    SetRate {
        tokens: usize,
        per: usize,
    },
    /// After so many nanoseconds; or the clock goes back.
    Tick(i8),
    Close,
}

type Name = usize;

/// Where a waker was called: for which future, and from which of its wakers.
type Log = Arc<Mutex<Vec<(Name, usize)>>>;

struct Logger {
    log: Log,
    name: Name,
    generation: usize,
}

impl Wake for Logger {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push((self.name, self.generation));
    }
}

enum Kind<'a> {
    Take(Take<'a>),
    Owned(TakeOwned),
    Release(Release<'a>),
    Idle(Idle<'a>),
}

struct Pending<'a> {
    name: Name,
    n: usize,
    kind: Kind<'a>,
    generation: usize,
    polled: bool,
    woken: bool,
    /// In a Barging bucket: how often it was called or passed over in vain, at the least and at the most.
    strikes: usize,
    chances: usize,
}

impl<'a> Pending<'a> {
    fn waits_for_room(&self) -> bool {
        self.polled && matches!(self.kind, Kind::Release(_))
    }

    fn new(name: Name, n: usize, kind: Kind<'a>) -> Self {
        Self { name, n, kind, generation: 0, polled: false, woken: false, strikes: 0, chances: 0 }
    }
}

enum Guard<'a> {
    Borrowed(Token<'a>),
    Owned(OwnedToken),
}

impl Guard<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Borrowed(token) => token.count(),
            Self::Owned(token) => token.count(),
        }
    }
}

/// What a bucket is to be.
struct Model {
    max: i64,
    capacity: i64,
    available: i64,
    closed: bool,
    /// Who waits for how many tokens, in the order in which they were first polled.
    line: Vec<(Name, i64)>,
    /// Who has been given tokens and does not know it yet.
    granted: Vec<Name>,
    clock: Clock,
}

/// What is due at a rate. It is worked out anew each time, from when the rate was set.
struct Clock {
    now: u64,
    rate: (u64, u64),
    /// When the rate was set, and the parts of a token that were due then; none is due before the clock has started.
    start: Option<(u64, u64)>,
    latest: u64,
    /// What was due at the rates before, and what the ticks have had of all that.
    before: u64,
    had: u64,
}

/// As the bucket shows it: capacity, available, outstanding, deficit, closed.
type Numbers = (i64, i64, i64, i64, bool);

impl Model {
    fn numbers(&self) -> Numbers {
        (self.capacity, self.available.max(0), (self.capacity - self.available).max(0), (-self.available).max(0), self.closed)
    }

    fn reaches(&self, n: i64) -> bool {
        n <= self.capacity.max(self.available)
    }

    /// The first one in the line who can be served without growth.
    fn first(&self) -> Option<(Name, i64)> {
        self.line.iter().copied().find(|&(_, n)| self.reaches(n))
    }

    /// Whether no token is out.
    fn is_whole(&self) -> bool {
        self.available >= self.capacity
    }

    /// Whether `n` tokens could be had at once, by somebody who may go past those who wait.
    fn has(&self, n: i64) -> bool {
        n == 0 || self.available >= n
    }

    fn give(&mut self, n: i64) -> i64 {
        let fitted = n.min(self.max - self.available);
        self.available += fitted;
        fitted
    }

    /// As `give`, up to the capacity.
    fn top_up(&mut self, n: i64) -> i64 {
        let fitted = n.min(self.capacity - self.available).max(0);
        self.available += fitted;
        fitted
    }

    fn set_capacity(&mut self, capacity: i64) {
        self.available = (self.available + capacity - self.capacity).min(self.max);
        self.capacity = capacity;
    }

    fn grant(&mut self, name: Name) -> Result<(), String> {
        let at = self.line.iter().position(|&(waiter, _)| waiter == name).ok_or(format!("f{name} is served, but does not wait"))?;
        let (_, n) = self.line.remove(at);
        if n > self.available {
            return Err(format!("f{name} is served {n} tokens where {} are left", self.available));
        }
        self.available -= n;
        self.granted.push(name);
        Ok(())
    }

    /// Serves the line, first come, first served, and tells whom.
    fn serve(&mut self) -> Vec<Name> {
        let mut served = Vec::new();
        while let Some((name, n)) = self.first() {
            if self.closed || n > self.available {
                break;
            }
            self.grant(name).expect("it fits");
            served.push(name);
        }
        served
    }

    /// The future is gone, or done.
    fn leave(&mut self, name: Name) {
        self.line.retain(|&(waiter, _)| waiter != name);
        self.granted.retain(|&waiter| waiter != name);
    }
}

impl Clock {
    fn new(tokens: u64, per: u64) -> Self {
        Self { now: 0, rate: (tokens, per), start: None, latest: 0, before: 0, had: 0 }
    }

    fn go(&mut self, passed: i8) {
        self.now = self.now.saturating_add_signed(passed.into());
    }

    /// The parts of tokens that have been due at this rate until then.
    fn parts(&self, at: u64) -> u64 {
        self.start.map_or(0, |(start, parts)| parts + (at - start) * self.rate.0)
    }

    /// Time that has been seen is not undone.
    fn look(&mut self) {
        self.latest = self.latest.max(self.now);
        self.start.get_or_insert((self.latest, 0));
    }

    /// The tokens that have become due.
    fn tick(&mut self) -> u64 {
        self.look();
        let due = self.before + self.parts(self.latest) / self.rate.1 - self.had;
        self.had += due;
        due
    }

    /// When a tick will find something, if none of what was due is left.
    fn next(&self) -> Option<u64> {
        let due = |at| self.parts(at) / self.rate.1;
        (self.rate.0 > 0).then(|| {
            let mut at = self.latest;
            while due(at) == due(self.latest) {
                at += 1;
            }
            at
        })
    }

    /// What is due of the next token is kept, rounded down to parts of the new size.
    fn set_rate(&mut self, tokens: u64, per: u64) {
        self.look();
        let parts = self.parts(self.latest);
        self.before += parts / self.rate.1;
        // In a pause, the parts keep their size.
        let (part, per) =
            if tokens == 0 { (parts % self.rate.1, self.rate.1) } else { (parts % self.rate.1 * per / self.rate.1, per) };
        self.start = Some((self.latest, part));
        self.rate = (tokens, per);
    }
}

/// How often a waiter of a Barging bucket is called or passed over in vain before it is served first.
const STRIKES: usize = 16;
/// After how many returns of tokens the next one is called if one who was called does not run.
const PATIENCE: usize = 256;

struct Run<'a> {
    bucket: &'a Arc<TokenBucket>,
    refill: Refill,
    model: Model,
    futures: Vec<Pending<'a>>,
    guards: Vec<(Name, Guard<'a>)>,
    log: Log,
    script: String,
    names: Name,
    /// What was available after the step before.
    available: i64,
    /// Whether the line may be served in this step.
    serves: bool,
    /// How many such steps there were since somebody was called.
    passed: usize,
    /// How many can be on their way in a Barging bucket: each one who calls another when it has run.
    most: usize,
    /// Whether anybody has ever wanted more than the capacity.
    aside: bool,
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "the calls are easier to read")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, found: T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn told<T, E>(result: &Result<T, E>, name: impl FnOnce(&E) -> &'static str) -> &'static str {
    result.as_ref().map_or_else(name, |_| "done")
}

fn try_take_error(error: &TryTakeError) -> &'static str {
    match error {
        TryTakeError::Empty => "empty",
        TryTakeError::Closed(_) => "closed",
        TryTakeError::ExceedsMax { .. } => "exceeds",
        _ => "?",
    }
}

fn take_error(error: &TakeError) -> &'static str {
    match error {
        TakeError::Closed(_) => "closed",
        TakeError::ExceedsMax { .. } => "exceeds",
        _ => "?",
    }
}

fn try_release_error(error: &TryReleaseError) -> &'static str {
    match error {
        TryReleaseError::Full => "full",
        TryReleaseError::Closed(_) => "closed",
        TryReleaseError::ExceedsMax { .. } => "exceeds",
        _ => "?",
    }
}

fn release_error(error: &ReleaseError) -> &'static str {
    if let ReleaseError::Closed(_) = error { "closed" } else { "?" }
}

fn set_capacity_error(error: &SetCapacityError) -> &'static str {
    match error {
        SetCapacityError::OutOfRange { .. } => "exceeds",
        SetCapacityError::Closed(_) => "closed",
        _ => "?",
    }
}

impl<'a> Run<'a> {
    fn new(bucket: &'a Arc<TokenBucket>) -> Self {
        let mut script = String::new();
        let (max, capacity) = (bucket.max_capacity(), bucket.capacity());
        write!(script, "let bucket = TokenBucket::new({max}, {capacity}), {:?}", bucket.fairness()).unwrap();
        let model = Model {
            max: int(max),
            capacity: int(capacity),
            available: int(capacity),
            closed: false,
            line: Vec::new(),
            granted: Vec::new(),
            clock: Clock::new(1, 2),
        };
        Self {
            bucket,
            refill: Refill::new(1, Duration::from_nanos(2)).unwrap(),
            model,
            futures: Vec::new(),
            guards: Vec::new(),
            log: Log::default(),
            script,
            names: 0,
            available: int(capacity),
            serves: false,
            passed: 0,
            most: 1,
            aside: false,
        }
    }

    fn is_fifo(&self) -> bool {
        self.bucket.fairness() == Fairness::Fifo
    }

    fn name(&mut self) -> Name {
        self.names += 1;
        self.names
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        write!(self.script, "\n    {line}").unwrap();
    }

    fn heard(&mut self, result: &str) {
        write!(self.script, "  // {result}").unwrap();
    }

    fn keep(&mut self, guard: Guard<'a>) {
        let name = self.name();
        self.heard(&format!("g{name}, with {}", guard.count()));
        self.guards.push((name, guard));
    }

    /// Whether somebody who just came gets `n` at once. `None` if a Barging bucket may decide.
    fn may_take(&self, n: i64) -> Option<bool> {
        if n == 0 || !self.model.has(n) {
            Some(n == 0)
        } else if self.is_fifo() {
            Some(self.model.first().is_none())
        } else if self.is_starved() {
            Some(false)
        } else if self.all_are_young() {
            Some(true)
        } else {
            None
        }
    }

    fn future(&self, name: Name) -> &Pending<'a> {
        self.futures.iter().find(|future| future.name == name).expect("who waits has a future")
    }

    fn future_mut(&mut self, name: Name) -> &mut Pending<'a> {
        self.futures.iter_mut().find(|future| future.name == name).expect("who waits has a future")
    }

    fn is_young(&self, name: Name) -> bool {
        self.future(name).chances < STRIKES
    }

    /// Whether nobody who waits can have lost so often that it is served first.
    fn all_are_young(&self) -> bool {
        self.model.line.iter().all(|&(name, _)| self.is_young(name))
    }

    /// How many have been called, and have not run since.
    fn on_their_way(&self) -> usize {
        self.model.line.iter().filter(|&&(name, _)| self.future(name).woken).count()
    }

    /// Whether the first one in a Barging line has surely lost so often that it is served before anyone else.
    fn is_starved(&self) -> bool {
        self.on_their_way() == 0 && self.model.first().is_some_and(|(name, _)| self.future(name).strikes >= STRIKES)
    }

    fn expected_take(&self, n: i64, found: &'static str) -> &'static str {
        if n > self.model.max {
            "exceeds"
        } else if self.model.closed {
            "closed"
        } else {
            match self.may_take(n) {
                Some(true) => "done",
                Some(false) => "empty",
                None => found,
            }
        }
    }

    /// Runs one line. The error says where the bucket and the model differ.
    #[allow(clippy::too_many_lines, reason = "a list of what can be done")]
    fn step(&mut self, op: Op) -> Result<(), String> {
        let bucket = self.bucket;
        self.serves = match op {
            Op::Take { .. } | Op::Release | Op::Idle | Op::Forget(_) | Op::Split { .. } | Op::Merge { .. } | Op::SetRate { .. } => {
                false
            }
            // They make room.
            Op::TryTake { .. } | Op::TryTakeUpTo(_) => self.futures.iter().any(Pending::waits_for_room),
            _ => true,
        };
        match op {
            Op::Take { n, owned } => {
                let name = self.name();
                let kind = if owned { Kind::Owned(bucket.take_many_owned(n)) } else { Kind::Take(bucket.take_many(n)) };
                self.say(format_args!("f{name} = take_many{}({n})", if owned { "_owned" } else { "" }));
                self.futures.push(Pending::new(name, n, kind));
            }
            Op::Release => {
                let name = self.name();
                self.say(format_args!("f{name} = release()"));
                let kind = Kind::Release(bucket.release());
                self.futures.push(Pending::new(name, 1, kind));
            }
            Op::Idle => {
                let name = self.name();
                self.say(format_args!("f{name} = idle()"));
                let kind = Kind::Idle(bucket.idle());
                self.futures.push(Pending::new(name, 0, kind));
            }
            Op::Poll(at) | Op::PollElsewhere(at) => {
                if !self.futures.is_empty() {
                    let at = at % self.futures.len();
                    self.futures[at].generation += usize::from(matches!(op, Op::PollElsewhere(_)));
                    return self.poll(at);
                }
            }
            Op::PollWoken => {
                let woken: Vec<_> = self.futures.iter().filter(|future| future.woken).map(|future| future.name).collect();
                for name in woken {
                    let at = self.futures.iter().position(|future| future.name == name).unwrap();
                    self.poll(at)?;
                }
                return Ok(());
            }
            Op::Cancel(at) => {
                if !self.futures.is_empty() {
                    let Pending { name, n, kind, .. } = self.futures.swap_remove(at % self.futures.len());
                    self.say(format_args!("drop(f{name})"));
                    drop(kind);
                    if self.model.granted.contains(&name) {
                        self.model.give(int(n));
                    }
                    self.model.leave(name);
                }
            }
            Op::TryTake { n, owned } => {
                self.say(format_args!("try_take_many{}({n})", if owned { "_owned" } else { "" }));
                let result = if owned {
                    bucket.try_take_many_owned(n).map(Guard::Owned)
                } else {
                    bucket.try_take_many(n).map(Guard::Borrowed)
                };
                let found = told(&result, try_take_error);
                same("result", self.expected_take(int(n), found), found)?;
                if let Ok(guard) = result {
                    same("count", n, guard.count())?;
                    self.model.available -= int(n);
                    self.keep(guard);
                }
            }
            Op::TryTakeUpTo(n) => {
                self.say(format_args!("try_take_up_to({n})"));
                let result = bucket.try_take_up_to(n).map(Guard::Borrowed);
                let found = told(&result, try_take_error);
                same("result", self.expected_take(int(n).min(1), found), found)?;
                if let Ok(guard) = result {
                    same("count", int(n).min(self.model.available.max(0)), int(guard.count()))?;
                    self.model.available -= int(guard.count());
                    self.keep(guard);
                }
            }
            Op::Return(at) => {
                if !self.guards.is_empty() {
                    let (name, guard) = self.guards.swap_remove(at % self.guards.len());
                    self.say(format_args!("drop(g{name})"));
                    self.model.give(int(guard.count()));
                    drop(guard);
                }
            }
            Op::Forget(at) => {
                if !self.guards.is_empty() {
                    let (name, guard) = self.guards.swap_remove(at % self.guards.len());
                    self.say(format_args!("g{name}.forget()"));
                    match guard {
                        Guard::Borrowed(token) => token.forget(),
                        Guard::Owned(token) => token.forget(),
                    }
                }
            }
            Op::Split { from, n } => {
                if !self.guards.is_empty() {
                    let from = from % self.guards.len();
                    let (name, guard) = &mut self.guards[from];
                    let (name, before) = (*name, guard.count());
                    let split = match guard {
                        Guard::Borrowed(token) => token.split(n).map(Guard::Borrowed),
                        Guard::Owned(token) => token.split(n).map(Guard::Owned),
                    };
                    let left = guard.count();
                    self.say(format_args!("g{name}.split({n})"));
                    same("split", n <= before, split.is_some())?;
                    same("left", if split.is_some() { before - n } else { before }, left)?;
                    if let Some(guard) = split {
                        same("split off", n, guard.count())?;
                        self.keep(guard);
                    }
                }
            }
            Op::Merge { from, into } => self.merge(from, into)?,
            Op::TryRelease(n) => {
                self.say(format_args!("try_release_many({n})"));
                let expected = if int(n) > self.model.max {
                    "exceeds"
                } else if self.model.closed {
                    "closed"
                } else if int(n) > self.model.max - self.model.available {
                    "full"
                } else {
                    self.model.give(int(n));
                    "done"
                };
                same("result", expected, told(&bucket.try_release_many(n), try_release_error))?;
            }
            Op::Refill(n) => {
                self.say(format_args!("refill({n})"));
                let fitted = self.model.give(int(n));
                same("fitted", size(fitted), bucket.refill(n))?;
            }
            Op::SetCapacity(n) => {
                self.say(format_args!("set_capacity({n})"));
                let expected = if int(n) > self.model.max {
                    "exceeds"
                } else if self.model.closed {
                    "closed"
                } else {
                    self.model.set_capacity(int(n));
                    "done"
                };
                let result = bucket.set_capacity(n);
                same("result", expected, told(&result, set_capacity_error))?;
                if let Ok(now) = result {
                    let found = (int(now.capacity), int(now.available), int(now.outstanding), int(now.deficit), now.closed);
                    same("returned snapshot", self.model.numbers(), found)?;
                }
            }
            Op::SetRate { tokens, per } => {
                let now = self.model.clock.now;
                self.say(format_args!("set_rate({now}, {tokens}, {per})"));
                let result = self.refill.set_rate(Duration::from_nanos(now), tokens, Duration::from_nanos(per as u64));
                same("set", per > 0, result.is_ok())?;
                if per > 0 {
                    self.model.clock.set_rate(tokens as u64, per as u64);
                }
            }
            Op::Tick(passed) => {
                self.model.clock.go(passed);
                let now = self.model.clock.now;
                self.say(format_args!("tick({now})"));
                let due = self.model.clock.tick();
                let added = self.model.top_up(due.try_into().unwrap());
                let tick = self.refill.tick(bucket, Duration::from_nanos(now));
                let expected = (added, i64::try_from(due).unwrap() - added, self.model.clock.next().map(Duration::from_nanos));
                same("added, lost and next", expected, (int(tick.added), int(tick.lost), tick.next))?;
            }
            Op::Close => {
                self.say(format_args!("close()"));
                let expected = !self.model.closed;
                self.model.closed = true;
                same("result", expected, bucket.close())?;
            }
        }
        self.compare()
    }

    fn merge(&mut self, from: usize, into: usize) -> Result<(), String> {
        let len = self.guards.len();
        if len < 2 || from % len == into % len {
            return Ok(());
        }
        let (into, _) = self.guards[into % len];
        let (from, guard) = self.guards.swap_remove(from % len);
        let at = self.guards.iter().position(|&(name, _)| name == into).unwrap();
        let sum = self.guards[at].1.count() + guard.count();
        self.say(format_args!("g{into}.merge(g{from})"));
        match (&mut self.guards[at].1, guard) {
            (Guard::Borrowed(to), Guard::Borrowed(guard)) => to.merge(guard),
            (Guard::Owned(to), Guard::Owned(guard)) => to.merge(guard),
            (_, guard) => {
                self.heard("not of one kind");
                self.guards.push((from, guard));
                return Ok(());
            }
        }
        same("merged", sum, self.guards[at].1.count())
    }

    fn poll(&mut self, at: usize) -> Result<(), String> {
        let future = &mut self.futures[at];
        let Pending { name, n, generation, polled, woken, .. } = *future;
        future.polled = true;
        future.woken = false;
        let waker = Waker::from(Arc::new(Logger { log: Arc::clone(&self.log), name, generation }));
        let cx = &mut Context::from_waker(&waker);
        let (found, guard) = match &mut future.kind {
            Kind::Take(take) => match Pin::new(take).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (told(&result, take_error), result.ok().map(Guard::Borrowed)),
            },
            Kind::Owned(take) => match Pin::new(take).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (told(&result, take_error), result.ok().map(Guard::Owned)),
            },
            Kind::Release(release) => match Pin::new(release).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (told(&result, release_error), None),
            },
            Kind::Idle(idle) => match Pin::new(idle).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(()) => ("done", None),
            },
        };
        let (is_release, is_idle) = (matches!(future.kind, Kind::Release(_)), matches!(future.kind, Kind::Idle(_)));
        self.say(format_args!("poll(f{name})"));
        self.heard(found);
        let expected = if is_release {
            self.expected_release(polled, woken, found)
        } else if is_idle {
            self.expected_idle(polled, woken)
        } else {
            self.expected_poll(name, n, polled, woken, found)
        };
        same("result", expected, found)?;
        match found {
            "pending" if !is_release && !is_idle && !polled => self.model.line.push((name, int(n))),
            "pending" if woken && !is_release && !self.is_fifo() => self.strike(name),
            "done" if is_release => {
                self.model.give(1);
            }
            "done" if !self.model.granted.contains(&name) => self.model.available -= int(n),
            _ => {}
        }
        if found != "pending" {
            self.futures.swap_remove(at);
            self.model.leave(name);
        }
        if let Some(guard) = guard {
            same("count", n, guard.count())?;
            self.keep(guard);
        }
        self.compare()
    }

    /// It was called or passed over in vain.
    fn strike(&mut self, name: Name) {
        let future = self.future_mut(name);
        future.strikes += 1;
        future.chances += 1;
    }

    /// Wherever there are tokens while the line is served, anybody may be passed over.
    fn take_chances(&mut self) {
        if self.serves && self.available.max(self.model.available) > 0 {
            for future in &mut self.futures {
                future.chances += usize::from(self.model.line.iter().any(|&(name, _)| name == future.name));
            }
        }
    }

    fn expected_poll(&self, name: Name, n: usize, polled: bool, woken: bool, found: &'static str) -> &'static str {
        if !polled {
            match self.expected_take(int(n), found) {
                "empty" => "pending",
                expected => expected,
            }
        } else if self.model.granted.contains(&name) {
            "done"
        } else if self.model.closed {
            "closed"
        } else if self.is_fifo() || !woken || !self.model.has(int(n)) {
            "pending"
        } else if self.all_are_young() {
            "done"
        } else {
            found
        }
    }

    /// One that comes when there is room need not line up; one that has lined up waits for its call.
    fn expected_release(&self, polled: bool, woken: bool, found: &'static str) -> &'static str {
        if self.model.closed {
            "closed"
        } else if self.model.available >= self.model.max {
            "pending"
        } else if !polled || woken {
            "done"
        } else {
            found
        }
    }

    /// It is enough that no token was out when it was woken.
    fn expected_idle(&self, polled: bool, woken: bool) -> &'static str {
        if if polled { woken } else { self.model.is_whole() } { "done" } else { "pending" }
    }

    /// Lets the model follow, and compares.
    fn compare(&mut self) -> Result<(), String> {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let mut takers = Vec::new();
        let mut releasers = Vec::new();
        let mut watchers = Vec::new();
        for &(name, generation) in &log {
            let Some(future) = self.futures.iter_mut().find(|future| future.name == name) else {
                return Err(format!("f{name} is woken, but gone"));
            };
            same(&format!("waker of f{name}"), future.generation, generation)?;
            if future.woken {
                return Err(format!("f{name} is woken once more before it was polled"));
            }
            future.woken = true;
            match future.kind {
                Kind::Release(_) => releasers.push(name),
                Kind::Idle(_) => watchers.push(name),
                _ => takers.push(name),
            }
        }
        if !log.is_empty() {
            let woken: Vec<_> = log.iter().map(|(name, _)| format!("f{name}")).collect();
            self.heard(&format!("wakes {}", woken.join(", ")));
        }
        let waiting = self.bucket.waiting();
        if self.model.closed {
            self.compare_closed(&mut takers)?;
        } else if self.is_fifo() {
            same("woken, in order", self.model.serve(), takers)?;
        } else {
            self.take_chances();
            // Those who have been served are the first ones that were woken; the others were called.
            let served = self.model.line.len().checked_sub(waiting).ok_or("more wait than have come")?;
            if served > takers.len() {
                return Err(format!("{served} fewer wait, but {} were woken", takers.len()));
            }
            for name in takers.drain(..served) {
                if self.is_young(name) {
                    return Err(format!("f{name} is served, but cannot have lost so often"));
                }
                self.model.grant(name)?;
            }
            self.compare_called(&takers)?;
            self.pass_over();
        }
        self.available = self.model.available;
        if !self.model.closed {
            self.compare_releasers(&releasers)?;
        }
        self.compare_watchers(&watchers)?;
        let now = self.bucket.snapshot();
        let found = (int(now.capacity), int(now.available), int(now.outstanding), int(now.deficit), now.closed);
        same("(capacity, available, outstanding, deficit, closed)", self.model.numbers(), found)?;
        same("waiting", self.model.line.len(), waiting)
    }

    /// Everybody has been woken for the close, or was before.
    fn compare_closed(&mut self, takers: &mut Vec<Name>) -> Result<(), String> {
        takers.sort_unstable();
        let is_over = |future: &Pending<'_>| !future.polled || future.woken || matches!(future.kind, Kind::Idle(_));
        if let Some(future) = self.futures.iter().find(|future| !is_over(future)) {
            return Err(format!("f{} sleeps on in a closed bucket", future.name));
        }
        // Those who had been called have not heard of it yet, and wait until they ask.
        let (called, mut dismissed): (Vec<_>, Vec<_>) =
            self.model.line.drain(..).partition(|(name, _)| takers.binary_search(name).is_err());
        dismissed.sort_unstable();
        self.model.line = called;
        same("woken by the close", dismissed.into_iter().map(|(name, _)| name).collect(), std::mem::take(takers))
    }

    /// Whoever is first in a Barging line is passed over if tokens have come, but too few, and nobody is on the way to them.
    fn pass_over(&mut self) {
        let brought = self.model.available > self.available.max(0);
        match self.model.first() {
            Some((name, n)) if brought && !self.model.has(n) && self.on_their_way() == 0 => {
                self.future_mut(name).strikes += 1;
            }
            _ => {}
        }
    }

    /// Nobody was called in vain, and nobody who can go on has been forgotten.
    fn compare_called(&mut self, called: &[Name]) -> Result<(), String> {
        for &(name, n) in &self.model.line {
            if called.contains(&name) && !self.model.has(n) {
                return Err(format!("f{name} is called for {n} tokens, but there are {}", self.model.available));
            }
            if called.contains(&name) && self.future(name).strikes >= STRIKES {
                return Err(format!("f{name} is called, but has lost so often that it should be served"));
            }
        }
        let on_their_way = self.on_their_way();
        // One who comes back from aside is called although one who came later has been.
        self.aside |= self.model.line.iter().any(|&(_, n)| n > self.model.capacity);
        if called.is_empty() {
            self.passed += usize::from(self.serves);
        } else {
            let at_once = called.len() > 1 || (on_their_way > self.most && self.passed < PATIENCE);
            if at_once && !self.aside {
                return Err(format!("{on_their_way} have been called, where {} would do", self.most));
            }
            self.most = self.most.max(on_their_way);
            self.passed = 0;
        }
        match self.model.first() {
            Some((name, n)) if self.model.has(n) && on_their_way == 0 => {
                Err(format!("f{name} could have its {n} tokens, but nobody was called"))
            }
            _ => Ok(()),
        }
    }

    fn compare_releasers(&self, called: &[Name]) -> Result<(), String> {
        let room = self.model.available < self.model.max;
        if !room && !called.is_empty() {
            return Err("a releaser is called, but there is no room".into());
        }
        let mut releasers = self.futures.iter().filter(|future| future.waits_for_room()).peekable();
        if room && releasers.peek().is_some() && !releasers.any(|future| future.woken) {
            return Err("there is room, but no releaser was called".into());
        }
        Ok(())
    }

    /// All of them are called when no token is out, and none before.
    fn compare_watchers(&self, called: &[Name]) -> Result<(), String> {
        if !self.model.is_whole() {
            return same("woken while tokens are out", &[][..], called);
        }
        match self.futures.iter().find(|future| future.polled && !future.woken && matches!(future.kind, Kind::Idle(_))) {
            Some(future) => Err(format!("no token is out, but f{} was not called", future.name)),
            None => Ok(()),
        }
    }

    /// Lets everybody go on who can, until there is nobody; then nobody may be left who could.
    fn settle(&mut self) -> Result<(), String> {
        let mut rounds = 3 * self.futures.len() + 3;
        while self.futures.iter().any(|future| future.woken) {
            rounds = rounds.checked_sub(1).ok_or("they wake each other for ever")?;
            self.step(Op::PollWoken)?;
        }
        if self.model.closed {
            return same("waiting in a closed bucket", 0, self.bucket.waiting());
        }
        if let Some((name, n)) = self.model.first() {
            if self.model.has(n) {
                return Err(format!("f{name} could have its {n} tokens, but waits"));
            }
        }
        Ok(())
    }

    fn script(&mut self, ops: &[Op]) -> Result<(), String> {
        for &op in ops {
            self.step(op)?;
        }
        self.settle()?;
        while !self.futures.is_empty() {
            self.step(Op::Cancel(0))?;
        }
        while !self.guards.is_empty() {
            self.step(Op::Return(0))?;
        }
        same("waiting at the end", 0, self.bucket.waiting())
    }
}

/// Runs a script, and tells it up to the line where the bucket and the model differ.
pub fn run(fairness: Fairness, max: usize, capacity: usize, ops: &[Op]) -> Result<(), String> {
    let bucket = Arc::new(TokenBucket::new(max, capacity).unwrap().with_fairness(fairness));
    let mut run = Run::new(&bucket);
    run.script(ops).map_err(|difference| format!("{}\n{difference}", run.script))
}
