//! tiktoken's rank files: a token in Base64 and its rank, which is its id, on each line.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::parse::{Problem, Result, invalid};
use crate::encode::Bpe;
use crate::pretokenize::Pattern;
use crate::special::SpecialTokens;
use crate::vocab::Model;
use crate::{Error, HashMap, TokenId, Tokenizer};

/// Bytes of a token, all of whose halves are looked up.
const MAX_TOKEN_BYTES: usize = 1024;
/// Ids without a token that a file may have beside as many as it has tokens.
const MAX_GAPS: usize = 1 << 16;

/// What a rank file does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct TiktokenEncoding {
    /// How text is cut into pre-tokens.
    pub pattern: Pattern,
    /// The special tokens with their ids.
    pub special_tokens: Vec<(String, TokenId)>,
}

impl TiktokenEncoding {
    /// The encodings of OpenAI by name (`r50k_base`, `gpt2`, `p50k_base`, `p50k_edit`, `cl100k_base`,
    /// `o200k_base`) and `llama3`, whose `tokenizer.model` is a rank file, too.
    pub fn named(name: &str) -> Option<Self> {
        const END: &str = "<|endoftext|>";
        const FIM: [&str; 3] = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"];
        let (pattern, special): (Pattern, Vec<(&str, TokenId)>) = match name {
            "r50k_base" | "gpt2" | "p50k_base" => (Pattern::Gpt2, vec![(END, 50256)]),
            "p50k_edit" => {
                let fim = FIM.into_iter().zip(50281..);
                (Pattern::Gpt2, std::iter::once((END, 50256)).chain(fim).collect())
            }
            "cl100k_base" => {
                let fim = FIM.into_iter().zip(100_258..);
                (
                    Pattern::Cl100k,
                    std::iter::once((END, 100_257)).chain(fim).chain([("<|endofprompt|>", 100_276)]).collect(),
                )
            }
            "o200k_base" => (Pattern::O200k, vec![(END, 199_999), ("<|endofprompt|>", 200_018)]),
            "llama3" => return Some(Self { pattern: Pattern::Llama3, special_tokens: llama3_special() }),
            _ => return None,
        };
        let special_tokens = special.into_iter().map(|(token, id)| (token.to_string(), id)).collect();
        Some(Self { pattern, special_tokens })
    }
}

fn llama3_special() -> Vec<(String, TokenId)> {
    let reserved = |range: std::ops::Range<u32>| range.map(|n| format!("<|reserved_special_token_{n}|>"));
    let named = |name: &str| std::iter::once(name.to_string());
    named("<|begin_of_text|>")
        .chain(named("<|end_of_text|>"))
        .chain(reserved(0..4))
        .chain(named("<|start_header_id|>"))
        .chain(named("<|end_header_id|>"))
        .chain(reserved(4..5))
        .chain(named("<|eot_id|>"))
        .chain(reserved(5..251))
        .zip(128_000..)
        .collect()
}

/// Reads the text of a rank file.
pub(super) fn tokenizer(text: &[u8], encoding: &TiktokenEncoding) -> Result<Tokenizer> {
    let ranks = ranks(text)?;
    let (last, n_special) = (ranks.last().map_or(0, |&(_, rank)| rank), encoding.special_tokens.len());
    let highest = encoding.special_tokens.iter().map(|&(_, id)| id).fold(last, TokenId::max);
    if highest as usize >= 2 * (ranks.len() + n_special) + MAX_GAPS {
        return invalid(format!("the highest id is {highest}, but there are only {} tokens", ranks.len()));
    }
    let by_token: HashMap<&[u8], TokenId> = ranks.iter().map(|(token, rank)| (&**token, *rank)).collect();
    let mut byte_ids = [0; 256];
    for (byte, id) in (0..=255_u8).zip(&mut byte_ids) {
        match by_token.get(&[byte][..]) {
            Some(&rank) => *id = rank,
            None => return invalid(format!("the vocabulary lacks the byte 0x{byte:02X}")),
        }
    }
    // Two neighbours merge if together they are a token, the one of the lowest rank first.
    let mut merges = Vec::new();
    for (token, rank) in &ranks {
        let halves = (1..token.len()).map(|at| token.split_at(at));
        let known = halves.filter_map(|(left, right)| Some([*by_token.get(left)?, *by_token.get(right)?]));
        let mut pairs: Vec<[TokenId; 2]> = known.collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|[left, right]| [left, right, *rank]));
    }
    let bpe = Bpe::new(byte_ids, &merges, false).with_pattern(encoding.pattern.clone());
    let bpe = bpe.ignoring_merges(by_token.iter().map(|(token, &id)| (*token, id)));
    let mut tokens: Vec<Box<[u8]>> = vec![Box::default(); highest as usize + 1];
    for (token, id) in encoding.special_tokens.iter().map(|(token, id)| (token.as_bytes(), *id)) {
        tokens[id as usize] = token.into();
    }
    for (token, rank) in ranks {
        if !std::mem::replace(&mut tokens[rank as usize], token).is_empty() {
            return invalid(format!("the rank {rank} is that of two tokens"));
        }
    }
    let specials = SpecialTokens::new(encoding.special_tokens.clone()).map_err(Problem::Other)?;
    Ok(Tokenizer::of_model(tokens, specials, Model::Bpe(Box::new(bpe))))
}

/// The tokens by rank.
fn ranks(text: &[u8]) -> Result<Vec<(Box<[u8]>, TokenId)>> {
    let mut ranks = Vec::new();
    for (i, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let Some(rank) = rank(line) else {
            let line = String::from_utf8_lossy(&line[..line.len().min(80)]);
            return invalid(format!("line {} is not a token in Base64 with its rank: {line:?}", i + 1));
        };
        if rank.0.len() > MAX_TOKEN_BYTES {
            return invalid(format!("line {}: a token has {} bytes, more than {MAX_TOKEN_BYTES}", i + 1, rank.0.len()));
        }
        ranks.push(rank);
    }
    ranks.sort_unstable_by_key(|&(_, rank)| rank);
    Ok(ranks)
}

fn rank(line: &[u8]) -> Option<(Box<[u8]>, TokenId)> {
    let (token, rank) = std::str::from_utf8(line).ok()?.trim().split_once(' ')?;
    let token = BASE64_STANDARD.decode(token).ok().filter(|token| !token.is_empty())?;
    Some((token.into(), rank.parse().ok()?))
}

/// The text of a rank file.
///
/// # Errors
/// If ranks cannot say what the merges of the vocabulary do.
pub(super) fn written(tokenizer: &Tokenizer) -> std::result::Result<String, Error> {
    let fail = |reason: &str| Err(Error::Format { format: "a .tiktoken file", reason: reason.to_string() });
    let pairs = match &tokenizer.model {
        Model::Bytes => &[][..],
        Model::Bpe(bpe) if tokenizer.pipeline.is_none() && !bpe.add_prefix_space => bpe.merges(),
        Model::Bpe(_) => return fail("text is changed before the model"),
        _ => return fail("it holds byte-level BPE only"),
    };
    let mut added = vec![false; tokenizer.tokens.len()];
    tokenizer.added_sorted().into_iter().for_each(|token| added[token.id as usize] = true);
    let numbered =
        || (0 as TokenId..).zip(&tokenizer.tokens).filter(|(id, token)| !added[*id as usize] && !token.is_empty());
    let by_token: HashMap<&[u8], TokenId> = numbered().map(|(id, token)| (&**token, id)).collect();
    let bytes = |id: TokenId| &*tokenizer.tokens[id as usize];
    let results: Option<Vec<TokenId>> =
        pairs.iter().map(|&[left, right]| by_token.get(&*[bytes(left), bytes(right)].concat()).copied()).collect();
    if !results.is_some_and(|ids| ids.is_sorted()) {
        return fail("ids are not in the order of the merges");
    }
    Ok(numbered().map(|(id, token)| format!("{} {id}\n", BASE64_STANDARD.encode(token))).collect())
}
