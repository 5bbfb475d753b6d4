//! The program keeps its promise in the short form, notices a broken one, and leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program, in a directory of its own that also takes its temporary files.
fn fleet(dir: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.args(args).current_dir(dir).env("TMPDIR", dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The output, unless the program hangs.
fn finish(child: Child) -> Output {
    let id = child.id().to_string();
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(Duration::from_secs(180)) else {
        let _ = Command::new("kill").arg(&id).status();
        panic!("it hangs");
    };
    output.unwrap()
}

fn run(dir: &TempDir, args: &[&str]) -> (Option<i32>, String, String) {
    let output = finish(fleet(dir, args).spawn().unwrap());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn files(dir: &TempDir) -> Vec<String> {
    dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn port(line: &str) -> u16 {
    line.split_once("Redis listens on port ").expect(line).1.split_whitespace().next().unwrap().parse().unwrap()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn the_limit_is_kept() {
    let dir = TempDir::new().unwrap();
    let (code, stdout, stderr) = run(&dir, &["--short", "--svg=picture.svg"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("ok ")).count(), 11, "{stdout}");
    is_picture(&dir.path().join("picture.svg"));
    assert_eq!(files(&dir), ["picture.svg"]);
    assert!(!is_open(port(&stderr)));
}

#[test]
fn an_exceeded_limit_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (code, stdout, stderr) = run(&dir, &["--short", "--without-limit", "--svg=picture.svg"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.lines().any(|line| line.starts_with("FAILED at most ") && line.ends_with("the limit is 24")), "{stdout}");
    assert!(files(&dir).is_empty());
    assert!(!is_open(port(&stderr)));
}

#[test]
fn nothing_is_left_when_the_program_is_killed() {
    let dir = TempDir::new().unwrap();
    let mut child = fleet(&dir, &["--short"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let port = port(&lines.next().unwrap());
    // From then on, three members work.
    assert!(lines.any(|line| line.ends_with("B and C have little to do")));
    assert!(is_open(port));
    child.kill().unwrap();
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while is_open(port) || !files(&dir).is_empty() {
        assert!(Instant::now() < until, "Redis is left: {:?}", files(&dir));
        thread::sleep(Duration::from_millis(10));
    }
    // The members hold the other end of this pipe; it closes when they exit.
    let (sender, exited) = mpsc::channel();
    thread::spawn(move || sender.send(lines.count()));
    exited.recv_timeout(Duration::from_secs(20)).expect("a member is left");
}

#[test]
fn a_missing_server_is_an_error_with_a_hint() {
    let dir = TempDir::new().unwrap();
    let output = finish(fleet(&dir, &["--short"]).env("PATH", "/nonexistent").spawn().unwrap());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("apt-get install redis-server"), "{stderr}");
}

#[test]
fn help_is_given() {
    let (code, help, _) = run(&TempDir::new().unwrap(), &["--help"]);
    assert_eq!(code, Some(0));
    for text in ["--short", "--svg <PATH>", "--without-limit", "Exit status"] {
        assert!(help.contains(text), "{text} is not in {help}");
    }
}

#[test]
fn the_picture_is_there() {
    is_picture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../pictures/fleet.svg"));
}

#[track_caller]
fn is_picture(path: &Path) {
    let picture = std::fs::read_to_string(path).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    for text in ["time (seconds)", "jobs at a time", "A is killed", "Redis does not answer", "limit"] {
        assert!(picture.contains(text), "{text} is not in the picture");
    }
    assert!((5_000..40_000).contains(&picture.len()), "{} bytes", picture.len());
}
