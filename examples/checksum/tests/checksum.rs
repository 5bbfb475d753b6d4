//! Runs the program on made-up files, and checks its output.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use example_support::testing::{command, finish, is_picture, run};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

fn checksum(dir: &Path) -> Command {
    command(env!("CARGO_BIN_EXE_checksum"), dir)
}

/// Files with various names, and their contents.
fn make_files(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut files = BTreeMap::new();
    let big = (0..5_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let odd: [(&[u8], Vec<u8>); 10] = [
        (b"empty", Vec::new()),
        (b"big", big),
        (b" two  spaces ", b"1".to_vec()),
        (b"back\\slash", b"2".to_vec()),
        (b"new\nline", b"3".to_vec()),
        (b"carriage\rreturn", b"4".to_vec()),
        (b"-c", b"5".to_vec()),
        (b"*star", b"6".to_vec()),
        ("ünïcode".as_bytes(), b"7".to_vec()),
        (b"sub/.hidden", b"8".to_vec()),
    ];
    files.extend(odd.map(|(name, content)| (name.to_vec(), content)));
    files.extend((0..200_u32).map(|n| (format!("many/{n}").into_bytes(), n.to_string().repeat(n as usize).into_bytes())));
    // Not every file system allows such names.
    if fs::write(dir.join(OsStr::from_bytes(b"not\xffutf8")), "9").is_ok() {
        files.insert(b"not\xffutf8".to_vec(), b"9".to_vec());
    }
    for sub in ["sub", "many", "none"] {
        fs::create_dir(dir.join(sub)).unwrap();
    }
    for (name, content) in &files {
        fs::write(dir.join(OsStr::from_bytes(name)), content).unwrap();
    }
    files
}

/// Parses the lines: sums by name, without escapes.
fn parse(stdout: &[u8]) -> BTreeMap<Vec<u8>, String> {
    let lines = stdout.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n');
    lines
        .map(|line| {
            let (line, is_escaped) = line.strip_prefix(b"\\").map_or((line, false), |rest| (rest, true));
            let (sum, name) = line.split_at(64);
            let name = name.strip_prefix(b"  ").expect("two spaces");
            let mut bytes = name.iter().copied();
            let mut plain = Vec::new();
            while let Some(byte) = bytes.next() {
                plain.push(match byte {
                    b'\\' if is_escaped => match bytes.next() {
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b'\\') => b'\\',
                        other => panic!("no such escape: {other:?}"),
                    },
                    byte => byte,
                });
            }
            (plain, String::from_utf8(sum.to_vec()).unwrap())
        })
        .collect()
}

fn below(root: &str, name: &[u8]) -> Vec<u8> {
    [root.as_bytes(), b"/", name].concat()
}

#[test]
fn sums_are_right_and_in_order_for_any_number_of_workers() {
    let dir = TempDir::new().unwrap();
    let files = make_files(dir.path());
    symlink(".", dir.path().join("sub/loop")).unwrap();
    let expected = files.iter().map(|(name, content)| (below(".", name), format!("{:x}", Sha256::digest(content)))).collect();
    let mut first = None;
    for options in [
        ["--threads=8", "--tasks=32", "--max-capacity=16"],
        ["--threads=1", "--tasks=0", "--max-capacity=1"],
        ["--threads=0", "--tasks=1", "--max-capacity=7"],
        ["--threads=64", "--tasks=256", "--max-capacity=268435455"],
    ] {
        let (code, stdout, stderr) = run(checksum(dir.path()).args(options).args(["--resize-every=1", "."]));
        assert_eq!(code, 0, "{options:?}: {stderr}");
        assert!(parse(&stdout) == expected, "{options:?}: {}", String::from_utf8_lossy(&stdout));
        assert!(*first.get_or_insert_with(|| stdout.clone()) == stdout, "{options:?}: another order");
        assert!(stderr.contains(&format!("{} files", files.len())), "{stderr}");
    }
}

#[test]
fn sha256sum_accepts_the_lines() {
    let dir = TempDir::new().unwrap();
    make_files(dir.path());
    let (code, stdout, stderr) = run(checksum(dir.path()).args(["--quiet", "."]));
    assert_eq!((code, &*stderr), (0, ""));

    let sha256sum =
        Command::new("sha256sum").args(["--check", "--strict", "--quiet"]).current_dir(dir.path()).stdin(Stdio::piped()).spawn();
    let Ok(mut sha256sum) = sha256sum else {
        eprintln!("SKIPPED: there is no sha256sum on this machine");
        return;
    };
    sha256sum.stdin.take().unwrap().write_all(&stdout).unwrap();
    assert!(sha256sum.wait().unwrap().success());
}

#[test]
fn lines_are_those_of_sha256sum() {
    let dir = TempDir::new().unwrap();
    make_files(dir.path());
    // Only some versions escape a carriage return.
    let names = ["./big", "empty", "back\\slash", "new\nline", "./-c", "sub/../sub//.hidden"];
    let Ok(theirs) = Command::new("sha256sum").args(names).current_dir(dir.path()).output() else {
        eprintln!("SKIPPED: there is no sha256sum on this machine");
        return;
    };
    let (code, ours, stderr) = run(checksum(dir.path()).args(names));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs.stdout).unwrap());
}

#[test]
fn this_repository_is_the_default_and_sees_capacities_change() {
    let (code, stdout, stderr) = run(&mut checksum(Path::new("/")));
    assert_eq!(code, 0, "{stderr}");
    let names: Vec<_> = parse(&stdout).into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    assert!(names.contains(&own.join("Cargo.toml").display().to_string()));
    assert!(!names.iter().any(|name| ["target", ".git"].iter().any(|skipped| Path::new(name).starts_with(own.join(skipped)))));
    let (resizes, _) = stderr.split_once(" resizes").unwrap();
    let resizes: usize = resizes.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(resizes >= 5, "it did not get to 1, 0 and up again: {stderr}");
}

#[test]
fn what_cannot_be_read_is_an_error_and_the_others_are_done() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("good"), "good").unwrap();
    fs::write(dir.path().join("locked"), "locked").unwrap();
    fs::set_permissions(dir.path().join("locked"), fs::Permissions::from_mode(0o0)).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    let is_root = fs::read(dir.path().join("locked")).is_ok();

    let (code, stdout, stderr) = run(checksum(dir.path()).args(["missing", "loop", "locked", "good", "/dev/null"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(parse(&stdout).contains_key(&b"good"[..]));
    assert!(stderr.contains("checksum: missing: No such file"), "{stderr}");
    assert!(stderr.contains("checksum: loop: "), "{stderr}");
    assert!(stderr.contains("checksum: /dev/null: Not a regular file"), "{stderr}");
    assert_eq!(stderr.contains("checksum: locked: Permission denied"), !is_root, "{stderr}");
}

#[test]
fn a_picture_is_drawn_if_asked_for() {
    let dir = TempDir::new().unwrap();
    make_files(dir.path());
    let (code, _, stderr) = run(checksum(dir.path()).args(["--svg=picture.svg", "many"]));
    assert_eq!(code, 0, "{stderr}");
    is_picture(&dir.path().join("picture.svg"), 2_000);
    let (code, _, stderr) = run(checksum(dir.path()).args(["--svg=none/of/these", "many"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("none/of/these"), "{stderr}");
}

#[test]
fn nothing_to_do_is_no_error() {
    let dir = TempDir::new().unwrap();
    let (code, stdout, _) = run(checksum(dir.path()).arg("."));
    assert_eq!((code, stdout), (0, Vec::new()));
}

#[test]
fn a_fifo_and_a_symbolic_link_in_a_directory_are_skipped() {
    let dir = TempDir::new().unwrap();
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    if !Command::new("mkfifo").arg(dir.path().join("fifo")).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no mkfifo on this machine");
        return;
    }
    let (code, stdout, stderr) = run(checksum(dir.path()).args(["--quiet", "."]));
    assert_eq!((code, stdout, &*stderr), (0, Vec::new(), ""));
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let dir = TempDir::new().unwrap();
    // More lines than a pipe holds: the program cannot finish before the reader is gone.
    for n in 0..2000 {
        fs::write(dir.path().join(n.to_string()), "").unwrap();
    }
    let mut child = checksum(dir.path()).args(["--max-capacity=1", "."]).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("  ./0\n"), "{line}");
    let output = finish(child);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("panic") && !stderr.contains("2000 files"), "{stderr}");
}

#[test]
fn help_is_given() {
    let (code, stdout, _) = run(checksum(Path::new("/")).arg("--help"));
    let help = String::from_utf8(stdout).unwrap();
    assert_eq!(code, 0);
    for option in
        ["--threads <N>", "--tasks <N>", "--max-capacity <N>", "--resize-every <MS>", "--quiet", "--svg <PATH>", "[PATH]..."]
    {
        assert!(help.contains(option), "{option} is not in {help}");
    }
}

#[test]
fn bad_options_are_refused_with_a_reason() {
    for (options, reason) in [
        (&["--threads=0", "--tasks=0"][..], "both 0"),
        (&["--threads=257"], "257 is not in 0..=256"),
        (&["--threads=many"], "invalid digit"),
        (&["--tasks=-1"], "--tasks"),
        (&["--max-capacity=0"], "max_capacity is 0"),
        (&["--max-capacity=268435456"], "above the limit"),
        (&["--max-capacity=18446744073709551616"], "too large"),
        (&["--resize-every=0"], "--resize-every"),
        (&["--colour"], "--colour"),
    ] {
        let (code, stdout, stderr) = run(checksum(Path::new("/")).args(options));
        assert_eq!((code, stdout), (2, Vec::new()), "{options:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(reason), "{options:?}: {stderr}");
    }
}
