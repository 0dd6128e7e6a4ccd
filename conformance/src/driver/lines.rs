//! Standard input and output, line by line, for futures of any runtime: each has a thread of its own that may block.

use std::{
    io::{self, BufRead, Write},
    thread,
};

use tokio::sync::{mpsc, oneshot};

/// The longest line that is read, its end not counted: a payload of 12 MiB as base64.
pub(super) const MAX_LINE: usize = 16 << 20;
/// Lines that were read and not looked at yet.
const READ_AHEAD: usize = 16;
/// Lines that wait to be written. Commands whose answer finds no room wait.
const WRITE_BEHIND: usize = 1024;

/// A line that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than [`MAX_LINE`], and passed over.
    TooLong,
}

/// Reads the next line. `None`: the input has ended.
fn read(from: &mut impl BufRead, most: usize) -> io::Result<Option<Line>> {
    let (mut line, mut octets) = (Vec::new(), 0);
    loop {
        let piece = match from.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = piece.iter().position(|octet| *octet == b'\n');
        let taken = end.unwrap_or(piece.len());
        octets += taken;
        if octets <= most {
            line.extend_from_slice(piece.get(..taken).unwrap_or_default());
        } else {
            line = Vec::new();
        }
        let ended = piece.is_empty();
        from.consume(taken + usize::from(end.is_some()));
        match (end.is_some() || ended, octets) {
            (false, _) => {}
            (true, 0) if ended => return Ok(None),
            (true, _) if octets > most => return Ok(Some(Line::TooLong)),
            (true, _) => return Ok(Some(Line::Whole(line))),
        }
    }
}

/// The lines of the standard input. The channel closes at its end; an input that cannot be read is at its end.
pub(super) fn input() -> io::Result<mpsc::Receiver<Line>> {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(line)) = read(&mut input, MAX_LINE) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}

/// Writes lines to the standard output. What is returned besides tells when the last one is out, which is after all
/// senders are gone, or that nobody reads them any more.
pub(super) fn output() -> io::Result<(mpsc::Sender<String>, oneshot::Receiver<()>)> {
    let (sender, mut lines) = mpsc::channel::<String>(WRITE_BEHIND);
    let (done, written) = oneshot::channel();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut out = io::stdout().lock();
        while let Some(line) = lines.blocking_recv() {
            if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
        drop(lines);
        let _ = done.send(());
    })?;
    Ok((sender, written))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all(text: &str, buffer: usize) -> Vec<Option<Line>> {
        let mut input = io::BufReader::with_capacity(buffer, text.as_bytes());
        (0..5).map(|_| read(&mut input, 4).unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_held_to_a_length() {
        let whole = |text: &str| Some(Line::Whole(text.as_bytes().to_vec()));
        for buffer in [1, 3, 64] {
            let lines = [whole("ab"), whole(""), whole("cdef"), Some(Line::TooLong), whole("k")];
            assert_eq!(all("ab\n\ncdef\ncdefg\nk", buffer), lines);
            assert_eq!(all("cdefghijk", buffer)[..2], [Some(Line::TooLong), None]);
            assert_eq!(all("", buffer)[0], None);
        }
    }
}
