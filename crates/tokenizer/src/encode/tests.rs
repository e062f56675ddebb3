use std::io::{self, BufReader, Read};

use proptest::prelude::*;

use super::*;
use crate::pretokenize::pretokens;
use crate::reference;
use crate::special::SpecialTokens;

/// A vocabulary of any merges, sensible or not; ids are those of the bytes, then of the merges.
fn bpe_of(pairs: &[(usize, usize)], specials: &[&str], add_prefix_space: bool) -> Tokenizer {
    let mut tokens: Vec<Box<[u8]>> = (0..=255).map(|byte| Box::from([byte])).collect();
    let mut merges = Vec::new();
    for &(left, right) in pairs {
        // 97 is `a`: indices count from there, so that merges build on the letters of the tests.
        let index = |i: usize| if i < 4 { 97 + i } else { 256 + i - 4 };
        let (left, right) = (index(left), index(right));
        if left.max(right) < tokens.len() {
            let bytes: Box<[u8]> = [&*tokens[left], &*tokens[right]].concat().into();
            let id = tokens.iter().position(|token| *token == bytes).unwrap_or(tokens.len());
            if id == tokens.len() {
                tokens.push(bytes);
            }
            merges.push([left as u32, right as u32, id as u32]);
        }
    }
    let mut numbered = Vec::new();
    for special in specials {
        numbered.push((special.to_string(), tokens.len() as u32));
        tokens.push(special.as_bytes().into());
    }
    let byte_ids = std::array::from_fn(|byte| byte as u32);
    let bpe = Bpe::new(byte_ids, &merges, add_prefix_space);
    Tokenizer::bpe(tokens, SpecialTokens::new(numbered).unwrap(), bpe).unwrap()
}

fn naive(tokenizer: &Tokenizer, text: &[u8]) -> Vec<Vec<u8>> {
    let merges: Vec<_> = tokenizer.merges().map(|(l, r)| (l.to_vec(), r.to_vec())).collect();
    pretokens(text).flat_map(|pretoken| reference::encode(pretoken, &merges)).collect()
}

fn bytes_of(tokenizer: &Tokenizer, ids: &[TokenId]) -> Vec<Vec<u8>> {
    ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap().to_vec()).collect()
}

/// A reader that yields a few bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

fn stream(tokenizer: &Tokenizer, text: &[u8], at_once: usize) -> Vec<TokenId> {
    let reader = BufReader::new(Drip(text, at_once));
    tokenizer.encode_stream(reader).collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_merge_learned_first_wins_and_of_equal_ones_the_leftmost() {
    // aa, then aab: not ab, which was learned later.
    let tokenizer = bpe_of(&[(0, 0), (0, 1), (4, 1)], &[], false);
    assert_eq!(bytes_of(&tokenizer, &tokenizer.encode(b"aaab")), [&b"aa"[..], b"ab"]);
    assert_eq!(bytes_of(&tokenizer, &tokenizer.encode(b"aab")), [&b"aab"[..]]);
}

#[test]
fn of_overlapping_special_tokens_the_leftmost_and_then_the_longest_counts() {
    let tokenizer = bpe_of(&[], &["<|a|>", "<|a|><|a|>", "|><|b"], false);
    let ids = tokenizer.encode(b"x<|a|><|a|><|a|>|><|b|>");
    let expected = [&b"x"[..], b"<|a|><|a|>", b"<|a|>", b"|><|b", b"|", b">"];
    assert_eq!(bytes_of(&tokenizer, &ids), expected);
}

#[test]
fn ordinary_encoding_takes_special_tokens_for_text() {
    let tokenizer = Tokenizer::bytes_with_specials(&["<|x|>".to_string()]).unwrap();
    assert_eq!(tokenizer.encode(b"a<|x|>"), [97, 256]);
    assert_eq!(tokenizer.encode_ordinary(b"a<|x|>"), b"a<|x|>".map(TokenId::from));
    assert!(tokenizer.encode(b"").is_empty() && tokenizer.encode_ordinary(b"").is_empty());
}

#[test]
fn a_space_is_put_before_each_text_where_the_vocabulary_wants_it() {
    let tokenizer = bpe_of(&[], &["<|x|>"], true);
    let ids = tokenizer.encode(b"a<|x|>b<|x|> c<|x|>");
    assert_eq!(tokenizer.decode(&ids), " a<|x|> b<|x|> c<|x|>");
    assert_eq!(stream(&tokenizer, b"a<|x|>b<|x|> c<|x|>", 1), ids);
}

#[test]
fn a_megabyte_of_one_letter_does_not_take_long() {
    let tokenizer = bpe_of(&[(0, 0), (4, 4), (5, 5), (6, 0)], &[], false);
    let text = vec![b'a'; (1 << 20) + 3];
    let ids = tokenizer.encode(&text);
    assert_eq!(ids.len(), (1 << 17) + 2);
    assert_eq!(stream(&tokenizer, &text, 1 << 13), ids);
}

#[test]
fn a_large_text_is_encoded_in_parallel_as_in_one_piece() {
    let tokenizer = bpe_of(&[(0, 1), (4, 2), (0, 0)], &["<|x|>"], false);
    let text = b"abc aab caab'll \xFFab\n\n abcabc <|x|>aaaa  ".repeat(40_000);
    let ids = tokenizer.encode_ordinary(&text);
    let mut sequential = Vec::new();
    Encoder::new(&tokenizer, 0).encode(&text, &mut sequential);
    assert!(ids == sequential);
    assert!(stream(&tokenizer, &text, 1 << 20) == tokenizer.encode(&text));
    assert!(tokenizer.encode_batch(&[&text, b"abc"]) == [tokenizer.encode(&text), vec![257]]);
}

#[test]
fn a_character_vocabulary_refuses_or_leaves_out_what_it_does_not_have() {
    let tokenizer = Tokenizer::characters(["grün"], &["<|x|>".to_string()]).unwrap();
    assert_eq!(tokenizer.encode("rün<|x|>g".as_bytes()), [2, 3, 1, 4, 0]);
    let text = "rün<|x|>gäng".as_bytes();
    assert_eq!(tokenizer.encode(text), [2, 3, 1, 4, 0, 1, 0]);
    let expected = "the character vocabulary has no 'ä' (at byte 10)";
    assert!(tokenizer.try_encode(text).unwrap_err().to_string().starts_with(expected));
    let streamed: Vec<_> = tokenizer.encode_stream(text).collect();
    assert_eq!(streamed.len(), 6);
    assert!(streamed[5].as_ref().unwrap_err().to_string().starts_with(expected));
    let error = tokenizer.try_encode(b"g\xFF").unwrap_err().to_string();
    assert!(error.contains("byte 0xFF") && error.contains("at byte 1"), "{error}");
}

#[test]
fn a_failing_reader_ends_the_stream_with_its_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let tokenizer = Tokenizer::bytes();
    let items: Vec<_> = tokenizer.encode_stream(BufReader::new(b"ab".chain(Broken))).collect();
    assert!(matches!(items.last(), Some(Err(Error::Stream { .. }))));
    assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "a", "b", "c", "d", "ab", "aa", " ", " a", "\n", "'ll", "é", "語", "<|x|>", "<|x", "|>",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => "[abcd]{60,140}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn tokenizers() -> impl Strategy<Value = Tokenizer> {
    let pairs = prop::collection::vec((0_usize..20, 0_usize..20), 0..25);
    (pairs, any::<bool>()).prop_map(|(pairs, space)| bpe_of(&pairs, &["<|x|>", "x|"], space))
}

proptest! {
    #[test]
    fn fast_encoding_equals_naive_encoding(
        pairs in prop::collection::vec((0_usize..20, 0_usize..20), 0..25),
        text in texts(),
    ) {
        let tokenizer = bpe_of(&pairs, &[], false);
        let ids = tokenizer.encode(&text);
        prop_assert_eq!(bytes_of(&tokenizer, &ids), naive(&tokenizer, &text));
        // Long enough for the cache.
        let repeated = [&text[..], b" "].concat().repeat(2 + 20_000 / (text.len() + 1));
        let once = tokenizer.encode(&[&text[..], b" "].concat().repeat(3));
        prop_assert!(tokenizer.encode(&repeated).starts_with(&once[..once.len() / 3]));
        let mut uncached = Vec::new();
        Encoder::new(&tokenizer, 0).encode(&repeated, &mut uncached);
        prop_assert!(tokenizer.encode(&repeated) == uncached);
    }

    #[test]
    fn a_stream_gives_the_ids_of_the_whole(
        tokenizer in tokenizers(), text in texts(), at_once in 1_usize..9,
    ) {
        prop_assert_eq!(stream(&tokenizer, &text, at_once), tokenizer.encode(&text));
    }

    #[test]
    fn decoding_gives_back_any_bytes(
        pairs in prop::collection::vec((0_usize..20, 0_usize..20), 0..25),
        text in texts(),
    ) {
        let tokenizer = bpe_of(&pairs, &["<|x|>"], false);
        prop_assert_eq!(tokenizer.decode_bytes(&tokenizer.encode(&text)), text);
    }
}
