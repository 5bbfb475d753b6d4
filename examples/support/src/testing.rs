//! Runs a program in tests. `program` is the path in `env!("CARGO_BIN_EXE_…")`.
//!
//! All functions panic if an expectation is not met.
#![allow(clippy::missing_panics_doc, reason = "they are for tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Returns a command that runs the program and captures its output.
#[must_use]
pub fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the output. Panics if the program hangs.
#[must_use]
pub fn finish(child: Child) -> Output {
    let id = child.id().to_string();
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(Duration::from_secs(60)) else {
        let _ = Command::new("kill").arg(&id).status();
        panic!("the program hangs");
    };
    output.unwrap()
}

/// Returns the exit code and what was printed to stdout and stderr.
pub fn run(command: &mut Command) -> (i32, Vec<u8>, String) {
    let output = finish(command.spawn().unwrap());
    let code = output.status.code().expect("the program was killed");
    (code, output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Checks that the file is an SVG picture of a reasonable size.
pub fn is_picture(path: &Path, smallest: usize) {
    let picture = fs::read_to_string(path).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    assert!((smallest..64_000).contains(&picture.len()), "{} bytes", picture.len());
}

/// Runs the short mode with a picture, and checks that at least `claims` claims hold and that no file is left behind.
pub fn claims_hold(program: &str, claims: usize) {
    let dir = TempDir::new().unwrap();
    let (code, stdout, stderr) = run(command(program, dir.path()).args(["--short", "--svg=picture.svg"]));
    let stdout = String::from_utf8(stdout).unwrap();
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.lines().filter(|line| line.starts_with("ok ")).count() >= claims, "{stdout}");
    is_picture(&dir.path().join("picture.svg"), 5_000);

    let (code, help, _) = run(command(program, dir.path()).arg("--help"));
    let help = String::from_utf8(help).unwrap();
    assert_eq!(code, 0);
    for option in ["--short", "--svg <PATH>", "Exit status"] {
        assert!(help.contains(option), "{option} is not in {help}");
    }
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 1, "the program left files behind");
}

/// Runs the short mode with an option with which a claim cannot hold, and checks that it fails.
pub fn claim_fails(program: &str, option: &str, claim: &str) {
    let dir = TempDir::new().unwrap();
    let (code, stdout, stderr) = run(command(program, dir.path()).args(["--short", option]));
    let stdout = String::from_utf8(stdout).unwrap();
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.lines().any(|line| line.starts_with("FAILED") && line.contains(claim)), "{stdout}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the program left files behind");
}
