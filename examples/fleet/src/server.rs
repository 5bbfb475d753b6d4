//! A Redis server of its own, on a free port of the loopback interface, that ends with the program in any case.

use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection};
use tempfile::TempDir;

/// Starts the server and kills it when the shell's input ends, which it does even if this program is killed. It also removes the
/// server's directory, unless a line of input tells it not to.
const GUARD: &str = r#"
    dir=$1; shift
    trap '' HUP INT TERM
    "$@" </dev/null & read -r keep
    kill -9 $!; wait
    [ -n "$keep" ] || rm -rf "$dir"
"#;

/// A running server. It is killed when it is dropped, as in a crash: it saves nothing by itself.
#[derive(Debug)]
pub struct Server {
    guard: Child,
    port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// If `redis-server` is not installed or does not start.
    pub fn start() -> io::Result<Self> {
        let dir = TempDir::with_prefix("fleet-redis-")?;
        // Another program may take the port before the server does.
        let mut last = None;
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            match launch(port, dir.path()) {
                Ok(guard) => return Ok(Self { guard, port, dir }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("redis-server does not start")))
    }

    /// Kills the server and starts it again on the same port, with the data that it last saved, if any.
    ///
    /// # Errors
    ///
    /// If it does not start again.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill(b"keep\n");
        self.guard = launch(self.port, self.dir.path())?;
        Ok(())
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn connect(&self) -> redis::RedisResult<Connection> {
        connect(self.port)
    }

    fn kill(&mut self, last_words: &[u8]) {
        // Dropped at the end of the statement. If the guard is gone, so is the server.
        let _ = self.guard.stdin.take().map(|mut input| input.write_all(last_words));
        let _ = self.guard.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill(b"");
    }
}

fn connect(port: u16) -> redis::RedisResult<Connection> {
    Client::open(("127.0.0.1", port))?.get_connection_with_timeout(Duration::from_secs(5))
}

fn launch(port: u16, dir: &Path) -> io::Result<Child> {
    if let Err(error) = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status() {
        let hint = "redis-server cannot be run; install it, for example with `apt-get install redis-server`";
        return Err(io::Error::new(error.kind(), format!("{hint}: {error}")));
    }
    let log = dir.join("log");
    let _ = fs::remove_file(&log); // of an earlier run
    let mut guard = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(dir)
        .args(["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string()])
        .arg("--dir")
        .arg(dir)
        .arg("--logfile")
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        // The log says whose server answers on the port.
        if fs::read_to_string(&log).is_ok_and(|log| log.contains("Ready to accept connections")) && connect(port).is_ok() {
            return Ok(guard);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    if let Some(mut input) = guard.stdin.take() {
        input.write_all(b"keep\n")?;
    }
    guard.wait()?;
    Err(io::Error::other(format!("redis-server does not start: {text}")))
}
