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
mod refill;
mod release;
mod state;
mod sync;
mod take;
mod token;
mod waiter;

pub use bucket::{Fairness, Snapshot, TokenBucket};
#[cfg(feature = "std")]
pub use error::WaitError;
pub use error::{CapacityError, Closed, RateError, ReleaseError, SetCapacityError, TakeError, TryReleaseError, TryTakeError};
pub use idle::{Idle, Settled, Watch};
pub use refill::{Refill, Tick};
pub use release::Release;
pub use take::{Take, TakeFuture, TakeOwned};
pub use token::{Handle, OwnedToken, Returned, Token, TokenGuard};
