//! Plaintext on its way in and out of the engine: where it goes that has arrived, and how what is to be written is cut into
//! records.

use bytes::{Buf, BytesMut};
use tieline_core::conn::Outbox;

use super::session::{MOST_PLAIN, Seal, Use};

/// Octets that are encrypted together: as many as the connection commits together while something small waits.
const PIECE: usize = Outbox::DEFAULT_MARK;
/// Chunks from this length on become records of their own; shorter ones are put together first. A record costs about what
/// copying so much does.
const ALONE: usize = 4 * 1024;

/// Where plaintext goes that has arrived: to the reader as long as it has room.
pub(super) struct Arriving<'a> {
    pub(super) into: &'a mut BytesMut,
    pub(super) left: &'a mut BytesMut,
}

impl Use for Arriving<'_> {
    fn arrived(&mut self, plain: &[u8]) {
        let room = if self.left.is_empty() { self.into.capacity() - self.into.len() } else { 0 };
        let (now, later) = plain.split_at(room.min(plain.len()));
        self.into.extend_from_slice(now);
        self.left.extend_from_slice(later);
    }

    fn open(&mut self, _seal: &mut dyn Seal, _out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// Encrypts the front of what is to be written.
pub(super) struct Sealing<'a> {
    pub(super) arriving: Arriving<'a>,
    pub(super) from: &'a Outbox,
    pub(super) sealed: usize,
}

impl Use for Sealing<'_> {
    fn arrived(&mut self, plain: &[u8]) {
        self.arriving.arrived(plain);
    }

    fn open(&mut self, seal: &mut dyn Seal, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let total = self.from.remaining().min(PIECE);
        let mut gathered = Vec::new();
        for chunk in self.from.chunks() {
            let chunk = chunk.get(..chunk.len().min(total - self.sealed)).unwrap_or_default();
            self.sealed += chunk.len();
            let last = self.sealed == total;
            if chunk.len() >= ALONE || (last && gathered.is_empty()) {
                if !gathered.is_empty() {
                    seal.seal(&std::mem::take(&mut gathered), out)?;
                }
                seal.seal(chunk, out)?;
            } else {
                gathered.extend_from_slice(chunk);
                if gathered.len() >= MOST_PLAIN - ALONE || last {
                    seal.seal(&std::mem::take(&mut gathered), out)?;
                }
            }
            if last {
                break;
            }
        }
        Ok(())
    }
}

/// Says farewell.
pub(super) struct Leaving<'a>(pub(super) Arriving<'a>);

impl Use for Leaving<'_> {
    fn arrived(&mut self, plain: &[u8]) {
        self.0.arrived(plain);
    }

    fn open(&mut self, seal: &mut dyn Seal, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        seal.farewell(out)
    }
}
