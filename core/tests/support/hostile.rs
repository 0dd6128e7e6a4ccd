//! Frames that are valid, mutated, repeated, inserted or random.
