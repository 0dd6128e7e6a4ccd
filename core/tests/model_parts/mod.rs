//! The parts of the model: one direction of a stream, and what either side may do with a call.

pub(crate) mod directions;
pub(crate) mod ours;
pub(crate) mod theirs;
