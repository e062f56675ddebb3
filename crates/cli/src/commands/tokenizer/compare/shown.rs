//! Tokens of a sample for the eye: in the terminal, and what of it the page shares.

use std::fmt::Write;

use tokenizer::measure::{Span, SpanPart};

/// Backgrounds that take turns, of the 256 colours of terminals; all are bright enough for black text.
const BACKGROUNDS: [u8; 6] = [216, 153, 157, 222, 183, 251];

/// Text with its white space and control characters visible; a new line goes on below.
///
/// What a terminal or a browser would obey rather than show is written as in Rust: `\u{1b}`.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' => shown.push('␣'),
            '\n' => shown.push_str("\\n\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() || c.is_whitespace() || is_format(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters without a shape that change what is beside them: direction, joining, tags.
pub(super) fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Bytes as `E4·B8`.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join("·")
}

/// All tokens in a row: each on a background of its own, or with `|` between them. Bytes that are only a part of a
/// character are hexadecimal in `‹ ›`.
pub(super) fn terminal(spans: &[Span], colour: bool) -> String {
    let mut text = String::new();
    for (i, span) in spans.iter().enumerate() {
        let mut shown = String::new();
        for part in &span.parts {
            match part {
                SpanPart::Text(text) => shown += &visible(text),
                SpanPart::Bytes { bytes, .. } => shown += &format!("‹{}›", hexadecimal(bytes)),
            }
        }
        if !colour {
            let separator = if i == 0 || text.ends_with('\n') { "" } else { "|" };
            let _ = write!(text, "{separator}{shown}");
            continue;
        }
        // A background that is on at the end of a line would fill the rest of it.
        let background = BACKGROUNDS[i % BACKGROUNDS.len()];
        for line in shown.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let _ = write!(text, "\x1b[30;48;5;{background}m{line}\x1b[0m{end}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizer::Tokenizer;

    fn shown(text: &str, colour: bool) -> String {
        terminal(&Tokenizer::bytes().spans(&Tokenizer::bytes().encode(text.as_bytes())), colour)
    }

    #[test]
    fn tokens_are_apart_with_and_without_colours() {
        assert_eq!(shown("a é", false), "a|␣|‹C3›|‹A9›");
        assert_eq!(shown("a\nb", false), "a|\\n\nb");
        assert_eq!(shown("a\n", true), "\x1b[30;48;5;216ma\x1b[0m\x1b[30;48;5;153m\\n\x1b[0m\n");
    }

    #[test]
    fn nothing_in_a_text_commands_the_terminal() {
        let evil = "\x1b[2J\u{9b}31m\u{202e}\u{7}\u{0}\t\r\u{2028}\u{200d}";
        let harmless = visible(evil);
        assert!(harmless.chars().all(|c| !c.is_control() && !c.is_whitespace() && !is_format(c)), "{harmless}");
        assert!(harmless.starts_with("\\u{1b}[2J\\u{9b}31m\\u{202e}") && harmless.contains("\\t\\r"), "{harmless}");
        assert_eq!(shown("\x1b", false), "\\u{1b}");
    }
}
