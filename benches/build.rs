//! Hands the compiler's version to the program, which prints it above its figures, and builds what it is compared with
//! where that is installed.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = said(&rustc, &["--version"]).unwrap_or_else(|| "an unknown rustc".to_owned());
    println!("cargo::rustc-env=BENCH_RUSTC={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=peers/zeromq.c");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    if let Some(path) = zeromq() {
        println!("cargo::rustc-env=BENCH_ZEROMQ={path}");
    }
}

/// Builds the echo by ZeroMQ, if the library and a C compiler are there. Where it is.
fn zeromq() -> Option<String> {
    let flags = said("pkg-config", &["--cflags", "--libs", "libzmq"])?;
    let path = Path::new(&env::var("OUT_DIR").ok()?).join("zeromq").to_str()?.to_owned();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut words = vec!["-O2", "-Wall", "-o", &path, "peers/zeromq.c"];
    words.extend(flags.split_whitespace());
    said(&compiler, &words)?;
    Some(path)
}

/// What a command writes, if it succeeds.
fn said(command: &str, words: &[&str]) -> Option<String> {
    let Output { status, stdout, .. } = Command::new(command).args(words).output().ok()?;
    if status.success() { String::from_utf8(stdout).ok() } else { None }
}
