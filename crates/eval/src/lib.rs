//! Bits per byte of any text, and sampling.
