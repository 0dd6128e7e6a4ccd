//! The command `tieline-replay`: what it shows, and with what it ends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tieline_core::{
    Instant,
    conn::{Config, Connection, Side},
    record::Record,
};

/// A file that is gone when the test is over.
struct File(PathBuf);

impl File {
    fn new(name: &str, octets: &[u8]) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        std::fs::write(&path, octets).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server to which a stranger speaks HTTP.
fn recording() -> Vec<u8> {
    let config = Config::builder("node").record(Record::new()).build().unwrap();
    let now = Instant::from_nanos(1);
    let mut conn: Connection<()> = Connection::new(config, Side::Server, 7, now);
    conn.handle_input(now, b"GET / HTTP/1.1\r\n\r\n"[..].into());
    while conn.poll_event(now).is_some() {}
    conn.recording().unwrap().note("why", "a\x1b[31mtest").to_octets()
}

fn replay(arguments: &[&std::path::Path]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tieline-replay")).args(arguments).output().unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_recording_is_shown_in_words() {
    let file = File::new("good", &recording());
    let (code, out, err) = replay(&[&file.0]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in [
        "a recording of the server's side of a connection\n",
        "  why: a\\u{1b}[31mtest\n",
        " input: 18 octets\n",
        "       state: AwaitCheckIn -> Closing\n",
        "it is over, closed by this side: PROTOCOL_ERROR",
        "steps are the same in this build\n",
    ] {
        assert!(out.contains(line), "{line:?} is not shown:\n{out}");
    }
}

#[test]
fn what_is_no_recording_is_refused_in_one_line() {
    let mut octets = recording();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    let damaged = File::new("dam\x1baged", &octets);
    let cut = File::new("cut", &octets[..20]);
    let other = File::new("other", b"hello");
    for (file, why) in
        [(&damaged, "the check sum is another"), (&cut, "it ends in the middle"), (&other, "no recording")]
    {
        let (code, out, err) = replay(&[&file.0]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.starts_with("tieline-replay: ") && err.contains(why), "{err}");
        assert!(err.lines().count() == 1 && !err.contains('\x1b'), "{err}");
    }
    let (code, _, err) = replay(&["/no/such/file".as_ref()]);
    assert!(code == Some(2) && err.contains("cannot read /no/such/file: "), "{err}");
}

#[test]
fn without_one_file_it_says_how_it_is_used() {
    for arguments in [&[][..], &["a".as_ref(), "b".as_ref()]] {
        let (code, _, err) = replay(arguments);
        assert!(code == Some(2) && err.starts_with("usage: tieline-replay FILE"), "{err}");
    }
    let (code, out, _) = replay(&["--help".as_ref()]);
    assert!(code == Some(0) && out.starts_with("usage: "), "{out}");
}

/// Whoever reads its output may stop at any time.
#[test]
fn that_nobody_reads_to_the_end_is_no_failure() {
    let file = File::new("unread", &recording());
    let mut child = Command::new(env!("CARGO_BIN_EXE_tieline-replay"))
        .arg(&file.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}
