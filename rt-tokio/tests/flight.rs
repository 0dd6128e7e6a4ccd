//! Flight recorders over real sockets: what is written when a connection comes to grief, and what never is.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use support::{CHECK_IN, Raw, frame, hello, request, soon};
use tieline_tokio::{Client, Decision, FlightRecorder, Recording, Server, Status};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("flight-{name}-{}", std::process::id()));
        Self(path)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).map_or(0, Iterator::count)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Written = UnboundedReceiver<io::Result<PathBuf>>;

fn recorder(directory: &Directory) -> (FlightRecorder, Written) {
    let (told, written) = unbounded_channel();
    let recorder =
        FlightRecorder::to(&directory.0).notify(move |result| told.send(result).unwrap_or_default());
    (recorder, written)
}

async fn next(written: &mut Written) -> io::Result<PathBuf> {
    soon("a recording", written.recv()).await.unwrap()
}

/// What a file shows: all of it, the same in this build.
fn shown(path: &Path) -> String {
    let recording = Recording::parse(&std::fs::read(path).unwrap()).unwrap();
    let mut told = String::new();
    let verdict = recording.replay(&mut told).unwrap();
    assert!(verdict.is_same(), "{told}");
    told
}

fn describe(recorder: FlightRecorder) -> tieline_tokio::ServerBuilder<tieline_tokio::Tokio> {
    Server::builder("node-2")
        .flight_recorder(recorder)
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Panic", |_cx, body| async move {
            if body.is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(body.len() > 100, "the handler\x07 panics");
            Ok(body)
        })
}

#[tokio::test]
async fn a_mistake_of_the_protocol_is_written_by_the_side_that_finds_it_and_the_one_that_is_told() {
    let directory = Directory::new("mistake");
    let (recorder, mut written) = recorder(&directory);
    let server = describe(recorder).listen("127.0.0.1:0").await.unwrap();
    let mut raw = Raw::check_in(server.address(), "stranger:7/x", Duration::from_secs(5)).await;
    raw.send(&request(5, 1, "t.T/Echo", b"hello")).await;
    // The same id again.
    raw.send(&request(5, 1, "t.T/Echo", b"hello")).await;
    let path = next(&mut written).await.unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.ends_with("-stranger%3A7%2Fx.tlrec") && name.contains('T'), "{name}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let told = shown(&path);
    for line in [
        "why: closed by this side: PROTOCOL_ERROR",
        "peer: stranger:7/x",
        "address: 127.0.0.1:",
        "-> REQUEST id 1 of t.T/Echo, 5 octets \"hello\"",
        "<- RESPONSE id 1, 5 octets",
        "state: Ready -> Closing",
    ] {
        assert!(told.contains(line), "{line} is not shown:\n{told}");
    }

    // The other way: a server that accuses its client.
    let told = Directory::new("accused");
    let (recorder, mut written) = self::recorder(&told);
    let (listener, address) = support::listener().await;
    let client = Client::builder("node-1").flight_recorder(recorder).connect_lazily(&address).unwrap();
    let mut raw = Raw::welcome(&listener, Duration::from_secs(5)).await;
    raw.send(&frame(support::CLOSE, Status::PROTOCOL_ERROR.0, 0, b"")).await;
    let path = next(&mut written).await.unwrap();
    assert!(shown(&path).contains("why: closed by the peer: PROTOCOL_ERROR"));
    drop(client);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_handler_that_panics_is_written_wherever_it_does() {
    let directory = Directory::new("panic");
    let (recorder, mut written) = recorder(&directory);
    let server = describe(recorder).listen("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    // In the driver's turn, and in a task of its own.
    for body in ["x", ""] {
        let error = client.call("t.T/Panic", body).await.unwrap_err();
        assert_eq!(error.status(), Status::HANDLER_PANIC);
        let told = shown(&next(&mut written).await.unwrap());
        assert!(told.contains("why: a handler panicked: the handler\\u{7} panics"), "{told}");
        assert!(told.contains("event: a call, call 0."), "{told}");
    }
    // The connection is none the worse for it.
    support::works(&client).await;
    client.close().await;
    server.shutdown(Duration::ZERO).await;
    assert_eq!(directory.files(), 2, "an end in peace is not written");
}

#[tokio::test]
async fn a_recording_can_be_asked_for_and_holds_no_credential() {
    let directory = Directory::new("asked");
    let (recorder, _written) = recorder(&directory);
    let verify = |_| async { Decision::Accept };
    let server = describe(recorder.clone()).verify(verify).listen("127.0.0.1:0").await.unwrap();
    let builder = Client::builder("node-1").flight_recorder(recorder).credential(b"open sesame");
    let client = builder.connect(server.address()).await.unwrap();
    support::works(&client).await;
    std::fs::create_dir_all(&directory.0).unwrap();
    let path = directory.0.join("asked.tlrec");
    for _ in 0..2 {
        client.write_recording(&path).unwrap();
    }
    let peer = support::only_peer(&server).await;
    let other = directory.0.join("server.tlrec");
    peer.write_recording(&other).unwrap();
    for path in [&path, &other] {
        let told = shown(path);
        assert!(told.contains("why: it was asked for"), "{told}");
        assert!(told.contains("a credential of 11 octets, which is not recorded"), "{told}");
        let octets = std::fs::read(path).unwrap();
        assert!(!octets.windows(4).any(|four| four == b"open" || four == b"same"));
    }
    assert!(peer.record().is_some_and(|recording| recording.is_complete()));
    client.clone().close().await;
    assert_eq!(client.write_recording(&path).unwrap_err().kind(), io::ErrorKind::NotConnected);
    server.shutdown(Duration::ZERO).await;

    let server = support::echo("127.0.0.1:0").await;
    let client = Client::connect(server.address()).await.unwrap();
    assert!(client.peer().unwrap().record().is_none());
    assert_eq!(client.write_recording(&path).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// Strangers at the port get a quarter of the files, and all together no more than was said.
#[tokio::test]
async fn no_more_files_are_written_than_may_be() {
    let directory = Directory::new("files");
    let (recorder, mut written) = recorder(&directory);
    let server = describe(recorder.files(4)).listen("127.0.0.1:0").await.unwrap();
    for number in 0..3 {
        let mut raw = Raw::connect(server.address()).await;
        raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
        let result = next(&mut written).await;
        assert_eq!(result.is_ok(), number == 0, "{result:?}");
    }
    for number in 0..5 {
        let mut raw = Raw::check_in(server.address(), "known", Duration::from_secs(5)).await;
        raw.send(&hello(CHECK_IN, "again", Duration::from_secs(5))).await;
        let result = next(&mut written).await;
        assert_eq!(result.is_ok(), number < 3, "{result:?}");
        if let Err(error) = result {
            assert!(error.to_string().contains("4 recordings are in "), "{error}");
        }
    }
    assert_eq!(directory.files(), 4);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_harms_no_connection() {
    let directory = Directory::new("disk");
    std::fs::write(&directory.0, b"a file where the directory should be").unwrap();
    let (recorder, mut written) = recorder(&directory);
    let server = describe(recorder).listen("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    assert_eq!(client.call("t.T/Panic", "x").await.unwrap_err().status(), Status::HANDLER_PANIC);
    assert!(next(&mut written).await.is_err());
    support::works(&client).await;
    client.close().await;
    server.shutdown(Duration::ZERO).await;
    std::fs::remove_file(&directory.0).unwrap();
}
