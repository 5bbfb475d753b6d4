//! A plain sequential model of a bucket, and scripts of calls that are run on both. Random scripts are made by `model.rs`,
//! and by a fuzzer in `fuzz/`.
//!
//! The model is two numbers and a `Vec` of waiters, in the order in which they were first polled. One thread makes all calls, so
//! the model predicts each answer and each wake-up, and so it predicts which newcomer is shut out of a Barging bucket.
#![allow(unreachable_pub, reason = "it is a module of a test")]

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use token_bucket::{
    Fairness, OwnedToken, Refill, Release, ReleaseError, Returned, SetCapacityError, Snapshot, Take, TakeError, TakeOwned, Token,
    TokenBucket, TryReleaseError, TryTakeError, Watch,
};

/// One line of a script. What it is done to is chosen by an index, modulo the number of things that there are.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Take {
        n: usize,
        owned: bool,
    },
    TakeUpTo {
        n: usize,
        owned: bool,
    },
    Release,
    Idle,
    Settled,
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
    TryTakeUpTo {
        n: usize,
        owned: bool,
    },
    Return(usize),
    GiveBack(usize),
    Retire(usize),
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
    /// To so many more; beyond what a `usize` holds, to `usize::MAX`.
    GrowBy(usize),
    /// To so many less, or to 0.
    ShrinkBy(usize),
    GrowAndTake {
        n: usize,
        owned: bool,
    },
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
    Watch(Watch<'a>),
}

struct Pending<'a> {
    name: Name,
    min: usize,
    up_to: usize,
    kind: Kind<'a>,
    /// Whether it waits for an idle bucket, and not for a settled one.
    for_idle: bool,
    generation: usize,
    polled: bool,
    /// Since it was last polled.
    woken: bool,
}

impl<'a> Pending<'a> {
    fn new(name: Name, min: usize, up_to: usize, kind: Kind<'a>) -> Self {
        Self { name, min, up_to, kind, for_idle: false, generation: 0, polled: false, woken: false }
    }

    fn waits_for_room(&self) -> bool {
        self.polled && matches!(self.kind, Kind::Release(_))
    }

    fn watches(&self, model: &Model) -> bool {
        let holds = if self.for_idle { model.is_idle() } else { model.available >= 0 };
        self.polled && matches!(self.kind, Kind::Watch(_)) && holds
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

    fn forget(self) {
        match self {
            Self::Borrowed(token) => token.forget(),
            Self::Owned(token) => token.forget(),
        }
    }

    fn retire(self) {
        match self {
            Self::Borrowed(token) => token.retire(),
            Self::Owned(token) => token.retire(),
        }
    }

    fn give_back(self) -> Returned {
        match self {
            Self::Borrowed(token) => token.give_back(),
            Self::Owned(token) => token.give_back(),
        }
    }
}

/// What a bucket is to be.
struct Model {
    fifo: bool,
    max: i64,
    capacity: i64,
    available: i64,
    closed: bool,
    /// The waiters for tokens, in the order in which they were first polled.
    queue: Vec<Waiter>,
    /// Waiters that have been given this many tokens and do not know it yet.
    granted: Vec<(Name, i64)>,
    /// In a Barging bucket: whether tokens were taken ahead of the queue since the last return. `None` if that cannot be known:
    /// no waiter was queued, but one had left just before, or the only one has left since.
    bypassed: Option<bool>,
    /// Whether the queue may hold an entry, or the word a flag, of a waiter that has left.
    left: bool,
    clock: Clock,
}

struct Waiter {
    name: Name,
    min: i64,
    up_to: i64,
    losses: usize,
    /// It was woken to try for itself, and has not answered.
    woken: bool,
    /// It is skipped, as the capacity does not allow it.
    deferred: bool,
}

impl Waiter {
    fn defer(&mut self) {
        self.deferred = true;
    }
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

    fn is_satisfiable(&self, n: i64) -> bool {
        n <= self.capacity.max(self.available)
    }

    fn head(&mut self) -> Option<&mut Waiter> {
        self.queue.iter_mut().find(|waiter| !waiter.deferred)
    }

    fn is_due(&self, waiter: &Waiter) -> bool {
        self.fifo || waiter.losses >= LOSSES
    }

    /// Whether newcomers are shut out.
    fn is_shut(&self) -> bool {
        self.queue.iter().find(|waiter| !waiter.deferred).is_some_and(|head| self.is_due(head))
    }

    fn is_idle(&self) -> bool {
        self.available >= self.capacity
    }

    /// Whether a newcomer gets `n` tokens at once.
    fn admits(&self, n: i64) -> bool {
        n == 0 || (self.available >= n && !self.is_shut())
    }

    /// A newcomer, who is admitted, takes `n`; it returns whom that wakes: surplus tokens may be gone that a request needed which
    /// held up those behind it.
    fn take(&mut self, n: i64) -> Vec<Name> {
        let had_surplus = n > 0 && self.available > self.capacity;
        let has_head = self.head().is_some();
        self.available -= n;
        if n > 0 && has_head {
            self.bypassed = Some(true);
        } else if n > 0 && self.left && self.bypassed == Some(false) {
            self.bypassed = None;
        }
        if had_surplus && self.available > 0 && has_head { self.serve() } else { Vec::new() }
    }

    /// The available tokens or the capacity have changed to these, and the queue is served; it returns whom that wakes.
    ///
    /// # Errors
    ///
    /// If the loss of a waiter may have been counted or not.
    fn change(&mut self, available: i64, capacity: i64, others: bool) -> Result<Vec<Name>, Cut> {
        let changed = available > self.available || capacity != self.capacity;
        if !self.fifo && changed && !self.closed {
            self.count_loss(available, others)?;
        }
        (self.available, self.capacity) = (available, capacity);
        // Otherwise no token is available, or none has come.
        Ok(if changed && available > 0 { self.serve() } else { Vec::new() })
    }

    fn count_loss(&mut self, available: i64, others: bool) -> Result<(), Cut> {
        let is_head = |waiter: &&Waiter| !waiter.deferred || self.is_satisfiable(waiter.min);
        let head = self.queue.iter().find(is_head);
        let is_doubtful = head.is_some_and(|head| head.deferred || !self.is_satisfiable(head.min));
        if self.bypassed == Some(false) || self.queue.iter().all(|waiter| waiter.deferred) {
            return Ok(());
        }
        // Where no token is available, the queue was or is looked at for the sake of others only.
        if self.bypassed.is_none() || is_doubtful || (available <= 0 && others) {
            return Err(Cut);
        }
        if available > 0 {
            self.bypassed = Some(false);
            if let Some(head) = self.head() {
                head.losses += 1;
            }
        }
        Ok(())
    }

    fn give(&mut self, n: i64, others: bool) -> Result<(i64, Vec<Name>), Cut> {
        let fitted = n.min(self.max - self.available);
        Ok((fitted, self.change(self.available + fitted, self.capacity, others)?))
    }

    /// Gives the waiter its tokens.
    fn grant(&mut self, name: Name) {
        let at = self.queue.iter().position(|waiter| waiter.name == name).expect("it waits");
        let waiter = self.queue.remove(at);
        let count = waiter.up_to.min(self.available);
        self.available -= count;
        self.granted.push((name, count));
    }

    /// Grants or wakes in order, and tells whom. (A waiter that was woken before is granted its tokens without being woken again.)
    fn serve(&mut self) -> Vec<Name> {
        let mut notified = Vec::new();
        if self.closed {
            return notified;
        }
        while self.available > 0 {
            let available = self.available;
            let satisfiable = self.capacity.max(available);
            let head = self.queue.iter().position(|waiter| !waiter.deferred).unwrap_or(0);
            let losses = self.queue.get(head).map_or(0, |head| head.losses);
            for (at, waiter) in self.queue.iter_mut().enumerate().filter(|(_, waiter)| waiter.deferred && waiter.min <= satisfiable)
            {
                waiter.deferred = false;
                // In front of the head, it has lost as often.
                waiter.losses = if at < head { losses.max(waiter.losses) } else { waiter.losses };
            }
            let Some(at) = self.queue.iter().position(|waiter| !waiter.deferred) else { break };
            let Waiter { name, min, woken, .. } = self.queue[at];
            let is_due = self.is_due(&self.queue[at]);
            // A newcomer could make a request above the capacity unsatisfiable again.
            if min <= available && (is_due || min > self.capacity) {
                if !woken {
                    notified.push(name);
                }
                self.grant(name);
            } else if min > satisfiable {
                self.queue[at].defer();
            } else if is_due {
                break;
            } else {
                let Some(at) = self.queue.iter().position(|waiter| !waiter.woken && !waiter.deferred) else { break };
                // Those before it have been woken, and claim what they need, if they can get it at all. Those behind it do not
                // count.
                let claims = |waiter: &&Waiter| !waiter.deferred && waiter.min <= satisfiable;
                let claimed: i64 = self.queue[..at].iter().filter(claims).map(|waiter| waiter.min).sum();
                let next = &mut self.queue[at];
                if next.min <= available - claimed {
                    next.woken = true;
                    notified.push(next.name);
                } else if available <= claimed || next.min <= satisfiable {
                    break;
                } else {
                    next.defer();
                }
            }
        }
        if self.queue.iter().all(|waiter| waiter.deferred) {
            (self.bypassed, self.left) = (Some(false), false);
        }
        notified
    }

    /// The future is gone, or done.
    fn leave(&mut self, name: Name) {
        self.queue.retain(|waiter| waiter.name != name);
        self.granted.retain(|&(waiter, _)| waiter != name);
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

/// After how many losses newcomers are shut out of a Barging bucket.
const LOSSES: usize = 16;

/// The script comes to a place where the bucket may do this or that, and ends there.
struct Cut;

enum Stop {
    Cut,
    Wrong(String),
}

impl From<Cut> for Stop {
    fn from(_: Cut) -> Self {
        Self::Cut
    }
}

impl From<String> for Stop {
    fn from(wrong: String) -> Self {
        Self::Wrong(wrong)
    }
}

type Checked = Result<(), Stop>;

struct Run<'a> {
    bucket: &'a Arc<TokenBucket>,
    refill: Refill,
    model: Model,
    futures: Vec<Pending<'a>>,
    guards: Vec<(Name, Guard<'a>)>,
    log: Log,
    script: String,
    names: Name,
    /// Releasers in the order in which they were first polled.
    releasers: Vec<Name>,
    /// Takers that the model wakes in this step.
    notified: Vec<Name>,
    /// Whether anything but tokens has ever been waited for, or more than the capacity.
    others: bool,
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

fn outcome<T, E>(result: &Result<T, E>, name: impl FnOnce(&E) -> &'static str) -> &'static str {
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
            fifo: bucket.fairness() == Fairness::Fifo,
            max: int(max),
            capacity: int(capacity),
            available: int(capacity),
            closed: false,
            queue: Vec::new(),
            granted: Vec::new(),
            bypassed: Some(false),
            left: false,
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
            releasers: Vec::new(),
            notified: Vec::new(),
            others: false,
        }
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

    fn expected_take(&self, min: i64) -> &'static str {
        if min > self.model.max && min > 0 {
            "exceeds"
        } else if self.model.closed {
            "closed"
        } else if self.model.admits(min) {
            "done"
        } else {
            "empty"
        }
    }

    /// Tokens come back.
    fn give(&mut self, n: i64) -> Result<i64, Cut> {
        let (fitted, notified) = self.model.give(n, self.others)?;
        self.notified.extend(notified);
        Ok(fitted)
    }

    fn resize(&mut self, available: i64, capacity: i64) -> Result<(), Cut> {
        let notified = self.model.change(available, capacity, self.others)?;
        self.notified.extend(notified);
        Ok(())
    }

    /// A newcomer takes up to `up_to`, and tells how many.
    fn take(&mut self, up_to: i64) -> i64 {
        let count = up_to.min(self.model.available.max(0));
        let notified = self.model.take(count);
        self.notified.extend(notified);
        count
    }

    fn remove_guard(&mut self, at: usize) -> Option<(Name, Guard<'a>)> {
        if self.guards.is_empty() { None } else { Some(self.guards.swap_remove(at % self.guards.len())) }
    }

    /// Runs one line. The error says where the bucket and the model differ.
    #[allow(clippy::too_many_lines, reason = "a list of what can be done")]
    fn step(&mut self, op: Op) -> Checked {
        let bucket = self.bucket;
        match op {
            Op::Take { n, owned } => {
                let name = self.name();
                let kind = if owned { Kind::Owned(bucket.take_many_owned(n)) } else { Kind::Take(bucket.take_many(n)) };
                self.say(format_args!("f{name} = take_many{}({n})", if owned { "_owned" } else { "" }));
                self.futures.push(Pending::new(name, n, n, kind));
            }
            Op::TakeUpTo { n, owned } => {
                let name = self.name();
                let kind = if owned { Kind::Owned(bucket.take_up_to_owned(n)) } else { Kind::Take(bucket.take_up_to(n)) };
                self.say(format_args!("f{name} = take_up_to{}({n})", if owned { "_owned" } else { "" }));
                self.futures.push(Pending::new(name, n.min(1), n, kind));
            }
            Op::Release => {
                let name = self.name();
                self.say(format_args!("f{name} = release()"));
                let kind = Kind::Release(bucket.release());
                self.futures.push(Pending::new(name, 1, 1, kind));
            }
            Op::Idle | Op::Settled => {
                let name = self.name();
                let for_idle = matches!(op, Op::Idle);
                self.say(format_args!("f{name} = {}()", if for_idle { "idle" } else { "settled" }));
                let kind = Kind::Watch(if for_idle { bucket.idle() } else { bucket.settled() });
                self.futures.push(Pending { for_idle, ..Pending::new(name, 0, 0, kind) });
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
                    let Pending { name, kind, .. } = self.futures.swap_remove(at % self.futures.len());
                    self.say(format_args!("drop(f{name})"));
                    drop(kind);
                    self.cancel(name)?;
                }
            }
            Op::TryTake { n, owned } => {
                self.say(format_args!("try_take_many{}({n})", if owned { "_owned" } else { "" }));
                let result = if owned {
                    bucket.try_take_many_owned(n).map(Guard::Owned)
                } else {
                    bucket.try_take_many(n).map(Guard::Borrowed)
                };
                same("result", self.expected_take(int(n)), outcome(&result, try_take_error))?;
                if let Ok(guard) = result {
                    same("count", n, guard.count())?;
                    self.take(int(n));
                    self.keep(guard);
                }
            }
            Op::TryTakeUpTo { n, owned } => {
                self.say(format_args!("try_take_up_to{}({n})", if owned { "_owned" } else { "" }));
                let result = if owned {
                    bucket.try_take_up_to_owned(n).map(Guard::Owned)
                } else {
                    bucket.try_take_up_to(n).map(Guard::Borrowed)
                };
                same("result", self.expected_take(int(n).min(1)), outcome(&result, try_take_error))?;
                if let Ok(guard) = result {
                    same("count", self.take(int(n)), int(guard.count()))?;
                    self.keep(guard);
                }
            }
            Op::Return(at) => {
                if let Some((name, guard)) = self.remove_guard(at) {
                    self.say(format_args!("drop(g{name})"));
                    let n = int(guard.count());
                    drop(guard);
                    self.give(n)?;
                }
            }
            Op::GiveBack(at) => {
                if let Some((name, guard)) = self.remove_guard(at) {
                    self.say(format_args!("g{name}.give_back()"));
                    let n = int(guard.count());
                    let found = guard.give_back();
                    let retired = n.min(self.model.numbers().3);
                    let restored = self.give(n)? - retired;
                    same("restored and retired", (restored, retired), (int(found.restored), int(found.retired)))?;
                }
            }
            Op::Retire(at) => {
                if let Some((name, guard)) = self.remove_guard(at) {
                    self.say(format_args!("g{name}.retire()"));
                    let n = int(guard.count());
                    guard.retire();
                    let paid = n.min(self.model.numbers().3);
                    self.resize(self.model.available + paid, (self.model.capacity - (n - paid)).max(0))?;
                }
            }
            Op::Forget(at) => {
                if let Some((name, guard)) = self.remove_guard(at) {
                    self.say(format_args!("g{name}.forget()"));
                    guard.forget();
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
                let found = outcome(&bucket.try_release_many(n), try_release_error);
                let expected = if int(n) > self.model.max {
                    "exceeds"
                } else if self.model.closed {
                    "closed"
                } else if int(n) > self.model.max - self.model.available {
                    "full"
                } else {
                    self.give(int(n))?;
                    "done"
                };
                same("result", expected, found)?;
            }
            Op::Refill(n) => {
                self.say(format_args!("refill({n})"));
                let found = bucket.refill(n);
                same("fitted", size(self.give(int(n))?), found)?;
            }
            Op::SetCapacity(n) => {
                self.say(format_args!("set_capacity({n})"));
                self.check_resize(n, true, &bucket.set_capacity(n))?;
            }
            Op::GrowBy(n) => {
                self.say(format_args!("update_capacity(|capacity| capacity + {n})"));
                let to = bucket.capacity().saturating_add(n);
                self.check_resize(to, false, &bucket.update_capacity(|capacity| capacity.saturating_add(n)))?;
            }
            Op::ShrinkBy(n) => {
                self.say(format_args!("update_capacity(|capacity| capacity - {n})"));
                let to = bucket.capacity().saturating_sub(n);
                self.check_resize(to, false, &bucket.update_capacity(|capacity| capacity.saturating_sub(n)))?;
            }
            Op::GrowAndTake { n, owned } => {
                self.say(format_args!("grow_and_take{}({n})", if owned { "_owned" } else { "" }));
                let result = if owned {
                    bucket.grow_and_take_owned(n).map(Guard::Owned)
                } else {
                    bucket.grow_and_take(n).map(Guard::Borrowed)
                };
                let found = outcome(&result, set_capacity_error);
                let expected = if self.model.closed {
                    "closed"
                } else if int(n) > self.model.max - self.model.capacity - self.model.numbers().3 {
                    "exceeds"
                } else {
                    self.resize(self.model.available, self.model.capacity + int(n))?;
                    "done"
                };
                same("result", expected, found)?;
                if let Ok(guard) = result {
                    same("count", n, guard.count())?;
                    self.keep(guard);
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
                let tick = self.refill.tick(bucket, Duration::from_nanos(now));
                let room = (self.model.capacity - self.model.available).max(0);
                let added = self.give(room.min(due.try_into().unwrap()))?;
                let expected = (added, i64::try_from(due).unwrap() - added, self.model.clock.next().map(Duration::from_nanos));
                same("added, lost and next", expected, (int(tick.added), int(tick.lost), tick.next))?;
            }
            Op::Close => {
                self.say(format_args!("close()"));
                let expected = !self.model.closed;
                self.model.closed = true;
                same("result", expected, bucket.close())?;
                // All at once, in no order that matters. A waiter that had been woken is not woken again.
                self.notified = self.model.queue.drain(..).filter(|waiter| !waiter.woken).map(|waiter| waiter.name).collect();
            }
        }
        Ok(self.compare()?)
    }

    fn check_resize(&mut self, n: usize, range_first: bool, result: &Result<Snapshot, SetCapacityError>) -> Checked {
        let found = outcome(result, set_capacity_error);
        let exceeds = int(n) > self.model.max;
        let expected = if exceeds && (range_first || !self.model.closed) {
            "exceeds"
        } else if self.model.closed {
            "closed"
        } else {
            let moved = (self.model.available + int(n) - self.model.capacity).min(self.model.max);
            self.resize(moved, int(n))?;
            // As it was right after the change, before the queue was served.
            if let Ok(now) = result {
                let found = (now.capacity, now.available, now.deficit, now.outstanding);
                let expected = (int(n), moved.max(0), (-moved).max(0), (int(n) - moved).max(0));
                same("returned snapshot", expected, (int(found.0), int(found.1), int(found.2), int(found.3)))?;
            }
            "done"
        };
        Ok(same("result", expected, found)?)
    }

    /// The future has been dropped.
    fn cancel(&mut self, name: Name) -> Checked {
        if let Some(&(_, count)) = self.model.granted.iter().find(|(waiter, _)| *waiter == name) {
            self.model.leave(name);
            self.give(count)?;
        } else if let Some(waiter) = self.model.queue.iter().find(|waiter| waiter.name == name) {
            let was_woken = waiter.woken;
            self.model.leave(name);
            self.model.left = true;
            if was_woken || self.model.available > 0 {
                let notified = self.model.serve();
                self.notified.extend(notified);
            } else if self.others && self.model.bypassed == Some(true) && self.model.head().is_none() {
                // The queue may have been looked at for the sake of others: then that take passed no waiter that is still there.
                self.model.bypassed = None;
            }
        }
        Ok(())
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

    fn poll(&mut self, at: usize) -> Checked {
        let future = &mut self.futures[at];
        let Pending { name, min, up_to, generation, polled, woken, for_idle, .. } = *future;
        future.polled = true;
        future.woken = false;
        let waker = Waker::from(Arc::new(Logger { log: Arc::clone(&self.log), name, generation }));
        let cx = &mut Context::from_waker(&waker);
        let (found, guard) = match &mut future.kind {
            Kind::Take(take) => match Pin::new(take).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (outcome(&result, take_error), result.ok().map(Guard::Borrowed)),
            },
            Kind::Owned(take) => match Pin::new(take).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (outcome(&result, take_error), result.ok().map(Guard::Owned)),
            },
            Kind::Release(release) => match Pin::new(release).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(result) => (outcome(&result, release_error), None),
            },
            Kind::Watch(watch) => match Pin::new(watch).poll(cx) {
                Poll::Pending => ("pending", None),
                Poll::Ready(()) => ("done", None),
            },
        };
        let is_release = matches!(future.kind, Kind::Release(_));
        let is_watch = matches!(future.kind, Kind::Watch(_));
        self.say(format_args!("poll(f{name})"));
        self.heard(found);
        let mut count = 0;
        let expected = if is_release {
            self.expected_release(polled, woken)?
        } else if is_watch {
            let holds = if for_idle { self.model.is_idle() } else { self.model.available >= 0 };
            // It is enough that it held when the future was woken.
            if (polled && woken) || (!polled && holds) { "done" } else { "pending" }
        } else if polled {
            self.expected_poll_again(name, &mut count)
        } else {
            self.expected_first_poll(name, int(min), int(up_to), &mut count)
        };
        self.others |= expected == "pending" && (is_release || is_watch);
        same("result", expected, found)?;
        if found != "pending" {
            self.futures.retain(|future| future.name != name);
        }
        if let Some(guard) = guard {
            same("count", count, int(guard.count()))?;
            self.keep(guard);
        }
        Ok(self.compare()?)
    }

    fn expected_first_poll(&mut self, name: Name, min: i64, up_to: i64, count: &mut i64) -> &'static str {
        match self.expected_take(min) {
            "done" => *count = self.take(up_to),
            "empty" => {
                self.model.queue.push(Waiter { name, min, up_to, losses: 0, woken: false, deferred: false });
                self.others |= !self.model.is_satisfiable(min);
                if self.model.available > 0 {
                    let notified = self.model.serve();
                    self.notified.extend(notified);
                }
                return "pending";
            }
            refused => return refused,
        }
        "done"
    }

    fn expected_poll_again(&mut self, name: Name, count: &mut i64) -> &'static str {
        if let Some(&(_, granted)) = self.model.granted.iter().find(|(waiter, _)| *waiter == name) {
            *count = granted;
            self.model.leave(name);
            return "done";
        }
        let Some(at) = self.model.queue.iter().position(|waiter| waiter.name == name) else {
            return if self.model.closed { "closed" } else { "lost" };
        };
        if !self.model.queue[at].woken {
            return "pending";
        }
        let (min, up_to) = (self.model.queue[at].min, self.model.queue[at].up_to);
        let gets = self.model.available >= min && !self.model.is_shut();
        if gets {
            *count = up_to.min(self.model.available);
            self.model.available -= *count;
            self.model.leave(name);
            if self.model.queue.iter().all(|waiter| waiter.deferred) {
                self.model.bypassed = Some(false);
            } else if *count > min {
                // Others may claim that.
                self.model.bypassed = Some(true);
            }
        } else {
            self.model.queue[at].woken = false;
        }
        if !gets || self.model.available > 0 {
            let notified = self.model.serve();
            self.notified.extend(notified);
        }
        if gets { "done" } else { "pending" }
    }

    /// A releaser that comes when there is room need not queue; one that has queued waits until it is woken.
    fn expected_release(&mut self, polled: bool, woken: bool) -> Result<&'static str, Cut> {
        if self.model.closed {
            Ok("closed")
        } else if self.model.available < self.model.max && (!polled || woken) {
            self.give(1)?;
            Ok("done")
        } else {
            Ok("pending")
        }
    }

    /// Compares with the model what was woken, and the numbers.
    fn compare(&mut self) -> Result<(), String> {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        if !log.is_empty() {
            let woken: Vec<_> = log.iter().map(|(name, _)| format!("f{name}")).collect();
            self.heard(&format!("wakes {}", woken.join(", ")));
        }
        let expected_releasers = self.expected_releasers();
        let watches = |future: &&Pending<'_>| future.watches(&self.model) && !future.woken;
        let mut expected_watchers: Vec<_> = self.futures.iter().filter(watches).map(|future| future.name).collect();
        let (mut takers, mut releasers, mut watchers) = (Vec::new(), Vec::new(), Vec::new());
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
                Kind::Watch(_) => watchers.push(name),
                _ => takers.push(name),
            }
        }
        let mut notified = std::mem::take(&mut self.notified);
        if self.model.closed {
            notified.sort_unstable();
            takers.sort_unstable();
        }
        same("takers woken, in order", notified, takers)?;
        same("releasers woken, in order", expected_releasers, releasers)?;
        expected_watchers.sort_unstable();
        watchers.sort_unstable();
        same("watchers woken", expected_watchers, watchers)?;
        let now = self.bucket.snapshot();
        let found = (int(now.capacity), int(now.available), int(now.outstanding), int(now.deficit), now.closed);
        same("(capacity, available, outstanding, deficit, closed)", self.model.numbers(), found)?;
        same("waiting", self.model.queue.len(), self.bucket.waiting())
    }

    /// As many as there is room for that no woken one claims; or all that sleep, at the close.
    fn expected_releasers(&mut self) -> Vec<Name> {
        let mut room = self.model.max - self.model.available;
        let mut notified = Vec::new();
        self.releasers.retain(|name| self.futures.iter().any(|future| future.name == *name && future.waits_for_room()));
        for future in self.futures.iter().filter(|future| future.waits_for_room()) {
            if !self.releasers.contains(&future.name) {
                self.releasers.push(future.name);
            }
        }
        for name in &self.releasers {
            let woken = self.futures.iter().any(|future| future.name == *name && future.woken);
            if !woken && !self.model.closed && room <= 0 {
                break;
            }
            room -= 1;
            if !woken {
                notified.push(*name);
            }
        }
        notified
    }

    /// Lets all proceed that can.
    fn settle(&mut self) -> Checked {
        let mut rounds = 3 * self.futures.len() + 3;
        while self.futures.iter().any(|future| future.woken) {
            rounds = rounds.checked_sub(1).ok_or_else(|| Stop::Wrong("they wake each other indefinitely".into()))?;
            self.step(Op::PollWoken)?;
        }
        Ok(())
    }

    fn script(&mut self, ops: &[Op]) -> Checked {
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
        Ok(same("waiting at the end", 0, self.bucket.waiting())?)
    }
}

/// Runs a script, and returns whether it was run to its end. The error is the script up to the line where the bucket and the model
/// differ.
pub fn run(fairness: Fairness, max: usize, capacity: usize, ops: &[Op]) -> Result<bool, String> {
    let bucket = Arc::new(TokenBucket::new(max, capacity).unwrap().with_fairness(fairness));
    let mut run = Run::new(&bucket);
    match run.script(ops) {
        Ok(()) => Ok(true),
        Err(Stop::Cut) => Ok(false),
        Err(Stop::Wrong(difference)) => Err(format!("{}\n{difference}", run.script)),
    }
}
