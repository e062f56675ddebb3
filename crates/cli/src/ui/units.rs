//! Numbers as people read them.

/// `12,345,678`
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits and a decimal prefix: `950`, `1.23 k`, `45.6 M`.
pub(crate) fn compact(x: f64) -> String {
    if !x.is_finite() {
        return x.to_string();
    }
    let prefixes = ["", " k", " M", " G", " T", " P", " E"];
    let mut scaled = x;
    let mut prefix = 0;
    // 999.5 is shown as 1.00 of the next prefix.
    while scaled.abs() >= 999.5 && prefix + 1 < prefixes.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    let decimals = match scaled.abs() {
        _ if prefix == 0 && x.fract() == 0.0 => 0,
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{}", prefixes[prefix])
}

/// [`compact`] with a unit: `1.23 GFLOP/s`, `950 B`.
pub(crate) fn with_unit(x: f64, unit: &str) -> String {
    let text = compact(x);
    if text.contains(' ') { text + unit } else { format!("{text} {unit}") }
}

/// `1.23 GB`; a kB is 1000 bytes.
pub(crate) fn bytes(n: u64) -> String {
    with_unit(n as f64, "B")
}

/// `0.42 s`, `7 s`, `3 min 20 s`, `2 h 05 min`, `3 d 04 h`
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 1.0 {
        return format!("{seconds:.2} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `41.3 %`
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_get_a_prefix() {
        let cases = [(0.0, "0"), (950.0, "950"), (999.6, "1.00 k"), (1234.0, "1.23 k"), (45_600_000.0, "45.6 M")];
        for (x, expected) in cases {
            assert_eq!(compact(x), expected);
        }
        assert_eq!(compact(999_500.0), "1.00 M");
        assert_eq!(compact(2.5), "2.50");
        assert_eq!((bytes(999), bytes(1_230_000_000)), ("999 B".to_owned(), "1.23 GB".to_owned()));
    }

    #[test]
    fn thousands_are_grouped() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(n), expected);
        }
    }

    #[test]
    fn durations_have_the_two_units_that_matter() {
        let cases =
            [(0.42, "0.42 s"), (59.4, "59 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min"), (1e6, "11 d 13 h")];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
        assert_eq!(duration(f64::NAN), "unknown");
    }
}
