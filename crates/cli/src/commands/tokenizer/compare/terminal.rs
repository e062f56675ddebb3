//! The comparison as text.

use tokenizer::measure::Span;

use super::outcome::{Compared, Figures, InLanguage, Longest, Outcome, RENYI_ORDER};
use super::shown;
use crate::ui::units::{bytes, grouped, percent};

/// Tokenizers beside each other; more go below.
const N_COLUMNS: usize = 5;
/// Of more languages the cheapest and the dearest are shown, so many together.
const N_LANGUAGES: usize = 40;
/// Characters of a name in a column.
const NAME_CHARACTERS: usize = 22;
/// Less text than this says little about the speed: it is warming up.
const MIN_TIMED_MEGABYTES: f64 = 0.1;

pub(super) fn text(outcome: &Outcome, n_characters: usize, colour: bool) -> String {
    let mut text = String::new();
    if let Some(size) = &outcome.text {
        text += &format!(
            "{} of text: {} characters, {} words between white space\n\n",
            bytes(size.n_bytes),
            grouped(size.n_characters),
            grouped(size.n_words)
        );
    }
    for compared in outcome.tokenizers.chunks(N_COLUMNS) {
        text += &columns(&header(compared), &rows(compared, outcome.threads));
    }
    text += if outcome.text.is_some() { "\n" } else { "" };
    for compared in outcome.tokenizers.iter().filter(|compared| compared.figures.is_some()) {
        text += &longest(compared, outcome.tokenizers.len() > 1);
    }
    if !outcome.languages.is_empty() {
        text += &languages(outcome);
    }
    if let Some(sample) = &outcome.sample {
        for (compared, shown) in outcome.tokenizers.iter().zip(&sample.tokenizers) {
            let (spans, is_cut) = beginning(&shown.spans, n_characters);
            let end = if is_cut || sample.is_cut { " …" } else { "" };
            let tokens = shown::terminal(spans, colour);
            text += &format!("\n{} in tokens\n{}{end}\n", shown_name(&compared.name), tokens.trim_end_matches('\n'));
        }
    }
    if let Some(output) = &outcome.output {
        text += &format!("\n{}\n", output.display());
    }
    text
}

/// Names of figures and their values by tokenizer; those that no tokenizer has are left out.
pub(super) fn rows(compared: &[Compared], threads: usize) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Compared) -> Option<String>| {
        let values: Vec<Option<String>> = compared.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".to_owned()));
            rows.push([name.to_owned()].into_iter().chain(values).collect());
        }
    };
    let two = |x: f64| format!("{x:.2}");
    row("kind", &|one| Some(one.kind.to_owned()));
    row("ids", &|one| Some(grouped(one.vocab_size as u64)));
    let mut figure = |name: &str, value: &dyn Fn(&Figures) -> Option<String>| {
        row(name, &|one| value(one.figures.as_ref()?));
    };
    figure("tokens", &|one| Some(grouped(one.n_tokens)));
    figure("bytes per token", &|one| one.bytes_per_token.map(two));
    figure("characters per token", &|one| one.characters_per_token.map(two));
    figure("tokens per word", &|one| one.tokens_per_word.map(two));
    let of_ids =
        |n: usize, one: &Figures| format!("{} ({})", grouped(n as u64), percent(n as f64 / one.n_ids.max(1) as f64));
    figure("ids used", &|one| Some(of_ids(one.n_used, one)));
    figure("ids used once", &|one| Some(of_ids(one.n_used_once, one)));
    figure("ids never used", &|one| Some(of_ids(one.n_unused, one)));
    figure("entropy, bits per token", &|one| Some(two(one.entropy_bits)));
    figure(&format!("Rényi efficiency ({RENYI_ORDER})"), &|one| one.renyi_efficiency.map(|x| format!("{x:.3}")));
    figure("less than a character", &|one| Some(percent(one.partial_share)));
    figure("unknown", &|one| match one.n_unknown {
        0 => Some("0".to_owned()),
        n => Some(format!("{} ({})", grouped(n), percent(n as f64 / one.n_tokens.max(1) as f64))),
    });
    figure("decodes to the text", &|one| {
        Some(one.first_change.map_or("yes".to_owned(), |at| format!("not at byte {}", grouped(at))))
    });
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("up to {threads} threads") };
    figure(&format!("MB/s, {threads}"), &|one| {
        let rate = one.megabytes_per_second.filter(|rate| rate * one.encode_seconds >= MIN_TIMED_MEGABYTES)?;
        Some(if rate < 10.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) })
    });
    rows
}

fn header(compared: &[Compared]) -> Vec<String> {
    [String::new()].into_iter().chain(compared.iter().map(|one| shortened(&one.name))).collect()
}

/// The end of a long name: that of a path tells most.
fn shortened(name: &str) -> String {
    let name = shown_name(name);
    let n = name.chars().count();
    match n > NAME_CHARACTERS {
        true => name.chars().skip(n - NAME_CHARACTERS + 1).fold("…".to_owned(), |text, c| text + &c.to_string()),
        false => name,
    }
}

/// A name without what a terminal would obey.
fn shown_name(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || shown::is_format(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A table whose first column is on the left and whose others are on the right.
fn columns(header: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("  {:first$}{}\n", row[0], cells.collect::<String>(), first = widths[0])
    };
    all().map(line).collect()
}

fn longest(compared: &Compared, is_named: bool) -> String {
    let Some(figures) = &compared.figures else { return String::new() };
    let tokens: Vec<String> = figures.longest_tokens.iter().take(5).map(shortest_form).collect();
    let of = if is_named { format!(" of {}", shown_name(&compared.name)) } else { String::new() };
    format!("  longest{of}: {}\n", tokens.join(", "))
}

/// A token in quotes, and no more than the beginning of a very long one.
fn shortest_form(token: &Longest) -> String {
    let beginning: String = token.text.chars().take(NAME_CHARACTERS).collect();
    let end = if beginning.len() < token.text.len() { "…" } else { "" };
    format!("{beginning:?}{end}")
}

fn languages(outcome: &Outcome) -> String {
    let (languages, names) = (&outcome.languages, header(&outcome.tokenizers));
    let mut text = match &outcome.base {
        Some(base) => format!("\nTokens by language, as many times those of {base}"),
        None => {
            "\nTokens by language (there is no English among them: --base names the one to compare with)".to_owned()
        }
    };
    text += "; in brackets tokens per word, or ‹tokens per character›\n";
    let row = |language: &InLanguage| {
        let cells = language.tokenizers.iter().map(|tokens| {
            let first = tokens.premium.map_or_else(|| grouped(tokens.n_tokens), |premium| format!("{premium:.2}"));
            match (tokens.tokens_per_word, tokens.tokens_per_character) {
                (Some(per_word), _) => format!("{first} ({per_word:.2})"),
                (None, Some(per_character)) => format!("{first} ‹{per_character:.2}›"),
                (None, None) => first,
            }
        });
        [shortened(&language.language)].into_iter().chain(cells).collect()
    };
    let mut rows: Vec<Vec<String>> = languages.iter().map(row).collect();
    if rows.len() > N_LANGUAGES {
        let n_more = rows.len() - N_LANGUAGES;
        let between = [format!("… {n_more} more")].into_iter().chain(names.iter().skip(1).map(|_| String::new()));
        rows.splice(N_LANGUAGES / 2..N_LANGUAGES / 2 + n_more, [between.collect()]);
    }
    text + &columns(&names, &rows)
}

/// The tokens of the first characters, and whether there are more.
fn beginning(spans: &[Span], n_characters: usize) -> (&[Span], bool) {
    let mut n_bytes = 0;
    let n = spans
        .iter()
        .take_while(|span| {
            let is_in = n_bytes < n_characters;
            n_bytes += span.bytes.len();
            is_in
        })
        .count();
    (&spans[..n], n < spans.len())
}
