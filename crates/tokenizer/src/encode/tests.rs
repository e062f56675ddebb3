use std::io::{self, BufReader, Read};

use proptest::prelude::*;

use super::*;
use crate::pretokenize::{Pattern, pretokens};
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
    Encoder::new(&tokenizer).encode(&text, &mut sequential);
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

#[test]
fn special_tokens_in_text_are_refused_unless_allowed_or_taken_for_text() {
    let tokenizer = Tokenizer::bytes_with_specials(&["<|x|>".to_string(), "<|y|>".to_string()]).unwrap();
    let encode = |allowed, disallowed| tokenizer.encode_with(b"a<|x|><|y|>", Specials { allowed, disallowed });
    let plain = |text: &[u8]| text.iter().map(|&byte| TokenId::from(byte)).collect::<Vec<_>>();
    let error = tokenizer.encode_with(b"a<|x|><|y|>", Specials::default()).unwrap_err().to_string();
    assert!(error.starts_with("the text holds the special token \"<|x|>\" (at byte 1)"), "{error}");
    let error = encode(SpecialSet::These(&["<|x|>"]), SpecialSet::All).unwrap_err().to_string();
    assert!(error.starts_with("the text holds the special token \"<|y|>\" (at byte 6)"), "{error}");
    assert_eq!(encode(SpecialSet::All, SpecialSet::All).unwrap(), [97, 256, 257]);
    assert_eq!(encode(SpecialSet::None, SpecialSet::None).unwrap(), plain(b"a<|x|><|y|>"));
    let mixed = [plain(b"a<|x|>"), vec![257]].concat();
    assert_eq!(encode(SpecialSet::These(&["<|y|>"]), SpecialSet::None).unwrap(), mixed);
    assert!(encode(SpecialSet::None, SpecialSet::These(&["<|z|>"])).is_err());
    assert_eq!(tokenizer.encode_with(b"a<|x|", Specials::default()).unwrap(), plain(b"a<|x|"));
}

#[test]
fn a_file_has_the_ids_of_its_text() {
    let tokenizer = bpe_of(&[(0, 1), (4, 2)], &["<|x|>"], true);
    let folder = tempfile::tempdir().unwrap();
    for text in [b"".to_vec(), b"abc<|x|> \xFF".to_vec(), b"abc ab<|x|>cab\n".repeat(60_000)] {
        let path = folder.path().join("text");
        std::fs::write(&path, &text).unwrap();
        assert!(tokenizer.encode_file(&path).unwrap() == tokenizer.encode(&text));
    }
    let error = tokenizer.encode_file(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn many_short_documents_in_one_text_are_encoded_in_parallel_as_one_by_one() {
    for space in [false, true] {
        let tokenizer = bpe_of(&[(0, 1), (4, 2)], &["<|x|>"], space);
        let document = b"abc aab <|x|>";
        let once = tokenizer.encode(document);
        assert!(tokenizer.encode(&document.repeat(50_000)) == once.repeat(50_000));
    }
}

#[test]
fn another_pattern_is_used_and_streamed() {
    for regex in [r"\p{N}", r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+|."] {
        let pattern = Pattern::of_regex(regex).unwrap();
        let mut tokenizer = bpe_of(&[(0, 0), (4, 4)], &["<|x|>"], false);
        let Model::Bpe(bpe) = &mut tokenizer.model else { unreachable!() };
        **bpe = bpe.clone().with_pattern(pattern.clone());
        let text = b"aa1aaaa aa<|x|>aa \xFFaa";
        let naive = |text: &[u8]| {
            let merges: Vec<_> = tokenizer.merges().map(|(l, r)| (l.to_vec(), r.to_vec())).collect();
            let pretokens = pattern.pretokens(text).unwrap();
            pretokens.iter().flat_map(|pretoken| reference::encode(pretoken, &merges)).collect::<Vec<_>>()
        };
        let expected = [naive(b"aa1aaaa aa"), vec![b"<|x|>".to_vec()], naive(b"aa \xFFaa")].concat();
        let ids = tokenizer.try_encode(text).unwrap();
        assert_eq!(bytes_of(&tokenizer, &ids), expected);
        assert_eq!(stream(&tokenizer, text, 3), ids);
    }
}

#[test]
fn with_merges_ignored_a_pretoken_that_is_a_token_is_one() {
    // aaa cannot be merged: aa comes first, and nothing joins aa and a.
    let mut tokenizer = bpe_of(&[(0, 0), (0, 1)], &[], false);
    assert_eq!(tokenizer.encode(b"aaa"), [256, 97]);
    tokenizer.tokens.push(b"aaa".to_vec().into());
    let Model::Bpe(bpe) = &mut tokenizer.model else { unreachable!() };
    **bpe = bpe.clone().ignoring_merges([(&b"aaa"[..], 258)]);
    assert_eq!(tokenizer.encode(b"aaa"), [258]);
    assert_eq!(tokenizer.encode(b"aaaa"), [256, 256]);
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
        let repeated = [&text[..], b" "].concat().repeat(2 + 40_000 / (text.len() + 1));
        let once = tokenizer.encode(&[&text[..], b" "].concat().repeat(3));
        prop_assert!(tokenizer.encode(&repeated).starts_with(&once[..once.len() / 3]));
        let mut uncached = Vec::new();
        Encoder::new(&tokenizer).encode(&repeated, &mut uncached);
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

    #[test]
    fn all_ways_to_merge_agree(
        pairs in prop::collection::vec((0_usize..20, 0_usize..20), 0..25),
        pretoken in "[abcd]{2,16}|[abcd]{17,300}|a{2,100}",
    ) {
        let tokenizer = bpe_of(&pairs, &[], false);
        let Model::Bpe(bpe) = &tokenizer.model else { unreachable!() };
        let merges: Vec<_> = tokenizer.merges().map(|(l, r)| (l.to_vec(), r.to_vec())).collect();
        let expected = reference::encode(pretoken.as_bytes(), &merges);
        for ids in bpe.merge_each_way(pretoken.as_bytes()) {
            prop_assert_eq!(bytes_of(&tokenizer, &ids), expected.clone(), "linear: {}", bpe.is_linear());
        }
    }

    #[test]
    fn offsets_are_those_of_the_bytes_of_tokens(tokenizer in tokenizers(), text in texts()) {
        let tokens = tokenizer.encode_with_offsets(&text).unwrap();
        let ids: Vec<TokenId> = tokens.iter().map(|&(id, _)| id).collect();
        prop_assert_eq!(&ids, &tokenizer.encode(&text));
        let mut end = 0;
        for (id, range) in tokens {
            prop_assert_eq!(range.start, end);
            let bytes = tokenizer.token_bytes(id).unwrap();
            // A space may have been put before the text.
            prop_assert!(bytes == &text[range.clone()] || bytes == [b" ", &text[range.clone()]].concat());
            end = range.end;
        }
        prop_assert_eq!(end, text.len());
    }
}
