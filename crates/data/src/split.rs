//! Train and validation parts of a single text.

/// Cuts the last `fraction` of the characters off: `(train, validation)`.
///
/// The first part has `⌊n · (1 - fraction)⌋` of the `n` characters, as in nanoGPT's `data[:int(n *
/// 0.9)]`, where a character is a byte that does not continue a UTF-8 sequence; so UTF-8 is never
/// cut within a character, and raw bytes are accepted.
///
/// **Panics** if `fraction` is not within 0 and 1.
pub fn split_tail(text: &[u8], fraction: f64) -> (&[u8], &[u8]) {
    assert!((0.0..=1.0).contains(&fraction), "split_tail: a fraction of {fraction} is not within 0 and 1");
    let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    let n_chars = text.iter().filter(|byte| is_start(byte)).count();
    let n_train = (n_chars as f64 * (1.0 - fraction)) as usize;
    let starts = text.iter().enumerate().filter(|(_, byte)| is_start(byte));
    let cut = starts.map(|(i, _)| i).nth(n_train).unwrap_or(text.len());
    text.split_at(cut)
}

#[cfg(test)]
mod tests {
    use super::split_tail;

    #[test]
    fn characters_are_counted_and_never_cut() {
        // Oracle: Python's data[:int(len(data) * 0.9)] and its rest.
        let text = "ab\u{e9}\u{4e16}\u{1f600}fghij";
        let (train, validation) = split_tail(text.as_bytes(), 0.1);
        assert_eq!((train, validation), ("ab\u{e9}\u{4e16}\u{1f600}fghi".as_bytes(), &b"j"[..]));
        let (train, validation) = split_tail(text.as_bytes(), 0.75);
        assert_eq!((train, validation), (&b"ab"[..], "\u{e9}\u{4e16}\u{1f600}fghij".as_bytes()));
    }

    #[test]
    fn the_size_of_tiny_shakespeare_gives_the_two_sizes_of_nanogpt() {
        let (train, validation) = (vec![b'x'; 1_115_394], 0.1);
        let (train, validation) = split_tail(&train, validation);
        assert_eq!((train.len(), validation.len()), (1_003_854, 111_540));
    }

    #[test]
    fn the_ends_of_the_range_give_everything_to_one_side() {
        assert_eq!(split_tail(b"abc", 0.0), (&b"abc"[..], &b""[..]));
        assert_eq!(split_tail(b"abc", 1.0), (&b""[..], &b"abc"[..]));
        assert_eq!(split_tail(b"", 0.5), (&b""[..], &b""[..]));
        assert_eq!(split_tail(b"\xff\xfe\x80\x80", 0.5), (&b"\xff"[..], &b"\xfe\x80\x80"[..]));
    }
}
