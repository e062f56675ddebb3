//! A dataset: token ids on disk, memory-mapped, with document boundaries.
//!
//! ```text
//! tinyshakespeare/
//!   index.json              format version, dtype, vocabulary, checksums, totals
//!   shard_00000.bin         token ids, little-endian u16 or u32, nothing else (as numpy.memmap)
//!   shard_00000.documents   one little-endian u64 per document that ends in this shard: its end,
//!                           in tokens from the start of the shard
//!   shard_00001.bin         …
//! ```
//!
//! All shards but the last hold the same number of tokens; a document may go on in the next shard.

mod index;
mod map;
mod resume;
mod writer;
mod dataset;
#[cfg(test)]
pub(crate) mod tests;

pub use dataset::Dataset;
pub use index::Dtype;
pub use resume::Resumed;
pub use writer::{ShardWriter, WriterOptions};

/// The version of the layout above.
pub const FORMAT_VERSION: u64 = 1;

/// The name of the index within a dataset's folder.
pub const INDEX_FILE: &str = "index.json";

/// xxh3-64 of `bytes` as 16 hexadecimal digits, the form of every checksum in an index.
pub fn checksum(bytes: &[u8]) -> String {
    checksum_hex(xxhash_rust::xxh3::xxh3_64(bytes))
}

fn checksum_hex(hash: u64) -> String {
    format!("{hash:016x}")
}

fn tokens_file(shard_idx: usize) -> String {
    format!("shard_{shard_idx:05}.bin")
}

fn documents_file(shard_idx: usize) -> String {
    format!("shard_{shard_idx:05}.documents")
}
