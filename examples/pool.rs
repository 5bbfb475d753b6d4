//! A pool of connections that can be resized while they are in use.
//!
//! ```sh
//! cargo run --example pool
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex};

use token_bucket::{SetCapacityError, TakeError, TokenBucket, TokenGuard};

#[derive(Default)]
struct Connection;

impl Drop for Connection {
    fn drop(&mut self) {
        println!("a connection is closed");
    }
}

struct Pool {
    limit: TokenBucket,
    idle: Mutex<Vec<Connection>>,
}

/// A checked-out connection. When it is dropped, it goes back to the pool.
struct Pooled {
    connection: Option<Connection>,
    token: Option<TokenGuard<Arc<Pool>>>,
}

impl AsRef<TokenBucket> for Pool {
    fn as_ref(&self) -> &TokenBucket {
        &self.limit
    }
}

impl Pool {
    async fn get(self: &Arc<Self>) -> Result<Pooled, TakeError> {
        let token = TokenGuard::take(Arc::clone(self), 1).await?;
        let idle = self.idle.lock().unwrap().pop();
        Ok(Pooled { connection: Some(idle.unwrap_or_default()), token: Some(token) })
    }

    /// Adds a connection that was opened elsewhere, and checks it out.
    fn add(self: &Arc<Self>, connection: Connection) -> Result<Pooled, SetCapacityError> {
        let token = TokenGuard::grow_and_take(Arc::clone(self), 1)?;
        Ok(Pooled { connection: Some(connection), token: Some(token) })
    }

    /// Never waits. Connections in use stay open; if they are surplus, they are closed when they come back.
    fn resize(&self, size: usize) -> Result<(), SetCapacityError> {
        self.limit.set_capacity(size)?;
        let mut idle = self.idle.lock().unwrap();
        // Under the lock: a caller may have taken a token meanwhile, which was for one of these.
        let keep = self.limit.available().min(idle.len());
        let _surplus = idle.split_off(keep);
        drop(idle); // before the surplus: closing may take a long time
        Ok(())
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        let pool = Arc::clone(token.handle());
        // First the connection, then the token: the caller that gets the token must find the connection.
        pool.idle.lock().unwrap().extend(self.connection.take());
        if token.give_back().retired > 0 {
            let _surplus = pool.idle.lock().unwrap().pop();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Arc::new(Pool { limit: TokenBucket::with_capacity(3), idle: Mutex::default() });
    pollster::block_on(async {
        let (one, two, three) = (pool.get().await?, pool.get().await?, pool.get().await?);
        let four = pool.add(Connection)?;
        pool.resize(1)?;
        drop((one, two, four)); // surplus, so they are closed
        assert_eq!(pool.idle.lock().unwrap().len(), 0);
        drop(three);
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
        Ok(())
    })
}
