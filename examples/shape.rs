//! Sends data at 200 KiB a second: one token is one byte.
//!
//! ```sh
//! cargo run --example shape
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use token_bucket::{LimitError, RateLimiter};

/// A writer that keeps to the rate of a limiter. Several writers may share one.
struct Shaped<'a, W> {
    limiter: &'a RateLimiter,
    writer: W,
}

impl<W: Write> Write for Shaped<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // At most a burst, because more is an error; at least a byte, which waits while the limiter is paused.
        let chunk = &data[..data.len().min(self.limiter.burst().max(1))];
        match self.limiter.wait(chunk.len()) {
            Ok(()) => self.writer.write_all(chunk).map(|()| chunk.len()),
            // The burst has just become smaller. (If that happens during the wait, it lasts until the burst has grown again.)
            Err(LimitError::ExceedsBurst { .. }) => Err(io::ErrorKind::Interrupted.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let limiter = RateLimiter::new(200 << 10, Duration::from_secs(1), 4 << 10)?;
    let mut received = Vec::new();
    Shaped { limiter: &limiter, writer: &mut received }.write_all(&vec![7; 44 << 10])?;

    assert_eq!(received.len(), 44 << 10);
    assert!(start.elapsed() >= Duration::from_millis(200)); // 4 KiB at once, then 40 KiB at the rate
    Ok(())
}
