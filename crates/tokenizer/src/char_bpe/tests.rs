use proptest::prelude::*;

use super::*;

/// Merges the best pair, of equal ones the leftmost, and looks again: as the paper has it.
fn naive(symbols: &mut Vec<String>, rank: impl Fn(&str, &str) -> Option<u32>) {
    loop {
        let ranks = (1..symbols.len()).filter_map(|i| Some((rank(&symbols[i - 1], &symbols[i])?, i - 1)));
        let Some((_, i)) = ranks.min() else { return };
        let right = symbols.remove(i + 1);
        symbols[i] += &right;
    }
}

/// Tokens over `a`, `b` and `▁`, and merges of some of them.
fn vocabularies() -> impl Strategy<Value = (Vec<String>, Vec<[TokenId; 3]>)> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20).prop_map(|pairs| {
        let mut tokens = vec!["<unk>".to_string(), "a".to_string(), "b".to_string(), META_SPACE.to_string()];
        let mut merges = Vec::new();
        for (left, right) in pairs {
            let (left, right) = (1 + left.index(tokens.len() - 1), 1 + right.index(tokens.len() - 1));
            let merged = [&*tokens[left], &*tokens[right]].concat();
            if merged.len() < 20 && !tokens.contains(&merged) {
                merges.push([left as TokenId, right as TokenId, tokens.len() as TokenId]);
                tokens.push(merged);
            }
        }
        (tokens, merges)
    })
}

fn all(bpe: &CharBpe, text: &str) -> Vec<TokenId> {
    let (mut ids, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(bpe.part_len(rest));
        bpe.encode(part, &mut ids);
        rest = behind;
    }
    ids
}

fn options() -> Options {
    Options { unknown: Some(0), fuse_unknown: true, ..Options::default() }
}

proptest! {
    #[test]
    fn fast_merging_by_rank_equals_naive_merging((tokens, merges) in vocabularies(), text in "[ab▁]{0,40}") {
        let names: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let bpe = CharBpe::of_merges(&names, &merges, options());
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        naive(&mut symbols, |left, right| {
            let is_pair = |merge: &[TokenId; 3]| tokens[merge[0] as usize] == left && tokens[merge[1] as usize] == right;
            merges.iter().position(is_pair).map(|rank| rank as u32)
        });
        let encoded: Vec<String> = all(&bpe, &text).into_iter().map(|id| tokens[id as usize].clone()).collect();
        prop_assert_eq!(encoded, symbols);
    }

    #[test]
    fn fast_merging_by_score_equals_naive_merging((tokens, _) in vocabularies(), n in 1_u32..5, text in "[ab▁]{0,40}") {
        // Some have the same score.
        let score = |id: usize| -((id as u32 / n) as f32);
        let scored: Vec<Scored<'_>> = (0..).zip(&tokens)
            .map(|(id, text)| Scored { text: (id > 0).then_some(text), score: score(id) })
            .collect();
        let bpe = CharBpe::of_scores(&scored, options());
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        naive(&mut symbols, |left, right| {
            let merged = [left, right].concat();
            tokens.iter().position(|token| *token == merged).map(|id| (-score(id)) as u32)
        });
        let encoded: Vec<String> = all(&bpe, &text).into_iter().map(|id| tokens[id as usize].clone()).collect();
        prop_assert_eq!(encoded, symbols);
    }
}

#[test]
fn a_megabyte_of_one_letter_does_not_take_long() {
    let bpe = CharBpe::of_merges(&["<unk>", "a", "aa", "aaaa"], &[[1, 1, 2], [2, 2, 3]], options());
    let mut ids = Vec::new();
    bpe.encode(&"a".repeat((1 << 20) + 1), &mut ids);
    assert_eq!((ids.len(), ids.last()), ((1 << 18) + 1, Some(&1)));
}

#[test]
fn unknown_characters_are_bytes_or_one_token() {
    let tokens = ["<unk>", "a", "<0xC3>", "<0xA4>"];
    let mut byte_ids = [None; 256];
    (byte_ids[0xC3], byte_ids[0xA4]) = (Some(2), Some(3));
    let with = |fuse_unknown: bool, bytes: bool| {
        let byte_ids = bytes.then(|| Box::new(byte_ids));
        let bpe = CharBpe::of_merges(&tokens, &[], Options { fuse_unknown, byte_ids, ..options() });
        let mut ids = Vec::new();
        bpe.encode("aäöüa", &mut ids);
        ids
    };
    assert_eq!(with(true, false), [1, 0, 1]);
    assert_eq!(with(false, false), [1, 0, 0, 0, 1]);
    assert_eq!(with(true, true), [1, 2, 3, 0, 1]);
}
