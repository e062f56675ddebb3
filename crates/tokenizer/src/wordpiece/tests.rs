use super::*;

/// The example of BERT's documentation.
#[test]
fn the_longest_piece_is_taken_first() {
    let pieces = ["[UNK]", "un", "##aff", "##able", "##a", "unaffordable"];
    let wordpiece = WordPiece::new(pieces.into_iter().zip(0..), "##", 0, 12);
    let encode = |word: &str| {
        let mut ids = Vec::new();
        wordpiece.encode(word, &mut ids);
        ids
    };
    assert_eq!(encode("unaffable"), [1, 2, 3]);
    assert_eq!(encode("unaffordable"), [5]);
    // A word is unknown as a whole, and so is one that is too long.
    assert_eq!(encode("unaffected"), [0]);
    assert_eq!(encode("able"), [0]);
    assert_eq!(encode("unaaaaaaaaaaa"), [0]);
}
