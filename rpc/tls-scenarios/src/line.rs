//! A line between two honest ends that is not honest: it cuts, holds, changes and listens.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// From the client.
    Node,
    /// From the node.
    Client,
}

/// What a line does with what passes; shared by all connections over it.
#[derive(Debug, Default)]
struct Plan {
    ended: AtomicBool,
    /// Nothing passes any more.
    held: AtomicBool,
    /// The next octet to the client is another one.
    change: AtomicBool,
    /// After so many octets in this direction both ends see an end of the stream.
    cut: Option<(To, usize)>,
    to_node: Mutex<Vec<u8>>,
    to_client: Mutex<Vec<u8>>,
    passed: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Plan {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Carries octets in one direction, to the end of the stream.
    fn carry(&self, to: To, mut from: TcpStream, mut into: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        let mut passed = 0;
        if self.cut == Some((to, 0)) {
            return self.cut();
        }
        while let Ok(octets) = from.read(&mut buffer) {
            let Some(mut octets) = buffer.get_mut(..octets).filter(|octets| !octets.is_empty()) else {
                break;
            };
            if self.held.load(Ordering::SeqCst) {
                continue;
            }
            if let Some((_, most)) = self.cut.filter(|(cut, _)| *cut == to) {
                let left = octets.len().min(most - passed);
                octets = octets.split_at_mut(left).0;
            }
            if to == To::Client && self.change.swap(false, Ordering::SeqCst) {
                octets.last_mut().unwrap().wrapping_add_assign(1);
            }
            passed += octets.len();
            self.passed.fetch_add(octets.len(), Ordering::SeqCst);
            let seen = if to == To::Node { &self.to_node } else { &self.to_client };
            seen.lock().unwrap().extend_from_slice(octets);
            if into.write_all(octets).is_err() {
                break;
            }
            if self.cut == Some((to, passed)) {
                return self.cut();
            }
        }
        // An end does not pass either.
        if !self.held.load(Ordering::SeqCst) {
            let _ = into.shutdown(Shutdown::Write);
        }
    }
}

/// The other octet.
trait WrappingAddAssign {
    fn wrapping_add_assign(&mut self, other: Self);
}

impl WrappingAddAssign for u8 {
    fn wrapping_add_assign(&mut self, other: Self) {
        *self = self.wrapping_add(other);
    }
}

/// A line to a node, as often as somebody dials it.
#[derive(Debug)]
pub struct Line {
    address: String,
    plan: Arc<Plan>,
}

impl Line {
    /// A line to `node`, `HOST:PORT`.
    #[must_use]
    pub fn to(node: &str) -> Self {
        Self::with(node, Plan::default())
    }

    /// A line that is cut after so many octets in one direction. 0 is as soon as both ends are there.
    #[must_use]
    pub fn that_is_cut(node: &str, to: To, after: usize) -> Self {
        Self::with(node, Plan { cut: Some((to, after)), ..Plan::default() })
    }

    fn with(node: &str, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (plan, node) = (Arc::new(plan), node.to_owned());
        let line = Self { address, plan: Arc::clone(&plan) };
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if plan.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(node) = TcpStream::connect(&node) else { continue };
                for stream in [&client, &node] {
                    stream.set_nodelay(true).unwrap();
                    plan.open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                for (to, from, into) in [
                    (To::Node, client.try_clone().unwrap(), node.try_clone().unwrap()),
                    (To::Client, node, client),
                ] {
                    let plan = Arc::clone(&plan);
                    thread::spawn(move || plan.carry(to, from, into));
                }
            }
        });
        line
    }

    /// What to dial instead of the node.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends every connection over it in both directions, without a word.
    pub fn cut(&self) {
        self.plan.cut();
    }

    /// Lets nothing pass any more.
    pub fn hold(&self) {
        self.plan.held.store(true, Ordering::SeqCst);
    }

    /// Changes the next octets to the client.
    pub fn change(&self) {
        self.plan.change.store(true, Ordering::SeqCst);
    }

    /// What has passed in this direction.
    #[must_use]
    pub fn seen(&self, to: To) -> Vec<u8> {
        let seen = if to == To::Node { &self.plan.to_node } else { &self.plan.to_client };
        seen.lock().unwrap().clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.plan.ended.store(true, Ordering::SeqCst);
        self.cut();
        // The thread that accepts looks once more.
        let _ = TcpStream::connect(&self.address);
    }
}
