//! Text for HTML and SVG: escapes, and numbers as people read them.

/// Makes any text safe as HTML or SVG content and within a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in HTML, and sampled bytes may well contain them.
            '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' => escaped.push('\u{fffd}'),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A number with four significant digits: `1,234`, `3.142`, `12.5M`, `3.00e-4`.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if size < 1e-3 {
        return format!("{value:.2e}");
    }
    if size >= 999_999.5 {
        return with_prefix(value, 3);
    }
    if size >= 999.95 {
        return grouped(value.round() as i64);
    }
    let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
    trimmed(format!("{value:.decimals$}"))
}

/// An integer with commas between thousands.
pub(super) fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A large number with the prefix that leaves one to three digits before the point.
pub(super) fn with_prefix(value: f64, max_decimals: usize) -> String {
    const PREFIXES: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if value.abs() >= 1e18 {
        return format!("{value:.2e}");
    }
    // The tolerance makes 999,999.6 "1M" and not "1000k".
    let (unit, prefix) = PREFIXES.into_iter().find(|(unit, _)| value.abs() >= unit * 0.999_999).unwrap_or((1.0, ""));
    trimmed(format!("{:.max_decimals$}", value / unit)) + prefix
}

/// A time span: `12.3 s`, `3 min 05 s`, `2 h 07 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "–".into();
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Drops zeros at the end of a decimal fraction.
pub(super) fn trimmed(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (f64::NAN, "–"),
            (0.000_3, "3.00e-4"),
            (0.05, "0.05"),
            (2.345_67, "2.346"),
            (-12.0, "-12"),
            (999.96, "1,000"),
            (12_345.4, "12,345"),
            (999_999.6, "1M"),
            (17_432_000.0, "17.432M"),
            (1e300, "1.00e300"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0.04, "0.0 s"), (59.96, "1 min 00 s"), (185.2, "3 min 05 s"), (7630.0, "2 h 07 min")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn markup_and_control_characters_are_harmless() {
        assert_eq!(escape("<a href='x'>\"&\"\u{1b}[0m\n"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;\u{fffd}[0m\n");
    }
}
