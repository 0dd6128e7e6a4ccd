//! Processes under test: started, talked to by lines, waited for with a bound, and never left behind.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take. Nothing comes near it unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Process {
    pub what: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(usize, String)>,
    /// What came on the standard output and on the standard error and was not looked for yet. The order between the two
    /// is by chance.
    waiting: [VecDeque<String>; 2],
    pub seen: Vec<String>,
}

fn pump(stream: usize, from: impl Read + Send + 'static, to: Sender<(usize, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send((stream, line)).is_err() {
                return;
            }
        }
    });
}

impl Process {
    /// Starts `tieline-im` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tieline-im"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        pump(0, child.stdout.take().unwrap(), sender.clone());
        pump(1, child.stderr.take().unwrap(), sender);
        let input = child.stdin.take();
        Self { what: args.join(" "), child, input, lines, waiting: Default::default(), seen: Vec::new() }
    }

    /// A node that listens, and its address.
    pub fn node(id: &str, more: &[&str]) -> (Self, String) {
        let mut process = Self::start(&[&["node", "--id", id], more].concat());
        let line = process.expect("listening ");
        let address = line.strip_prefix("listening ").unwrap().to_owned();
        (process, address)
    }

    /// A user who is logged in.
    pub fn chat(user: &str, node: &str, more: &[&str]) -> Self {
        let mut process = Self::start(&[&["chat", "--as", user, "--node", node], more].concat());
        process.expect(&format!("{user} is at "));
        process
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The end of the input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// The next line with this in it; lines before it in its stream are passed over.
    pub fn expect(&mut self, part: &str) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            for waiting in &mut self.waiting {
                if let Some(at) = waiting.iter().position(|line| line.contains(part)) {
                    return waiting.drain(..=at).next_back().unwrap();
                }
            }
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok((stream, line)) => {
                    self.seen.push(line.clone());
                    self.waiting[stream].push_back(line);
                }
                Err(error) => panic!("{}: {error:?}, no {part:?} among {:#?}", self.what, self.seen),
            }
        }
    }

    /// Waits for the end: the exit code, if it was not a signal, and all lines.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let limit = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok((_, line)) => self.seen.push(line),
                // Its output is closed: it has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{}: it does not end: {:#?}", self.what, self.seen),
            }
        }
        let code = self.child.wait().unwrap().code();
        (code, std::mem::take(&mut self.seen))
    }

    /// Runs it to its end, without input.
    pub fn run(args: &[&str]) -> (Option<i32>, Vec<String>) {
        let mut process = Self::start(args);
        process.hang_up();
        process.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(done.success(), "kill -{name} {pid}");
}

/// One error in one line, with these parts in it, and a failed exit.
pub fn assert_one_error((code, lines): &(Option<i32>, Vec<String>), expected: i32, parts: &[&str]) {
    assert_eq!(*code, Some(expected), "{lines:#?}");
    let [line] = &lines[..] else { panic!("not one line: {lines:#?}") };
    assert!(line.starts_with("error: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
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
