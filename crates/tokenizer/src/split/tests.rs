use super::*;
use crate::normalize::META_SPACE;

fn cut(step: Step, text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    split(&[step], text, true, &mut |part| parts.push(part.to_string()));
    parts
}

/// The documentation of `tokenizers`: "the-final--countdown", cut at "-".
#[test]
fn behaviors_are_those_of_the_documentation() {
    let at_dash = |behavior: Behavior| {
        cut(Step::Split { pattern: Needle::String("-".into()), behavior, invert: false }, "the-final--countdown")
    };
    assert_eq!(at_dash(Behavior::Removed), ["the", "final", "countdown"]);
    assert_eq!(at_dash(Behavior::Isolated), ["the", "-", "final", "-", "-", "countdown"]);
    assert_eq!(at_dash(Behavior::MergedWithPrevious), ["the-", "final-", "-", "countdown"]);
    assert_eq!(at_dash(Behavior::MergedWithNext), ["the", "-final", "-", "-countdown"]);
    assert_eq!(at_dash(Behavior::Contiguous), ["the", "-", "final", "--", "countdown"]);
}

#[test]
fn a_space_is_put_before_text_where_the_scheme_says_so() {
    let metaspace = |prepend_scheme: PrependScheme| {
        Step::Metaspace(Metaspace { replacement: META_SPACE, prepend_scheme, split: true })
    };
    assert_eq!(cut(metaspace(PrependScheme::Always), "a b  c"), ["▁a", "▁b", "▁", "▁c"]);
    assert_eq!(cut(metaspace(PrependScheme::Always), " a"), ["▁a"]);
    assert_eq!(cut(metaspace(PrependScheme::Never), "a b"), ["a", "▁b"]);
    let mut parts = Vec::new();
    let steps = [Step::WhitespaceSplit, metaspace(PrependScheme::First)];
    split(&steps, "a b", true, &mut |part| parts.push(part.to_string()));
    assert_eq!(parts, ["▁a", "b"]);
}

#[test]
fn words_of_bert_are_cut_at_punctuation() {
    assert_eq!(
        cut(Step::BertPreTokenizer, "Hey friend!  How's it?"),
        ["Hey", "friend", "!", "How", "'", "s", "it", "?"]
    );
    assert_eq!(cut(Step::Whitespace, "a_b c!?d  é"), ["a_b", "c", "!?", "d", "é"]);
    assert_eq!(cut(Step::Digits { individual_digits: false }, "a123b4"), ["a", "123", "b", "4"]);
}
