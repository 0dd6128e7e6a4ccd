//! Nodes and users as processes, and servers that are no nodes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::missing_panics_doc)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use tieline_commands::process::{Ended, Process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tieline-im");

/// Starts `tieline-im` with these arguments.
pub fn start(args: &[&str]) -> Process {
    Process::start(PROGRAM, args)
}

/// Runs it to its end, without input.
pub fn run(args: &[&str]) -> Ended {
    Process::run(PROGRAM, args)
}

/// A node that listens, and its address.
pub fn node(id: &str, more: &[&str]) -> (Process, String) {
    let mut process = start(&[&["node", "--id", id], more].concat());
    let line = process.expect("listening ");
    let address = line.strip_prefix("listening ").unwrap().to_owned();
    (process, address)
}

/// A user who is logged in.
pub fn chat(user: &str, node: &str, more: &[&str]) -> Process {
    let mut process = start(&[&["chat", "--as", user, "--node", node], more].concat());
    process.expect(&format!("{user} is at "));
    process
}

/// A server that is no node: each connection goes to `serve`, in a thread of its own.
pub fn impostor(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads until the other side closes.
pub fn drain(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Answers whatever comes as a web server would.
pub fn web_server() -> String {
    impostor(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        drain(stream);
    })
}

/// Accepts and says nothing.
pub fn silent_server() -> String {
    impostor(drain)
}

/// Answers the check-in as a node of version 2 does.
pub fn version_2_server() -> String {
    impostor(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let mut ack = vec![0xbe, 0xa7, 2, 2, 0, 0x82];
        ack.extend_from_slice(&[0; 12]);
        let _ = stream.write_all(&ack);
        drain(stream);
    })
}

/// An address at which nobody listens.
pub fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
