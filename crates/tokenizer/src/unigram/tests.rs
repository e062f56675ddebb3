use proptest::prelude::*;

use super::*;

/// The score of the best way to cut `text`, by trying all.
fn best_score(text: &str, pieces: &[(String, f64)], unknown: f64) -> f64 {
    let Some(c) = text.chars().next() else { return 0.0 };
    let single = &text[..c.len_utf8()];
    let mut ways: Vec<(usize, f64)> = pieces
        .iter()
        .filter(|(piece, _)| text.starts_with(&**piece))
        .map(|(piece, score)| (piece.len(), *score))
        .collect();
    if !pieces.iter().any(|(piece, _)| piece == single) {
        ways.push((single.len(), unknown));
    }
    ways.iter().map(|&(len, score)| score + best_score(&text[len..], pieces, unknown)).fold(f64::NEG_INFINITY, f64::max)
}

fn unigram(pieces: &[(String, f64)]) -> Unigram {
    let mut all = vec![Piece { text: "<unk>".into(), score: 0.0, kind: PieceKind::Reserved }];
    all.extend(pieces.iter().map(|(text, score)| Piece {
        text: (**text).into(),
        score: *score,
        kind: PieceKind::Normal,
    }));
    Unigram::new(all, Options { unknown: Some(0), byte_ids: None, rounds_to_f32: false })
}

proptest! {
    #[test]
    fn the_path_found_is_the_best_of_all(
        pieces in prop::collection::btree_map("[abä]{1,4}", -9.0..0.0, 1..8), text in "[abcä]{0,10}",
    ) {
        let pieces: Vec<(String, f64)> = pieces.into_iter().collect();
        let unigram = unigram(&pieces);
        let mut ids = Vec::new();
        unigram.encode(&text, &mut ids);
        let worst = pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min).min(0.0);
        let unknown = worst - 10.0;
        // Unknown characters in a row are one token: counted where they are.
        let known: String = ids.iter().filter(|&&id| id > 0).map(|&id| &*pieces[id as usize - 1].0).collect();
        let n_unknown = text.chars().count() - known.chars().count();
        let known_score: f64 = ids.iter().filter(|&&id| id > 0).map(|&id| pieces[id as usize - 1].1).sum();
        let score = known_score + n_unknown as f64 * unknown;
        prop_assert!((score - best_score(&text, &pieces, unknown)).abs() < 1e-9, "{:?}", ids);
    }
}

#[test]
fn memory_and_time_are_linear_in_the_text() {
    let pieces = [("a".to_string(), -1.0), ("aa".to_string(), -1.5), ("▁".to_string(), -1.0)];
    let mut ids = Vec::new();
    unigram(&pieces).encode(&"a".repeat(1 << 20), &mut ids);
    assert_eq!(ids.len(), 1 << 19);
}
