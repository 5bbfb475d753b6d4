//! A resizable semaphore, [`TokenBucket`], and a rate limiter, [`RateLimiter`], for any async runtime and for threads.
//!
//! ```
//! use token_bucket::TokenBucket;
//!
//! # futures::executor::block_on(async {
//! let bucket = TokenBucket::with_capacity(10);
//! let token = bucket.take().await?; // a future; a thread calls `bucket.take().wait()`
//! bucket.set_capacity(5)?; // in force when it returns; the held token stays valid
//! drop(token); // returns the token
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # The model
//!
//! A bucket is a capacity and a number of available tokens. They change together, in one atomic step.
//!
//! | operation | what it needs | what it does |
//! |---|---|---|
//! | [`take`], [`take_many`], [`take_up_to`], and their `try_` and `_owned` forms | tokens, and the caller's turn | `available` falls by that many |
//! | dropping a [`Token`], [`give_back`], [`refill`] | nothing: never waits, never fails | `available` rises, to `max_capacity` at most |
//! | [`release`], [`try_release`] | room below `max_capacity` | `available` rises |
//! | [`set_capacity`], [`update_capacity`] | at most `max_capacity` | `capacity` and `available` change by the same amount |
//! | [`grow_and_take`] | at most `max_capacity` | `capacity` rises; the caller gets the new tokens |
//! | [`retire`] | held tokens | the tokens and as much `capacity` vanish |
//! | [`forget`] | held tokens | nothing: they stay outstanding |
//! | [`close`], [`close_with`] | nothing | every waiter for tokens or room gets [`Closed`]; held tokens can still be returned |
//!
//! If a shrink leaves more tokens held than the capacity allows, the excess is the *deficit*. Returned tokens pay it off before any
//! waiter gets one. So a shrink never revokes a token, and shrinking and growing again cancel out. [`snapshot`] shows all counters
//! at one moment; [`idle`] waits until no token is outstanding, [`settled`] until no deficit is left.
//!
//! **The largest capacity is 2²⁸ − 1 on every target.** To limit bytes, count in KiB.
//!
//! # Fairness
//!
//! A [`Fairness::Fifo`] bucket, the default, serves requests in the order in which they were first polled, even if they are for
//! different numbers of tokens. A [`Fairness::Barging`] bucket lets callers take available tokens ahead of the queue, so running
//! threads need not stop; the waiter at the head of the queue loses at most 16 times. A request for more than the capacity is
//! *deferred*: it waits without blocking the waiters behind it. Tasks of any runtime and blocked threads share one queue.
//!
//! # Cancellation
//!
//! Every future is cancelled by dropping it, at any moment: no token is lost and later waiters are unaffected. For async timeouts,
//! use your runtime's timer, such as `tokio::time::timeout`; threads have [`wait_timeout`] and [`wait_deadline`]. **Do not keep a
//! future without polling it**: it may be granted tokens and keep them from others.
//!
//! # Rates
//!
//! A [`RateLimiter`] grants a number of tokens per unit of time, on any runtime and on threads. A taken token comes back by time
//! alone, so there is nothing to return or to forget. Rate and burst can be changed while callers wait.
//!
//! A [`Refill`] is the clock of a rate limiter, without a timer or a lock, for `no_std` and for limits of other kinds: it adds
//! tokens to a bucket at a fixed rate whenever it is passed the time. **Callers must [`forget`] each token.** A token that is
//! merely dropped goes straight back and nothing is limited.
//!
//! # Tokio
//!
//! All futures work on tokio as on any other runtime. A task that takes tokens in a loop without ever waiting does not yield to
//! other tasks, unless the feature `tokio` is on. Without the feature, add `tokio::task::coop::consume_budget().await` to such a
//! loop.
//!
//! # `no_std`
//!
//! Without the feature `std`, the crate needs `alloc`, and lacks the blocking forms, [`close_with`], [`RateLimiter`],
//! and the forms of [`Refill`] that read the clock. A thread that empties the inbox then holds a spin lock that all buckets share,
//! so **an interrupt handler must not return tokens.** The feature `portable-atomic` supports targets without 64-bit atomics.
//!
//! [`take`]: TokenBucket::take
//! [`take_many`]: TokenBucket::take_many
//! [`take_up_to`]: TokenBucket::take_up_to
//! [`give_back`]: TokenGuard::give_back
//! [`refill`]: TokenBucket::refill
//! [`release`]: TokenBucket::release
//! [`try_release`]: TokenBucket::try_release
//! [`set_capacity`]: TokenBucket::set_capacity
//! [`update_capacity`]: TokenBucket::update_capacity
//! [`grow_and_take`]: TokenBucket::grow_and_take
//! [`retire`]: TokenGuard::retire
//! [`forget`]: TokenGuard::forget
//! [`close`]: TokenBucket::close
//! [`close_with`]: TokenBucket::close_with
//! [`snapshot`]: TokenBucket::snapshot
//! [`idle`]: TokenBucket::idle
//! [`settled`]: TokenBucket::settled
//! [`wait_timeout`]: TakeFuture::wait_timeout
//! [`wait_deadline`]: TakeFuture::wait_deadline

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod atomic;
#[cfg(feature = "std")]
mod block;
mod bucket;
mod combiner;
mod error;
mod idle;
mod queue;
#[cfg(feature = "std")]
mod rate_limiter;
mod refill;
mod release;
mod stage;
mod state;
mod sync;
mod take;
mod token;
mod waiter;

pub use bucket::{Fairness, Snapshot, TokenBucket};
pub use error::{CapacityError, Closed, RateError, ReleaseError, SetCapacityError, TakeError, TryReleaseError, TryTakeError};
#[cfg(feature = "std")]
pub use error::{LimitError, NotYet, WaitError};
pub use idle::{Idle, Settled, Watch};
#[cfg(feature = "std")]
pub use rate_limiter::{RateLimiter, RateTake};
pub use refill::{Refill, Tick};
pub use release::Release;
pub use take::{Take, TakeFuture, TakeOwned};
pub use token::{Handle, OwnedToken, Returned, Token, TokenGuard};

/// The code in these pages is tested, too.
#[cfg(all(doctest, feature = "std"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/migration.md")]
    struct Migration;
}
