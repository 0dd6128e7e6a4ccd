//! Two ends of TLS over a pipe that takes and gives as it likes: what is sent arrives, what is said to be written is, and
//! nothing waits where it should not.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tieline_core::conn::Outbox;

use super::{Authorities, ClientTls, Identity, ServerTls, TlsConfigError, stream::Tls};
use crate::runtime::Io;

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % most
    }
}

/// One direction.
#[derive(Default)]
struct Pipe {
    octets: VecDeque<u8>,
    /// Nothing more is written.
    shut: bool,
    /// Both ends are gone: what has not been read is lost.
    cut: bool,
}

/// One end of two pipes.
struct End {
    from: Arc<Mutex<Pipe>>,
    into: Arc<Mutex<Pipe>>,
    random: Random,
    room: usize,
}

impl Io for End {
    fn poll_read(&mut self, _cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut pipe = self.from.lock().unwrap();
        if pipe.cut {
            return Poll::Ready(Ok(0));
        }
        if pipe.octets.is_empty() {
            return if pipe.shut { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let most = pipe.octets.len().min(into.capacity() - into.len());
        let octets = 1 + self.random.below(most);
        into.extend(pipe.octets.drain(..octets));
        Poll::Ready(Ok(octets))
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        let mut pipe = self.into.lock().unwrap();
        if pipe.cut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.room - pipe.octets.len();
        if room == 0 || self.random.below(4) == 0 {
            return Poll::Pending;
        }
        let octets = 1 + self.random.below(room.min(out.remaining()));
        pipe.octets.extend(out.copy_to_bytes(octets));
        Poll::Ready(Ok(octets))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.into.lock().unwrap().shut = true;
        Poll::Ready(Ok(()))
    }
}

/// A certificate for `node-2` whose issuer is trusted.
fn configs() -> (Authorities, Identity) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["node-2".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (
        Authorities::from_pem(authority.pem()).unwrap(),
        Identity::from_pem(certificate.pem(), key.serialize_pem()).unwrap(),
    )
}

/// One end, what it sends, and what it has heard.
struct Side {
    tls: Tls<End>,
    out: Outbox,
    sent: Vec<u8>,
    heard: Vec<u8>,
    end: Option<io::Result<()>>,
}

impl Side {
    fn new(tls: Tls<End>) -> Self {
        Self { tls, out: Outbox::new(), sent: Vec::new(), heard: Vec::new(), end: None }
    }

    fn say(&mut self, random: &mut Random) {
        let octets = match random.below(3) {
            0 => random.below(50),
            1 => random.below(5_000),
            _ => random.below(70_000),
        };
        let octets: Vec<u8> =
            (0..octets).map(|_| random.0.wrapping_add(random.below(256) as u64).to_le_bytes()[0]).collect();
        self.sent.extend_from_slice(&octets);
        self.out.push(Bytes::from(octets));
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        let before = self.out.remaining();
        if before == 0 {
            return;
        }
        match self.tls.poll_write(cx, &mut self.out) {
            Poll::Pending => assert_eq!(self.out.remaining(), before),
            Poll::Ready(Ok(octets)) => {
                assert!(octets > 0);
                assert_eq!(self.out.remaining(), before - octets);
            }
            Poll::Ready(Err(_)) => {}
        }
        assert!(self.tls.waiting() <= 66 * 1024, "{}", self.tls.waiting());
        assert!(self.out.has_remaining() || self.tls.waiting() == 0, "what counts as written is");
    }

    fn read(&mut self, cx: &mut Context<'_>, random: &mut Random) {
        let most = 1 + random.below(40_000);
        let mut into = BytesMut::with_capacity(most);
        let room = into.capacity();
        match self.tls.poll_read(cx, &mut into) {
            Poll::Pending => assert!(into.is_empty()),
            Poll::Ready(Ok(0)) => self.end = Some(Ok(())),
            Poll::Ready(Ok(octets)) => {
                assert_eq!((into.len(), into.capacity()), (octets, room), "the buffer does not grow");
                assert!(self.end.is_none(), "nothing comes after the end");
                self.heard.extend_from_slice(&into);
            }
            Poll::Ready(Err(error)) => {
                assert!(into.is_empty());
                self.end = Some(Err(error));
            }
        }
    }
}

struct World {
    sides: [Side; 2],
    pipes: [Arc<Mutex<Pipe>>; 2],
    random: Random,
}

impl World {
    fn new(seed: u64) -> Self {
        let (authorities, identity) = configs();
        let mut random = Random(seed + 1);
        let room = if seed.is_multiple_of(2) { 1 + random.below(400) } else { 1 + random.below(200_000) };
        let pipes = [Arc::new(Mutex::new(Pipe::default())), Arc::new(Mutex::new(Pipe::default()))];
        let end = |from: usize, into: usize| End {
            from: Arc::clone(&pipes[from]),
            into: Arc::clone(&pipes[into]),
            random: Random(seed + 3),
            room,
        };
        let towards = ClientTls::new(&authorities).server_name("node-2").towards("").unwrap();
        let client = Tls::client(end(0, 1), &towards).unwrap().0;
        let server = Tls::server(end(1, 0), &ServerTls::new(&identity).ready()).unwrap().0;
        Self { sides: [Side::new(client), Side::new(server)], pipes, random }
    }

    fn step(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let side = &mut self.sides[self.random.below(2)];
        if self.random.below(2) == 0 {
            side.write(&mut cx);
        } else {
            side.read(&mut cx, &mut self.random);
        }
    }

    fn run(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..2_000_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: it does not come about");
    }

    /// The server speaks before the handshake only to close.
    fn open(&mut self) {
        self.run("the handshake", |world| world.sides.iter().all(|side| side.tls.is_open()));
    }
}

#[test]
fn what_is_sent_arrives_in_order_and_has_an_end() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        if seed % 3 == 0 {
            // A client may have something to say from the beginning.
            world.sides[0].say(&mut world.random);
        }
        world.open();
        for _ in 0..8 {
            for side in 0..2 {
                world.sides[side].say(&mut world.random);
            }
            for _ in 0..world.random.below(40) {
                world.step();
            }
        }
        let arrived = |world: &World| {
            let [a, b] = &world.sides;
            a.heard.len() == b.sent.len() && b.heard.len() == a.sent.len()
        };
        world.run("everything", arrived);
        let [a, b] = &mut world.sides;
        assert!(a.heard == b.sent && b.heard == a.sent, "seed {seed}");
        assert!(a.end.is_none() && b.end.is_none(), "seed {seed}");
        let mut cx = Context::from_waker(Waker::noop());
        while world.sides[0].tls.poll_shutdown(&mut cx).is_pending() {
            let (side, random) = (&mut world.sides[1], &mut world.random);
            side.read(&mut cx, random);
        }
        world.run("the end", |world| world.sides[1].end.is_some());
        assert!(world.sides[1].end.as_ref().unwrap().is_ok(), "seed {seed}");
        // The other direction is still there.
        world.sides[1].say(&mut world.random);
        world.run("the last words", arrived);
    }
}

#[test]
fn a_line_that_is_cut_is_no_end() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.open();
        for side in 0..2 {
            world.sides[side].say(&mut world.random);
        }
        for _ in 0..world.random.below(60) {
            world.step();
        }
        for pipe in &world.pipes {
            pipe.lock().unwrap().cut = true;
        }
        world.run("the end", |world| world.sides.iter().all(|side| side.end.is_some()));
        let [a, b] = &world.sides;
        for (side, other) in [(a, b), (b, a)] {
            let error = side.end.as_ref().unwrap().as_ref().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "seed {seed}: {error}");
            assert!(other.sent.starts_with(&side.heard), "seed {seed}");
        }
    }
}

#[test]
fn what_is_wrong_with_pem_is_said() {
    let key = |params: &CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let params = CertificateParams::new(["a".to_owned()]).unwrap();
    let ((certificate, its_key), (_, other)) = (key(&params), key(&params));
    let identity = |certificate: &str, key: &str| Identity::from_pem(certificate, key).map(drop).unwrap_err();
    assert_eq!(identity("", &its_key), TlsConfigError::NoCertificate);
    assert_eq!(identity(&its_key, &its_key), TlsConfigError::NoCertificate);
    assert_eq!(identity(&certificate, &certificate), TlsConfigError::NoKey);
    assert_eq!(identity(&certificate, &other), TlsConfigError::Mismatch);
    let broken = certificate.replacen("\nMII", "\n!!!", 1);
    assert!(matches!(identity(&broken, &its_key), TlsConfigError::Pem(_)));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(identity(nonsense, &its_key), TlsConfigError::Pem(_)));
    assert!(matches!(Authorities::from_pem(nonsense).map(drop), Err(TlsConfigError::Pem(_))));
    assert_eq!(Authorities::from_pem("").map(drop).unwrap_err(), TlsConfigError::NoCertificate);
    let shown = format!("{:?}", Identity::from_pem(&certificate, &its_key).unwrap());
    assert!(!shown.contains("PRIVATE") && shown.contains("certificates: 1"), "{shown}");
}
