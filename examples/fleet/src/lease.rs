//! A share of a limit that several processes have in common, leased from Redis.
//!
//! Each process is a [`Member`]. It leases a share of the limit, renews the lease, and sets the capacity of its own bucket to the
//! share. Taking a token costs no round trip. Shares follow demand: the tokens that a process holds or waits for.
//!
//! # What it promises
//!
//! **The tokens held by all processes together never exceed the limit**, on these conditions:
//!
//! * If the lease can no longer be renewed, all tokens beyond the minimum are returned before it ends. Work that takes no longer than
//!   [`Terms::work`] always keeps to this. While the lease is renewed, work may take as long as it likes. A process in which
//!   [`Share::is_overdue`] is true has failed and must end that work, for example by exiting.
//! * All processes use the same key, [`Terms::lease`], [`Terms::minimum`] and [`Terms::processes`]. If they disagree on
//!   [`Terms::limit`], as during a roll-out, the largest one holds.
//! * The clock of Redis does not jump forward, and no clock runs more than an eighth faster than another.
//! * All processes talk to the same Redis primary.
//!
//! It works like this: a member's lease covers all tokens that it holds or may take without asking. A smaller share takes effect in
//! the member first; the lease follows with the next request, and never goes below the number of tokens still held. Redis lets a lease grow only
//! into tokens that no other lease covers. A member stops taking tokens beyond its minimum when [`Terms::work`] is left of its lease. It
//! counts the lease from before it sent the request, on its own monotonic clock, so the lease ends in the member before it ends in Redis.
//!
//! The rest follows:
//!
//! * The share of a dead process returns to the pool when its lease expires.
//! * While Redis is away, each process keeps its share until its lease ends, then has [`Terms::minimum`] tokens. These
//!   are reserved outside the leased pool for [`Terms::processes`] processes. **Redis cannot check that no more are running.**
//! * After Redis has restarted, failed over or lost the key, it grants nothing new for one lease time (the *grace period*). Members keep
//!   the shares that they report. A new key begins with a grace period too, because Redis cannot tell it from a lost one.
//!
//! # What it does not promise
//!
//! * A process that is stopped (`SIGSTOP`, a paused virtual machine) while it holds tokens cannot notice that its lease ends.
//! * Two Redis servers that both take writes, as in a split failover, may each grant the limit. So may a replica that replaces its data
//!   while it runs.
//! * Work that a killed process has started elsewhere may outlive the process.
//! * Shares move within a few renewals, not at once. Each renewal reads the leases of all members, so the cost grows with the square of
//!   their number; a few hundred are fine.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{error, fmt};

use redis::{Client, Connection, ConnectionLike, RedisError, RedisResult, Script};
use token_bucket::{Snapshot, TakeError, Token, TokenBucket, TryTakeError};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));

/// What all processes have to agree on.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The most tokens that all processes may hold together.
    pub limit: usize,
    /// The tokens of a process without a lease; 0 is fine.
    pub minimum: usize,
    /// The most processes that ever run at once. This matters only if `minimum` is above 0.
    pub processes: usize,
    /// How long a lease lasts, and so how long the share of a dead process stays unused. To change it, stop all processes and delete
    /// the key.
    pub lease: Duration,
    /// The longest time from taking a token to returning it. This much before the end of its lease, a process stops taking tokens.
    pub work: Duration,
}

impl Terms {
    /// The tokens to be leased: the limit without the minimum of each process.
    ///
    /// # Errors
    ///
    /// If the limit is not a possible capacity, if the minimum of all processes exceeds it, if a minimum is given without the number
    /// of processes, or if the lease is not within 20 ms and a day or leaves less than a quarter of its time for renewals.
    pub fn pool(&self) -> Result<usize, InvalidTerms> {
        let &Self { limit, minimum, processes, lease, work } = self;
        let reserved = minimum.checked_mul(processes).filter(|&reserved| reserved <= limit);
        let reason = if limit == 0 || limit > TokenBucket::MAX_CAPACITY {
            format!("the limit {limit} is not within 1..={}", TokenBucket::MAX_CAPACITY)
        } else if minimum > 0 && processes == 0 {
            format!("the minimum is {minimum}, but the number of processes is 0")
        } else if lease < Duration::from_millis(20) || lease > Duration::from_secs(86_400) {
            format!("the lease time {lease:?} is not within 20 ms and a day")
        } else if work > lease / 4 * 3 {
            format!("the work time {work:?} exceeds three quarters of the lease time {lease:?}")
        } else if let Some(reserved) = reserved {
            return Ok(limit - reserved);
        } else {
            format!("the minimum {minimum} for each of {processes} processes exceeds the limit {limit}")
        };
        Err(InvalidTerms(reason))
    }

    /// The time between two renewals, and how long Redis may take to answer one.
    fn period(&self) -> Duration {
        self.lease.saturating_sub(self.work) / 5
    }
}

/// Error returned for [`Terms`] that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTerms(String);

impl fmt::Display for InvalidTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for InvalidTerms {}

/// The part of the limit that one process may use.
///
/// It needs no connection: [`request`](Self::request) and [`accept`](Self::accept) are the two ends of a renewal.
#[derive(Debug)]
pub struct Share {
    id: String,
    terms: Terms,
    pool: usize,
    bucket: TokenBucket,
    requests: AtomicU64,
    lease: Mutex<Lease>,
}

#[derive(Debug)]
struct Lease {
    /// Whether tokens beyond the minimum may be taken.
    is_live: bool,
    ends: Instant,
}

impl Share {
    /// Creates the share of a new process, which has the minimum until it has a lease.
    ///
    /// # Errors
    ///
    /// See [`Terms::pool`].
    pub fn new(terms: Terms) -> Result<Self, InvalidTerms> {
        let pool = terms.pool()?;
        let bucket = TokenBucket::new(terms.limit, terms.minimum).map_err(|error| InvalidTerms(error.to_string()))?;
        Ok(Self {
            id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            terms,
            pool,
            bucket,
            requests: AtomicU64::new(0),
            lease: Mutex::new(Lease { is_live: false, ends: Instant::now() }),
        })
    }

    /// Waits for a token; blocks this thread. (For tasks, `.await` the bucket's `take` in the same loop.)
    ///
    /// # Errors
    ///
    /// If the member has left.
    pub fn take(&self) -> Result<Token<'_>, TakeError> {
        loop {
            let token = self.bucket.take().wait()?;
            if self.covers_new_work() {
                return Ok(token);
            }
        }
    }

    /// Takes a token if one is available.
    ///
    /// # Errors
    ///
    /// If none is, or the member has left.
    pub fn try_take(&self) -> Result<Token<'_>, TryTakeError> {
        loop {
            let token = self.bucket.try_take()?;
            if self.covers_new_work() {
                return Ok(token);
            }
        }
    }

    /// Whether a token that was just taken may be used, whatever delayed this thread or the one that renews the lease.
    fn covers_new_work(&self) -> bool {
        let lease = self.lease_now();
        lease.is_live || self.bucket.deficit() == 0
    }

    /// The state of the bucket. Its capacity is what this process may use now.
    pub fn snapshot(&self) -> Snapshot {
        drop(self.lease_now());
        self.bucket.snapshot()
    }

    /// Whether the lease has ended and more than the minimum is still held. **The work must be ended at once.**
    pub fn is_overdue(&self) -> bool {
        let lease = self.lease_now();
        !lease.is_live && lease.ends <= Instant::now() && self.bucket.outstanding() > self.terms.minimum
    }

    /// The lease, after the return to the minimum if that is due.
    fn lease_now(&self) -> MutexGuard<'_, Lease> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if lease.is_live && Instant::now() + self.terms.work >= lease.ends {
            lease.is_live = false;
            self.set_capacity(self.terms.minimum);
        }
        lease
    }

    fn set_capacity(&self, capacity: usize) {
        // The only possible error is that the bucket is closed. Then it hands out nothing, whatever its capacity.
        let _ = self.bucket.set_capacity(capacity);
    }

    /// The next renewal. Send it, then [`accept`](Self::accept) the answer; a request without an answer is safe to forget, and an
    /// answer that arrives too late is ignored.
    pub fn request(&self) -> Request {
        let sent = Instant::now();
        // Only `accept` raises the capacity, so no more than this is held before the answer.
        let now = self.snapshot();
        let leased = |tokens: usize| tokens.saturating_sub(self.terms.minimum);
        Request {
            id: self.id.clone(),
            number: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
            keep: leased(now.capacity.max(now.outstanding)),
            demand: leased(now.outstanding + self.bucket.waiting()),
            pool: self.pool,
            lease: self.terms.lease,
            sent,
        }
    }

    /// Uses the share that Redis has answered to the latest request. Returns whether the share is smaller than before, so that it is
    /// worthwhile to give the difference back at once.
    pub fn accept(&self, request: &Request, share: usize) -> bool {
        let mut lease = self.lease_now();
        // The lease of the tokens to keep may have ended before Redis saw the request. Others may have been granted them since, and
        // Redis may have forgotten that.
        let may_be_others = request.keep > 0 && lease.ends <= Instant::now();
        if may_be_others || request.number != self.requests.load(Ordering::Relaxed) {
            return false;
        }
        let ends = request.sent + self.terms.lease;
        if Instant::now() + self.terms.work >= ends {
            // Its tokens could not be used any more.
            return false;
        }
        let before = self.bucket.capacity();
        let capacity = self.terms.minimum + share.min(self.pool);
        *lease = Lease { is_live: true, ends };
        self.set_capacity(capacity);
        capacity < before
    }
}

/// A renewal to be sent to Redis.
#[derive(Clone, Debug)]
pub struct Request {
    /// The member.
    pub id: String,
    /// Counts the requests of the member. Redis refuses one that arrives after a later one.
    pub number: u64,
    /// The tokens, beyond the minimum, that the member holds or may take before it has an answer.
    pub keep: usize,
    /// The tokens, beyond the minimum, that the member could use.
    pub demand: usize,
    /// The tokens to be leased to all members.
    pub pool: usize,
    /// How long a lease lasts.
    pub lease: Duration,
    sent: Instant,
}

impl Request {
    /// Sends the request and returns the share that Redis grants.
    ///
    /// # Errors
    ///
    /// If Redis cannot be reached, does not answer within the timeout of the connection, or refuses the request.
    pub fn send(&self, connection: &mut impl ConnectionLike, key: &str) -> RedisResult<usize> {
        let mut call = SCRIPT.key(key);
        call.arg(&self.id).arg(self.number).arg(self.keep).arg(self.demand).arg(self.pool);
        // Rounded up: the lease ends in the member first.
        call.arg(self.lease.as_millis() + 1).invoke(connection)
    }
}

/// A process that shares the limit. A thread renews its lease until it is dropped, or until it [leaves](Self::leave).
#[derive(Debug)]
pub struct Member {
    share: Arc<Share>,
    failure: Arc<Mutex<Option<RedisError>>>,
    stop: Sender<()>,
    keeper: JoinHandle<()>,
}

impl Member {
    /// Joins the processes that share a limit under `key`. It does not wait for Redis: the lease follows when Redis answers.
    ///
    /// # Errors
    ///
    /// If the terms or the address of Redis are invalid.
    pub fn join(address: &str, key: &str, terms: Terms) -> Result<Self, Box<dyn error::Error + Send + Sync>> {
        let share = Arc::new(Share::new(terms)?);
        let failure = Arc::default();
        let (stop, stopped) = mpsc::channel();
        let keeper = Keeper {
            client: Client::open(address)?,
            connection: None,
            key: key.to_owned(),
            share: Arc::clone(&share),
            failure: Arc::clone(&failure),
        };
        let keeper = thread::Builder::new().name("lease".into()).spawn(move || keeper.run(&stopped))?;
        Ok(Self { share, failure, stop, keeper })
    }

    /// The share of this process, to take tokens from.
    #[must_use]
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Why the last renewal failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }

    /// Hands out no more tokens, waits until all have been returned, and gives up the lease.
    pub fn leave(self) {
        self.share.bucket.close();
        self.share.bucket.idle().wait();
        let _ = self.stop.send(());
        let _ = self.keeper.join();
    }
}

/// What the renewing thread works with.
struct Keeper {
    client: Client,
    connection: Option<Connection>,
    key: String,
    share: Arc<Share>,
    failure: Arc<Mutex<Option<RedisError>>>,
}

impl Keeper {
    fn run(mut self, stop: &Receiver<()>) {
        let period = self.share.terms.period();
        loop {
            let renewed = self.renew();
            let pause = if matches!(renewed, Ok(true)) { Duration::ZERO } else { period };
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = renewed.err();
            match stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) => return self.give_up(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn renew(&mut self) -> RedisResult<bool> {
        let request = self.share.request();
        let mut connection = self.connect()?;
        let share = request.send(&mut connection, &self.key)?;
        // Not after an error: a late answer must not be taken for that to the next request.
        self.connection = Some(connection);
        Ok(self.share.accept(&request, share))
    }

    fn connect(&mut self) -> RedisResult<Connection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let timeout = self.share.terms.period();
        let connection = self.client.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    }

    /// All tokens are back, and no more are handed out. Without an answer, the lease expires.
    fn give_up(&mut self) {
        if let Ok(mut connection) = self.connect() {
            let _ = redis::cmd("HDEL").arg(&self.key).arg(&self.share.id).exec(&mut connection);
        }
    }
}
