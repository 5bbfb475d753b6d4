//! A TCP proxy on the loopback interface that makes a server slow.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Delivers each message after a delay, even if its sender has given up the connection. Its threads end with the program.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    delay: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy for a server on a port of the loopback interface.
    pub(crate) fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let delay = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&delay);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Without a server, the client sees the connection closed.
                let _ = connect(client, server, &shared);
            }
        });
        Ok(Self { port, delay })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sets the delay in each direction, also of messages on their way.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn connect(client: TcpStream, server: u16, delay: &Arc<AtomicU64>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        to.set_nodelay(true)?;
        let delay = Arc::clone(delay);
        thread::spawn(move || {
            let _ = forward(&from, &to, &delay);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

fn forward(mut from: &TcpStream, mut to: &TcpStream, delay: &AtomicU64) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let received = Instant::now();
        while received.elapsed() < Duration::from_millis(delay.load(Ordering::Relaxed)) {
            thread::sleep(Duration::from_millis(1));
        }
        to.write_all(&buffer[..len])?;
    }
}
