//! The bytes of Tieline, version 1: frames, headers, envelopes and status numbers, each as a
//! checked view and a total `parse` / `emit` pair.
//!
//! Nothing here knows a connection, a side or a state. What can be decided from the octets of
//! one frame is decided here; what depends on the frames before it is decided in
//! [`conn`](crate::conn). Every parser is total: it answers each of the 2ⁿ possible inputs with a
//! value or with a fault that names the octet, and it neither panics nor allocates.
//!
//! | to | use |
//! |---|---|
//! | read frames from a stream, fast | [`Header::check_prefix`], [`Header::parse`], [`Header::validate`], [`Parts::split`], then the envelope's own `parse` |
//! | read one whole frame, in a tool or a test | [`Frame::parse`] |
//! | write | the envelope's `encoded_len` and `emit`, [`Header::emit`], or [`Frame::emit`] |
//! | show what a peer sent | [`Escaped`] |
//!
//! Senders are canonical, readers are as lenient as the protobuf specification (protocol §1),
//! so a parsed envelope emits the same octets only if its sender was canonical too.
//!
//! ```
//! use tieline_core::wire::{Envelope, Flags, Frame, FrameType, Header, Request, Status};
//!
//! let frame = Frame {
//!     header: Header {
//!         frame_type: FrameType::REQUEST,
//!         flags: Flags::NONE,
//!         status: Status::OK,
//!         id: 1,
//!         len: 0, // computed by `emit`
//!     },
//!     envelope: Envelope::Request(Request { method: 7, ..Request::default() }),
//!     payload: b"hello",
//! };
//! let mut octets = Vec::new();
//! frame.emit(&mut octets)?;
//!
//! let (read, used) = Frame::parse(&octets, 65_536)?.expect("the frame is whole");
//! assert_eq!(used, octets.len());
//! assert_eq!(read.payload, b"hello");
//! assert_eq!(Frame::parse(&octets[..20], 65_536)?, None); // more octets are needed
//! # Ok::<(), tieline_core::wire::Fault>(())
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod body;
mod call;
mod check_in;
mod control;
mod escape;
mod fault;
mod fnv;
mod frame;
mod frame_type;
mod header;
mod identifier;
mod proto;
mod repeated;
mod request;
mod response;
pub mod snappy;
mod status;
mod stream;
mod table;
pub mod varint;

pub use body::Parts;
pub use call::{Kind, Metadata};
pub use check_in::{CheckIn, CheckInAck, Label};
pub use control::{Close, Drain};
pub use escape::Escaped;
pub use fault::{EnvelopeError, Fault, Malformed, What};
pub use fnv::fnv1a_64;
pub use frame::{Envelope, Frame};
pub use frame_type::{Flags, FrameType};
pub use header::{HEADER_LEN, Header, MAGIC, MAX_EXTENSION, VERSION};
pub use identifier::{is_identifier, is_metadata_key};
pub use repeated::{Element, Iter, Repeated};
pub use request::Request;
pub use response::Response;
pub use status::{Class, Ran, Retry, Status};
pub use stream::{Credit, Item};
pub use table::{Method, Table};
