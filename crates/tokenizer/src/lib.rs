//! Text to tokens and back: train, encode and decode byte-level BPE.
