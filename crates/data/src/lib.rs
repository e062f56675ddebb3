//! Documents in, shuffled batches of tokens out.
