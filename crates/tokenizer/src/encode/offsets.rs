//! Where in the text tokens are.

use std::ops::Range;

use crate::vocab::Model;
use crate::{Error, TokenId, Tokenizer};

impl Tokenizer {
    /// [`Tokenizer::encode`] with the bytes of the text that each token stands for; one after the other they
    /// are the text. A space that the vocabulary has put before the text is no part of it.
    ///
    /// # Errors
    /// [`Error::NoOffsets`] if the vocabulary does not go by bytes, or normalises the text;
    /// as [`Tokenizer::try_encode`].
    pub fn encode_with_offsets(&self, text: &[u8]) -> Result<Vec<(TokenId, Range<usize>)>, Error> {
        if self.is_staged() {
            return Err(Error::NoOffsets);
        }
        if matches!(self.model, Model::Characters(_)) {
            self.try_encode(text)?;
        }
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let special = self.specials.find(text, at, text.len());
            let end = special.map_or(text.len(), |special| special.start);
            if at < end {
                self.push_with_offsets(text, at..end, &mut tokens);
            }
            tokens.extend(special.map(|special| (special.id, special.start..special.end)));
            at = special.map_or(end, |special| special.end);
        }
        Ok(tokens)
    }

    fn push_with_offsets(&self, text: &[u8], segment: Range<usize>, tokens: &mut Vec<(TokenId, Range<usize>)>) {
        let mut ids = Vec::new();
        self.encode_with_model(&text[segment.clone()], &mut ids);
        let mut n_added = usize::from(self.wants_prefix_space(&text[segment.clone()]));
        let mut start = segment.start;
        for id in ids {
            let len = self.token_bytes(id).map_or(0, <[u8]>::len);
            let taken = n_added.min(len);
            n_added -= taken;
            tokens.push((id, start..start + len - taken));
            start += len - taken;
        }
        debug_assert!(start == segment.end, "tokens over bytes are the text");
    }
}
