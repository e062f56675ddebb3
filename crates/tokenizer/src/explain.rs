//! The merges of a text as they happen, for people who want to see the algorithm at work.
//!
//! Written as the paper tells it: of all neighbouring tokens the pair that was learned first is merged, of equal ones
//! the leftmost, until no pair is known. Encoding itself takes shorter ways to the same end.

use crate::vocab::Model;
use crate::{Error, HashMap, TokenId, Tokenizer};

/// How one pre-token becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its bytes, each of which is a token at first.
    pub pretoken: Vec<u8>,
    /// The merges, in the order in which they happen.
    pub steps: Vec<Step>,
    /// The ids that are left in the end.
    pub ids: Vec<TokenId>,
}

/// One merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place among the merges that the vocabulary learned, from 0.
    pub rank: usize,
    /// Bytes of the left token.
    pub left: Vec<u8>,
    /// Bytes of the right token.
    pub right: Vec<u8>,
    /// Bytes of all tokens of the pre-token afterwards.
    pub tokens: Vec<Vec<u8>>,
}

impl Tokenizer {
    /// How `text`, in which special tokens are ordinary text, becomes tokens; `None` if this is not byte-level BPE.
    ///
    /// Takes quadratic time in the length of a pre-token.
    ///
    /// # Errors
    /// [`Error::PatternGaveUp`], by a custom pattern only.
    pub fn explain(&self, text: &[u8]) -> Result<Option<Vec<Explanation>>, Error> {
        let Model::Bpe(bpe) = &self.model else { return Ok(None) };
        // Of a pair given twice the later rank counts, as in encoding.
        let ranks: HashMap<(&[u8], &[u8]), usize> = self.merges().zip(0..).collect();
        let explain = |pretoken: &[u8]| {
            // Token i is the bytes from end i - 1 to end i.
            let mut ends: Vec<usize> = (0..=pretoken.len()).collect();
            let token = |ends: &[usize], i: usize| &pretoken[ends[i - 1]..ends[i]];
            let mut steps = Vec::new();
            loop {
                let rank = |i: usize| ranks.get(&(token(&ends, i), token(&ends, i + 1))).copied();
                let Some((rank, i)) = (1..ends.len() - 1).filter_map(|i| Some((rank(i)?, i))).min() else { break };
                let (left, right) = (token(&ends, i).to_vec(), token(&ends, i + 1).to_vec());
                ends.remove(i);
                let tokens = (1..ends.len()).map(|i| token(&ends, i).to_vec()).collect();
                steps.push(Step { rank, left, right, tokens });
            }
            Explanation { pretoken: pretoken.to_vec(), steps, ids: self.encode_ordinary(pretoken) }
        };
        Ok(Some(bpe.pattern().pretokens(text)?.into_iter().map(explain).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::reference;
    use crate::train::{BpeConfig, train_bpe};

    fn trained(text: &str, vocab_size: usize) -> Tokenizer {
        let config = BpeConfig { vocab_size, ..BpeConfig::default() };
        train_bpe([Ok::<_, Infallible>(text.as_bytes().to_vec())], &config, &|_| {}).unwrap()
    }

    #[test]
    fn the_handout_example_is_told_as_the_handout_tells_it() {
        let words = [("low", 5), ("lower", 2), ("widest", 3), ("newest", 6)];
        let text = words.map(|(word, n)| format!("{word}\n").repeat(n)).concat();
        let explained = trained(&text, 256 + 6).explain(b"newest").unwrap().unwrap();
        let told: Vec<String> = explained[0]
            .steps
            .iter()
            .map(|step| {
                let tokens: Vec<_> = step.tokens.iter().map(|token| String::from_utf8_lossy(token)).collect();
                format!("{} {}", step.rank, tokens.join(" "))
            })
            .collect();
        assert_eq!(told, ["0 n e w e st", "1 n e w est", "4 n e west", "5 ne west"]);
    }

    #[test]
    fn only_byte_level_bpe_is_explained() {
        assert_eq!(Tokenizer::bytes().explain(b"a").unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_last_step_has_the_tokens_of_encoding(text in "[ab]{200}", word in "[ab]{1,30}") {
            let tokenizer = trained(&text, 256 + 12);
            let merges: Vec<_> = tokenizer.merges().map(|(l, r)| (l.to_vec(), r.to_vec())).collect();
            let explained = tokenizer.explain(word.as_bytes()).unwrap().unwrap();
            let first: Vec<Vec<u8>> = word.bytes().map(|byte| vec![byte]).collect();
            let last = explained[0].steps.last().map_or(first, |step| step.tokens.clone());
            prop_assert_eq!(&last, &reference::encode(word.as_bytes(), &merges));
            let ids = explained[0].ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap().to_vec());
            prop_assert_eq!(ids.collect::<Vec<_>>(), last);
        }
    }
}
