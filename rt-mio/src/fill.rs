//! Reading into memory that was never written: the only unsafe code of this crate, so that a read costs the octets that
//! come and not the room that there is for more.
#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit};

use bytes::BytesMut;

/// Lets `read` fill the free end of `into`, and returns how many octets it said that it wrote there. Never grows the
/// buffer.
pub(crate) fn fill(
    into: &mut BytesMut,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let before = into.len();
    let room = into.spare_capacity_mut();
    let most = room.len();
    // A reader that claims more than it had room for is held to it.
    let octets = read(room)?.min(most);
    // SAFETY: `before + octets` is within the capacity by the line above, and what lies below `before` was there
    // already. The octets behind it were written by `read`, which here is always recv(2): it writes the first so many
    // octets of what it is given, and returns their number.
    unsafe { into.set_len(before + octets) };
    Ok(octets)
}
