#![doc = include_str!("../README.md")]
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
