//! Learning a BPE vocabulary: count pre-tokens, then merge the most frequent pair again and again.
//!
//! Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>, algorithm 1. Of equally frequent pairs the greatest is
//! merged: by the bytes of its left token, then of its right. The result depends on the multiset of pre-tokens alone, so
//! not on threads, memory, interruptions, nor on the order of documents. Counts have 64 bits.
//!
//! Ids: special tokens first, in the order given; then the 256 bytes in the order of their printable characters (see
//! `alphabet.rs`; `!` first); then the merged tokens as they are learned.
//!
//! Counting keeps within a memory that the caller sets, with a folder for what does not fit. Merging needs all distinct
//! pre-tokens; what they will take is known and told before, and a minimum count makes it less.

mod table;
mod spill;
mod work;
mod count;
mod text;
mod queue;
mod merge;
mod checkpoint;
mod config;
mod need;
mod split;
mod wordpiece;
mod unigram;
#[cfg(test)]
mod tests;

pub use config::{BpeConfig, pattern_of};
pub use need::Need;
pub use unigram::{UnigramConfig, train_unigram};
pub use wordpiece::{WordPieceConfig, train_wordpiece};
pub use work::{Checkpoint, WorkFolder};

use crate::alphabet::BYTES_IN_ORDER;
use crate::encode::Bpe;
use crate::special::SpecialTokens;
use crate::vocab::{check_no_byte, cutter};
use crate::{Error, TokenId, Tokenizer};
use count::{Counter, Counts, MIN_MEMORY, Splitter};
use merge::Merger;
use need::Histogram;
use text::Text;
use work::Work;

/// Report progress after this many merges.
const REPORT_MERGES: usize = 64;

/// How far training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Counting pre-tokens; how many there will be, only the caller may know.
    Counting {
        /// Bytes of text counted, special tokens included.
        n_bytes: u64,
    },
    /// All pre-tokens are counted.
    Counted(Need),
    /// Learning merges.
    Merging {
        /// Tokens learned.
        n_done: usize,
        /// Tokens to learn.
        n_total: usize,
    },
    /// Removing pieces of a unigram vocabulary.
    Pruning {
        /// Pieces removed.
        n_done: usize,
        /// Pieces to remove.
        n_total: usize,
    },
}

/// A stretch of the training text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPart {
    /// Bytes that follow those of the part before.
    pub text: Vec<u8>,
    /// Whether a document ends here, which no pre-token crosses.
    pub ends_document: bool,
}

/// What training may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory for all of the process, at least 64 MiB. Without a limit counts stay in memory.
    pub memory_limit: Option<u64>,
    /// Where counts go that do not fit, and what is needed to go on after a kill.
    pub work_folder: Option<WorkFolder>,
}

/// Learns the merges of `documents` until the vocabulary is full.
///
/// Pre-tokens do not cross documents. Memory holds the distinct pre-tokens, some 32 MB of text, and one document. A
/// merge that spells a token known already adds no id, but is learned as well.
///
/// # Errors
/// If the vocabulary size is below 256 and the special tokens, if the text has fewer pairs than it
/// takes ([`Error::TooFewPairs`]), if a special token is empty, given twice or a single byte, or if
/// `documents` yields an error.
pub fn train_bpe<E>(
    documents: impl IntoIterator<Item = Result<Vec<u8>, E>>,
    config: &BpeConfig,
    progress: &dyn Fn(Progress),
) -> Result<Tokenizer, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let parts = documents.into_iter().map(|document| document.map(|text| TextPart { text, ends_document: true }));
    train_bpe_within(parts, config, &Resources::default(), progress)
}

/// [`train_bpe`] of a text of any size, within `resources`. After a kill the same call, with the same text, goes on from
/// what the work folder has, and gives the same result.
///
/// # Errors
/// As [`train_bpe`]; and if the memory is too little, for counting ([`Error::NoRoomForCounts`]) or for merging
/// ([`Error::MemoryForMerging`]), or the work folder cannot be used.
pub fn train_bpe_within<E>(
    parts: impl IntoIterator<Item = Result<TextPart, E>>,
    config: &BpeConfig,
    resources: &Resources,
    progress: &dyn Fn(Progress),
) -> Result<Tokenizer, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let BpeConfig { vocab_size, special_tokens, pattern, min_count } = config;
    check_no_byte(special_tokens)?;
    let minimum = 256 + special_tokens.len();
    if *vocab_size < minimum {
        return Err(Error::VocabTooSmall { vocab_size: *vocab_size, n_special_tokens: special_tokens.len(), minimum });
    }
    let mut tokens: Vec<Box<[u8]>> = special_tokens.iter().map(|token| token.as_bytes().into()).collect();
    let mut byte_ids = [0; 256];
    for byte in BYTES_IN_ORDER {
        byte_ids[usize::from(byte)] = tokens.len() as TokenId;
        tokens.push(Box::from([byte]));
    }
    let lens = vec![1; tokens.len()];
    let n_special = special_tokens.len();

    let mut work =
        resources.work_folder.as_ref().map(|folder| Work::open(folder, &config.counting_key())).transpose()?;
    let saved = match &work {
        Some(work) => checkpoint::load(&work.merges(), &config.merging_key(), &tokens, n_special)?,
        None => None,
    };
    let mut merger = match saved {
        Some(merger) => merger,
        None => {
            let specials = cutter(special_tokens)?;
            let counts = count(parts, pattern, &specials, resources.memory_limit, work.as_mut(), progress)?;
            let need = Histogram::of(&counts)?.check(*min_count, resources.memory_limit)?;
            progress(Progress::Counted(need));
            let mut text = Text::with_capacity(need.n_words, need.n_bytes, lens)?;
            counts.for_each(|word, count| {
                if count >= *min_count {
                    text.push_word(word.iter().map(|&byte| byte_ids[usize::from(byte)]), count);
                }
                Ok(())
            })?;
            drop(counts);
            Merger::new(text, &tokens, tokens.len(), n_special, Vec::new(), merge::BPE)
        }
    };
    let n_wanted = vocab_size - minimum;
    let saved = work.as_ref().and_then(|work| Some((work.merges(), work.checkpoint()?.n_merges)));
    let mut n_saved = merger.n_learned();
    learn(&mut merger, n_wanted, progress, &mut |merger| match &saved {
        Some((path, every)) if merger.n_learned() >= n_saved + every => {
            n_saved = merger.n_learned();
            checkpoint::save(merger, &config.merging_key(), path)
        }
        _ => Ok(()),
    })?;
    if merger.n_learned() < n_wanted {
        let n_possible = merger.n_learned();
        return Err(Error::TooFewPairs { vocab_size: *vocab_size, n_wanted, n_possible });
    }
    tokens.extend(merger.learned().map(Into::into));
    let specials = SpecialTokens::new(special_tokens.iter().cloned().zip(0..).collect())?;
    let tokenizer =
        Tokenizer::bpe(tokens, specials, Bpe::new(byte_ids, &merger.merges, false).with_pattern(pattern.clone()))?;
    if let Some(work) = work {
        work.finish();
    }
    Ok(tokenizer)
}

/// Counts the words of the text, from where `work` has got to.
fn count<E>(
    parts: impl IntoIterator<Item = Result<TextPart, E>>,
    splitter: &impl Splitter,
    specials: &SpecialTokens,
    memory_limit: Option<u64>,
    work: Option<&mut Work>,
    progress: &dyn Fn(Progress),
) -> Result<Counts, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(limit) = memory_limit.filter(|&limit| limit < MIN_MEMORY) {
        return Err(Error::MemoryLimit { limit, minimum: MIN_MEMORY });
    }
    if let Some(path) = work.as_ref().and_then(|work| work.words()) {
        return Ok(Counts::Disk(path));
    }
    let mut counter = Counter::new(splitter, specials, memory_limit, work);
    let mut n_known = counter.n_bytes();
    let mut n_bytes = n_known;
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = part.map_err(|error| Error::Document { index, source: error.into() })?;
        // What is counted already is read again, to get to where it ends.
        let skip = n_known.min(part.text.len() as u64);
        n_known -= skip;
        if skip > 0 {
            part.text.drain(..skip as usize);
        }
        n_bytes += part.text.len() as u64;
        if counter.push(&part)? {
            progress(Progress::Counting { n_bytes: counter.n_bytes() });
        }
    }
    let counts = counter.finish()?;
    progress(Progress::Counting { n_bytes });
    Ok(counts)
}

/// Learns tokens until there are `n_wanted` or no pair is left; calls `after_each` after each merge.
fn learn(
    merger: &mut Merger,
    n_wanted: usize,
    progress: &dyn Fn(Progress),
    after_each: &mut dyn FnMut(&Merger) -> Result<(), Error>,
) -> Result<(), Error> {
    while merger.n_learned() < n_wanted && merger.step().is_some() {
        let n_done = merger.n_learned();
        if n_done.is_multiple_of(REPORT_MERGES) || n_done == n_wanted {
            progress(Progress::Merging { n_done, n_total: n_wanted });
        }
        after_each(merger)?;
    }
    Ok(())
}
