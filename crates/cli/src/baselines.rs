//! What a language model has to beat: simpler predictors and compressors, in bits per byte of a text.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use data::document::{ReadOptions, read_documents};
use flate2::Compression;
use flate2::write::GzEncoder;
use liblzma::write::XzEncoder;
use serde::{Deserialize, Serialize};

/// How well something predicts, or compresses, a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Compressed {
    /// What it is.
    pub(crate) name: String,
    /// Bits per byte of the text; lower is better.
    pub(crate) bits_per_byte: f64,
    /// Whether it is the trained model.
    pub(crate) is_this_run: bool,
}

/// The baselines of a held-out `text`: compressors that see it alone, and a bigram model of the bytes of `training`.
pub(crate) fn all(training: &[PathBuf], text: &[u8]) -> Result<Vec<Compressed>> {
    let bits = |n_bytes: usize| 8.0 * n_bytes as f64 / text.len() as f64;
    let baseline = |name: &str, bits_per_byte| Compressed { name: name.to_owned(), bits_per_byte, is_this_run: false };
    Ok(vec![
        baseline("byte bigram of the training text", Bigram::train(training)?.bits_per_byte(text)),
        baseline("gzip -9 (deflate level 9)", bits(gzip(text)?.len())),
        baseline("xz -9e", bits(xz(text)?.len())),
    ])
}

fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

/// What `xz -9e` makes of a text.
fn xz(text: &[u8]) -> Result<Vec<u8>> {
    /// LZMA_PRESET_EXTREME: the `e` of `-9e`.
    const EXTREME: u32 = 1 << 31;
    let mut encoder = XzEncoder::new(Vec::new(), 9 | EXTREME);
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

/// Counts of byte pairs.
struct Bigram {
    /// `[previous][next]`
    counts: Vec<[u64; 256]>,
}

impl Bigram {
    fn train(paths: &[PathBuf]) -> Result<Self> {
        let mut bigram = Bigram { counts: vec![[0; 256]; 256] };
        for document in read_documents(paths, ReadOptions::default())? {
            bigram.count(&document?.text);
        }
        Ok(bigram)
    }

    fn count(&mut self, text: &[u8]) {
        for pair in text.windows(2) {
            self.counts[usize::from(pair[0])][usize::from(pair[1])] += 1;
        }
    }

    /// Cross-entropy of a text, with one added to every count (Laplace) so that no byte is impossible. The first byte
    /// costs 8 bits.
    fn bits_per_byte(&self, text: &[u8]) -> f64 {
        let totals: Vec<u64> = self.counts.iter().map(|row| row.iter().sum()).collect();
        let pairs = text.windows(2).map(|pair| (usize::from(pair[0]), usize::from(pair[1])));
        let bits = pairs.map(|(previous, next)| {
            let p = (self.counts[previous][next] + 1) as f64 / (totals[previous] + 256) as f64;
            -p.log2()
        });
        (8.0 + bits.sum::<f64>()) / text.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bigram_model_of_nothing_needs_eight_bits_per_byte() {
        let bigram = Bigram { counts: vec![[0; 256]; 256] };
        assert!((bigram.bits_per_byte(b"any text") - 8.0).abs() < 1e-12);
    }

    #[test]
    fn bits_per_byte_are_those_worked_out_by_hand() {
        let mut bigram = Bigram { counts: vec![[0; 256]; 256] };
        bigram.count(b"abab");
        // a → b twice of two, b → a once of one; with 1 added to each of 256 counts.
        let expected = (8.0 - (3.0f64 / 258.0).log2() - (2.0f64 / 257.0).log2()) / 3.0;
        assert!((bigram.bits_per_byte(b"aba") - expected).abs() < 1e-12);
    }

    /// `xz -9e` of XZ Utils 5.4.1 makes 104 bytes of this.
    #[test]
    fn an_xz_stream_is_as_long_as_that_of_the_program() {
        let packed = xz(&b"again ".repeat(1000)).unwrap();
        assert_eq!(packed[..6], *b"\xfd7zXZ\0");
        assert_eq!(packed.len(), 104);
    }

    #[test]
    fn a_gzip_stream_has_its_header_and_is_short_for_a_text_that_repeats() {
        let packed = gzip(&b"again ".repeat(1000)).unwrap();
        assert_eq!(packed[..2], [0x1f, 0x8b]);
        assert!(packed.len() < 100);
    }
}
