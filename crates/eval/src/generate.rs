//! A model that writes: one token after another, with the keys and values of earlier ones kept.

use nn::{KvCache, Transformer};
use tokenizer::{DecodeStream, Tokenizer};

use crate::Error;
use crate::sampler::{Sampler, Sampling};
use crate::text::check_vocabularies;

/// How much to write, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateConfig {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens to write.
    pub max_tokens: usize,
    /// Texts at which writing ends; they are not part of the result.
    pub stop: Vec<String>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Without the prompt.
    pub text: String,
    /// Tokens of the prompt.
    pub n_prompt_tokens: usize,
    /// Tokens written.
    pub n_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Why writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended the text.
    EndOfText,
    /// The limit was reached.
    MaxTokens,
    /// A stop text appeared.
    StopString,
    /// The listener had enough.
    Interrupted,
}

/// One conversation with a model: what was said so far, and its cache.
///
/// When the context is full, the older half is forgotten.
pub struct Session<'a> {
    model: Transformer,
    tokenizer: &'a Tokenizer,
    cache: KvCache,
    /// All ids that the cache holds, and those that are still to be read.
    ids: Vec<u32>,
}

impl<'a> Session<'a> {
    /// A conversation that has not begun.
    ///
    /// # Errors
    /// If the tokenizer has ids that the model does not.
    pub fn new(model: &Transformer, tokenizer: &'a Tokenizer) -> Result<Self, Error> {
        check_vocabularies(model, tokenizer)?;
        let cache = KvCache::new(model.config());
        Ok(Session { model: model.detached(), tokenizer, cache, ids: Vec::new() })
    }

    /// Reads `prompt` after everything said so far and writes on. Pieces of text go to `listen` as soon as they are
    /// whole characters and no stop text can begin in them; it returns whether to go on.
    ///
    /// # Errors
    /// If the prompt cannot be encoded, nothing was said at all, or a setting is out of range.
    pub fn generate(
        &mut self,
        prompt: &str,
        config: &GenerateConfig,
        listen: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, Error> {
        let mut sampler = Sampler::new(&config.sampling)?;
        let prompt_ids = self.tokenizer.try_encode(prompt.as_bytes())?;
        let n_prompt_tokens = prompt_ids.len();
        if self.ids.is_empty() {
            self.ids.extend(self.tokenizer.end_of_text());
        }
        self.ids.extend(prompt_ids);
        if self.ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }

        let mut decoder = DecodeStream::new(self.tokenizer);
        let mut output = StopFilter::new(&config.stop);
        let mut n_tokens = 0;
        let finish = loop {
            if n_tokens == config.max_tokens {
                break Finish::MaxTokens;
            }
            let id = sampler.sample(&self.next_logits())?;
            n_tokens += 1;
            self.ids.push(id);
            if Some(id) == self.tokenizer.end_of_text() {
                break Finish::EndOfText;
            }
            let piece = output.push(&decoder.push(id));
            if !piece.is_empty() && !listen(piece) {
                break Finish::Interrupted;
            }
            if output.is_stopped() {
                break Finish::StopString;
            }
        };
        if finish != Finish::StopString {
            let rest = output.finish(&decoder.finish());
            if !rest.is_empty() && finish != Finish::Interrupted {
                listen(rest);
            }
        }
        Ok(Generated { text: output.into_text(), n_prompt_tokens, n_tokens, finish })
    }

    /// Reads the ids that the cache does not hold yet.
    fn next_logits(&mut self) -> Vec<f32> {
        let context_length = self.model.config().context_length;
        if self.ids.len() > context_length {
            let keep = context_length.div_ceil(2);
            self.ids.drain(..self.ids.len() - keep);
            self.cache = KvCache::new(self.model.config());
        }
        let n_read = self.cache.n_positions();
        // A character vocabulary or a padded table may give the model rows that no token has.
        let mut logits = self.model.next_logits(&self.ids[n_read..], &mut self.cache);
        logits.truncate(self.tokenizer.vocab_size());
        logits
    }
}

/// Holds text back while a stop text may be beginning in it.
struct StopFilter<'a> {
    stop: &'a [String],
    text: String,
    /// Bytes of `text` that were handed out.
    n_shown: usize,
    stopped: bool,
}

impl<'a> StopFilter<'a> {
    fn new(stop: &'a [String]) -> Self {
        StopFilter { stop, text: String::new(), n_shown: 0, stopped: false }
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes in a piece and returns what can be shown.
    fn push(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        let stops = self.stop.iter().filter(|stop| !stop.is_empty());
        let unseen = &self.text[self.n_shown..];
        let found = stops.clone().filter_map(|stop| unseen.find(stop.as_str())).min();
        let end = match found {
            Some(at) => {
                self.stopped = true;
                self.text.truncate(self.n_shown + at);
                self.text.len()
            }
            None => {
                let held = stops.map(|stop| held_back(unseen, stop)).max().unwrap_or(0);
                self.text.len() - held
            }
        };
        let shown = self.n_shown..end;
        self.n_shown = end;
        &self.text[shown]
    }

    /// Takes in the last piece and returns everything that is left to show.
    fn finish(&mut self, piece: &str) -> &str {
        let start = self.n_shown;
        self.push(piece);
        self.n_shown = self.text.len();
        &self.text[start..]
    }

    fn into_text(self) -> String {
        self.text
    }
}

/// How many bytes at the end of `text` are the beginning of `stop`.
fn held_back(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| stop.as_bytes().starts_with(&text.as_bytes()[text.len() - n..])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::ModelConfig;

    fn model() -> Transformer {
        let mut model = Transformer::new(&ModelConfig::llama(257, 16, 16, 2, 2, 32), 5);
        for parameter in model.parameters_mut() {
            // Fresh weights give nearly uniform logits; larger ones make greedy choices distinct.
            parameter.f32s_mut().iter_mut().for_each(|x| *x *= 8.0);
        }
        model
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::bytes_with_specials(&["<|endoftext|>".to_owned()]).unwrap()
    }

    fn greedy(max_tokens: usize) -> GenerateConfig {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        GenerateConfig { sampling, max_tokens, stop: Vec::new() }
    }

    #[test]
    fn greedy_writing_takes_the_likeliest_token_of_the_full_forward() {
        let (model, tokenizer) = (model(), tokenizer());
        let mut session = Session::new(&model, &tokenizer).unwrap();
        session.generate("abc", &greedy(8), &mut |_| true).unwrap();
        let ids = session.ids.clone();
        let n_prompt = 4;
        for at in n_prompt..ids.len() {
            let logits = model.logits(&tensor::Tensor::from_u32(&[1, at], ids[..at].to_vec()));
            let last = &logits.f32s()[(at - 1) * 257..];
            let best = (0..257).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
            assert_eq!(ids[at] as usize, best, "token {at}");
        }
    }

    #[test]
    fn the_same_seed_writes_the_same_text_and_pieces_add_up_to_it() {
        let (model, tokenizer) = (model(), tokenizer());
        let write = |seed| {
            let sampling = Sampling { seed, temperature: 1.0, ..Sampling::default() };
            let config = GenerateConfig { sampling, max_tokens: 40, stop: Vec::new() };
            let mut pieces = String::new();
            let mut session = Session::new(&model, &tokenizer).unwrap();
            let generated = session.generate("x", &config, &mut |piece| {
                pieces.push_str(piece);
                true
            });
            let generated = generated.unwrap();
            assert_eq!(pieces, generated.text);
            generated.text
        };
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
    }

    #[test]
    fn writing_goes_on_past_the_context() {
        let (model, tokenizer) = (model(), tokenizer());
        let mut session = Session::new(&model, &tokenizer).unwrap();
        let generated = session.generate(&"long ".repeat(20), &greedy(50), &mut |_| true).unwrap();
        assert!(generated.n_tokens == 50 || generated.finish == Finish::EndOfText);
    }

    #[test]
    fn a_stop_text_is_never_shown_even_across_pieces() {
        let stop = ["END".to_owned(), "\n\n".to_owned()];
        let mut filter = StopFilter::new(&stop);
        let mut shown = String::new();
        for piece in ["one E", "N", "ough E", "ND two"] {
            shown.push_str(filter.push(piece));
        }
        assert!(filter.is_stopped());
        assert_eq!(shown, "one ENough ");
        assert_eq!(filter.into_text(), "one ENough ");
    }
}
