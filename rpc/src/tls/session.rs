//! The state machine of rustls, without octets of its own: what came is given in, what is to go out comes back.

use bytes::{Buf, BytesMut};
use rustls::{
    Error, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::CertificateDer,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use std::sync::Arc;

use super::config::Towards;

/// One end of a TLS connection.
pub(super) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What rustls can do while the line is open: encrypt. One for both ends.
pub(super) trait Seal {
    /// Appends records with all of `plain` to `out`.
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error>;

    /// Appends the farewell to `out`.
    fn farewell(&mut self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// Octets that encrypting adds: header, type and tag, for each record; a key update may stand before them.
const fn sealed_len(plain: usize) -> usize {
    plain + (plain / MOST_PLAIN + 1) * 22
}

/// Octets of plaintext in one record.
pub(super) const MOST_PLAIN: usize = 16 * 1024;

/// Makes room at the end of `out` for what `write` puts there; more if it says that it needs more.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    let before = out.len();
    out.resize(before + room, 0);
    let mut written = write(out.get_mut(before..).unwrap_or_default());
    if let Err(EncryptError::InsufficientSize(more)) = &written {
        out.resize(before + more.required_size, 0);
        written = write(out.get_mut(before..).unwrap_or_default());
    }
    match written {
        Ok(written) => {
            out.truncate(before + written);
            Ok(())
        }
        Err(error) => {
            out.truncate(before);
            Err(Error::General(error.to_string()))
        }
    }
}

impl<D> Seal for WriteTraffic<'_, D> {
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        append(out, sealed_len(plain.len()), |room| self.encrypt(plain, room))
    }

    fn farewell(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        append(out, 64, |room| self.queue_close_notify(room))
    }
}

/// What is done with what comes and with the chance to write.
pub(super) trait Use {
    /// Plaintext has arrived.
    fn arrived(&mut self, plain: &[u8]);

    /// Everything that arrived has been looked at, and the line is open: what is there to send?
    fn open(&mut self, seal: &mut dyn Seal, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// How far a step got.
enum Step {
    Again,
    PeerClosed,
    /// Nothing more can be done before something arrives or is to be sent.
    Rest,
}

/// How far a turn got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Open,
    /// The peer has said its farewell.
    PeerClosed,
}

fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    what: &mut dyn Use,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Ok(record)) => {
                    discard += record.discard;
                    what.arrived(record.payload);
                }
                Some(Err(error)) => break Err(error),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let encoded = append(out, 0, |room| match data.encode(room) {
                Ok(written) => Ok(written),
                Err(EncodeError::InsufficientSize(more)) => Err(EncryptError::InsufficientSize(more)),
                Err(EncodeError::AlreadyEncoded) => Ok(0),
            });
            encoded.map(|()| Step::Again)
        }
        // It waits in `out`, and goes before all else.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => what.open(&mut traffic, out).map(|()| Step::Rest),
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Step::Rest),
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // Data ahead of the handshake, which no configuration here allows.
        Ok(_) => Err(Error::General("data came ahead of the handshake".to_owned())),
    };
    (discard, step)
}

impl Session {
    pub(super) fn client(towards: &Towards) -> Result<Self, Error> {
        let config = Arc::clone(&towards.config);
        Ok(Self::Client(UnbufferedClientConnection::new(config, towards.name.clone())?))
    }

    pub(super) fn server(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::Server(UnbufferedServerConnection::new(Arc::clone(config))?))
    }

    pub(super) const fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(client) => client.is_handshaking(),
            Self::Server(server) => server.is_handshaking(),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Self::Client(client) => client.wants_write(),
            Self::Server(server) => server.wants_write(),
        }
    }

    /// What the peer has shown; the first is its own.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let certificates = match self {
            Self::Client(client) => client.peer_certificates(),
            Self::Server(server) => server.peer_certificates(),
        };
        Some(certificates?.first()?.clone().into_owned())
    }

    fn step(&mut self, came: &mut BytesMut, what: &mut dyn Use, out: &mut Vec<u8>) -> Result<Step, Error> {
        let (discard, step) = match self {
            Self::Client(client) => step(client.process_tls_records(came), what, out),
            Self::Server(server) => step(server.process_tls_records(came), what, out),
        };
        came.advance(discard.min(came.len()));
        step
    }

    /// Looks at everything in `came`, and leaves there what is not whole yet. What is to be sent is appended to `out`, in
    /// the case of an error too: it tells the peer.
    pub(super) fn turn(
        &mut self,
        came: &mut BytesMut,
        what: &mut dyn Use,
        out: &mut Vec<u8>,
    ) -> Result<Turn, Error> {
        let mut turn = Turn::Open;
        let error = loop {
            match self.step(came, what, out) {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => turn = Turn::PeerClosed,
                Ok(Step::Rest) => return Ok(turn),
                Err(error) => break error,
            }
        };
        // What the peer is to be told of it. As long as there is some nothing that came is looked at again.
        while self.wants_write() {
            if !matches!(self.step(came, what, out), Ok(Step::Again)) {
                break;
            }
        }
        Err(error)
    }
}
