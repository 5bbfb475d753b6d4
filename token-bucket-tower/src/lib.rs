#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod future;
mod layer;
mod limit;

pub use error::Overloaded;
pub use future::ResponseFuture;
pub use layer::LimitLayer;
pub use limit::Limit;
#[doc(no_inline)]
pub use token_bucket;
