//! The examples run, as they stand there to be copied.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::enum_glob_use
)]

#[cfg(target_os = "linux")]
#[path = "../examples/io_uring.rs"]
mod io_uring_example;
#[cfg(unix)]
#[path = "../examples/own_loop.rs"]
mod own_loop;

#[cfg(unix)]
#[test]
fn a_loop_of_ones_own_does_its_job_and_ends() {
    let answers: Vec<_> = own_loop::run().unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, ["hello, Ada", "hello, Grace", "hello, Edsger"]);
}

/// Small ones and one that takes more writes than one, as the kernel sees fit.
#[cfg(target_os = "linux")]
#[test]
fn a_loop_on_io_uring_does_its_job_and_ends() {
    // Not every kernel has it, and many a sandbox forbids it.
    match io_uring::IoUring::new(4) {
        Ok(ring) if ring.params().is_feature_ext_arg() => {}
        Ok(_) => return eprintln!("not run: io_uring is too old here"),
        Err(error) => return eprintln!("not run: there is no io_uring here: {error}"),
    }
    let names = ["Ada".to_owned(), "Grace ".repeat(100_000), "Edsger".to_owned()];
    let mut answers = io_uring_example::run(&names).unwrap();
    // The small ones overtake the large one.
    answers.sort_by_key(String::len);
    let mut expected = names.map(|name| format!("hello, {name}"));
    expected.sort_by_key(String::len);
    assert_eq!(answers.len(), expected.len());
    assert!(answers == expected, "{:?}", answers.iter().map(String::len).collect::<Vec<_>>());
}
