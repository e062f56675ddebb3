//! The comparison as a page of its own, in the style of a run's report.

use std::fmt::Write;

use tokenizer::measure::{Span, SpanPart};
use train::report::{
    Chart, N_COLOURS, Points, Scale, Series, Style, Table, document, escape, figure, section, table, thinned, tiles,
};

use super::outcome::{Compared, Figures, Longest, Outcome, Sample, Tokens};
use super::shown::{hexadecimal, visible};
use super::terminal::rows;
use crate::ui::units::{bytes, compact, grouped, percent};

const STYLE: &str = include_str!("page.css");
/// Longer tokens are so rare that they would press the others together.
const MAX_LENGTH: usize = 24;

pub(super) fn html(outcome: &Outcome) -> String {
    let mut page = String::new();
    if let Some(size) = &outcome.text {
        let tile = |name: &str, value: String| (name.to_owned(), value);
        page += &tiles(&[
            tile("text", bytes(size.n_bytes)),
            tile("characters", compact(size.n_characters as f64)),
            tile("words between white space", compact(size.n_words as f64)),
            tile("tokenizers", outcome.tokenizers.len().to_string()),
        ]);
    }
    page += &bytes_per_token(outcome);
    page += &accounts(outcome);
    page += &outcome.sample.as_ref().map_or(String::new(), |sample| tokens(outcome, sample));
    page += &charts(outcome);
    page += &languages(outcome);
    page += &longest(outcome);
    let names: Vec<&str> = outcome.tokenizers.iter().map(|one| one.name.as_str()).collect();
    document("Cupola tokenizer comparison", &names.join(" · "), &page, STYLE, "")
}

/// The tokenizers with their place and figures, if a text was measured.
fn measured(outcome: &Outcome) -> impl Iterator<Item = (usize, &Compared, &Figures)> {
    outcome.tokenizers.iter().enumerate().filter_map(|(i, one)| Some((i, one, one.figures.as_ref()?)))
}

fn bar(i: usize, share: f64) -> String {
    let share = if share.is_finite() { (100.0 * share).clamp(0.0, 100.0) } else { 0.0 };
    format!(
        "<svg class=\"nth nth-{}\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect width=\"{share:.2}\" height=\"10\"/></svg>",
        i % N_COLOURS
    )
}

fn bytes_per_token(outcome: &Outcome) -> String {
    let value = |figures: &Figures| figures.bytes_per_token.unwrap_or(0.0);
    let longest = measured(outcome).map(|(_, _, figures)| value(figures)).fold(0.0, f64::max);
    if longest == 0.0 {
        return String::new();
    }
    let mut rows = String::new();
    for (i, one, figures) in measured(outcome) {
        let (mut name, value) = (escape(&one.name), value(figures));
        // A token of anything unknown makes any text short.
        let unknown = figures.n_unknown as f64 / figures.n_tokens.max(1) as f64;
        if unknown >= 0.001 {
            let _ = write!(name, " ({} unknown)", percent(unknown));
        }
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td class=\"bar\">{}</td><td class=\"number\">{value:.2}</td></tr>",
            bar(i, value / longest)
        );
    }
    let table = format!(
        "<table class=\"bars\">\n<caption>The more bytes a token stands for, the shorter is the text for a \
         model.</caption>\n<tbody>\n{rows}</tbody>\n</table>\n"
    );
    section("Bytes per token", &table)
}

fn accounts(outcome: &Outcome) -> String {
    let header = [String::new()].into_iter().chain(outcome.tokenizers.iter().map(|one| one.name.clone())).collect();
    let (title, note) = match outcome.text {
        Some(_) => (
            "All of the text",
            "Words are what stands between white space. Special tokens are no part of the ids that a text can use. Rényi's \
             entropy over that of an even use of all ids says how evenly the vocabulary is used. The speed is that of \
             encoding alone, once.",
        ),
        None => ("Vocabularies", ""),
    };
    let rows = rows(&outcome.tokenizers, outcome.threads);
    section("In figures", &table(&Table { title: title.to_owned(), header, rows, note: note.to_owned() }))
}

fn tokens(outcome: &Outcome, sample: &Sample) -> String {
    let mut figures = String::new();
    for (one, shown) in outcome.tokenizers.iter().zip(&sample.tokenizers) {
        let cut = if sample.is_cut { ", the text goes on" } else { "" };
        let _ = write!(
            figures,
            "<figure><figcaption><h3>{}</h3><span>{} tokens{cut}</span></figcaption>\n<div class=\"tokens\" dir=\"auto\">",
            escape(&one.name),
            grouped(shown.ids.len() as u64)
        );
        for (i, span) in shown.spans.iter().enumerate() {
            figures += &token(i, span);
        }
        figures += "</div></figure>\n";
    }
    section("Token by token", &format!("<div class=\"tokenized\">\n{figures}</div>\n"))
}

fn token(i: usize, span: &Span) -> String {
    let mut title = format!("id {} · {} bytes: {}", span.id, span.bytes.len(), hexadecimal(&span.bytes));
    let mut shown = String::new();
    for part in &span.parts {
        match part {
            SpanPart::Text(text) => {
                for c in text.chars() {
                    let (itself, visible) = (c.to_string(), visible(&c.to_string()));
                    let is_itself = visible == itself;
                    let visible = escape(&visible);
                    shown += &if is_itself { visible } else { format!("<i>{visible}</i>") };
                }
            }
            SpanPart::Bytes { bytes, of } => {
                let _ = match of {
                    Some(c) => write!(title, " · part of {}", visible(&c.to_string())),
                    None => write!(title, " · no UTF-8"),
                };
                let _ = write!(shown, "<small>{}</small>", hexadecimal(bytes));
            }
        }
    }
    // Visible spaces are no places to break a line.
    let may_break = if span.bytes.first().is_some_and(u8::is_ascii_whitespace) { "<wbr>" } else { "" };
    format!("{may_break}<span class=\"t{}\" title=\"{}\">{shown}</span>", i % 6, escape(&title))
}

fn charts(outcome: &Outcome) -> String {
    let series = |points: &dyn Fn(&Figures) -> Points| {
        let one = |(i, one, figures): (usize, &Compared, &Figures)| Series {
            name: one.name.clone(),
            style: Style::Nth(i),
            points: thinned(points(figures)),
        };
        measured(outcome).map(one).collect::<Vec<Series>>()
    };
    let lengths = |figures: &Figures| {
        let share =
            |n: usize| figures.n_tokens_by_length.get(&n).map_or(0.0, |&count| count as f64 / figures.n_tokens as f64);
        let longest = figures.n_tokens_by_length.keys().last().copied().unwrap_or(0).min(MAX_LENGTH);
        (1..=longest).map(|n| (n as f64, 100.0 * share(n))).collect()
    };
    let ranks = |figures: &Figures| {
        // Ranks at equal distances along a logarithmic axis.
        let mut ranks: Vec<usize> = (0..=400).map(|i| 10f64.powf(f64::from(i) / 50.0) as usize).collect();
        ranks.retain(|&rank| rank <= figures.frequencies.len());
        ranks.push(figures.frequencies.len());
        ranks.dedup();
        let point = |rank: usize| Some((rank as f64, *figures.frequencies.get(rank.checked_sub(1)?)? as f64));
        ranks.into_iter().filter_map(point).collect()
    };
    if measured(outcome).next().is_none() {
        return String::new();
    }
    let chart = |id, title, x_label, y_label, scale: Scale, series: Vec<Series>| Chart {
        id,
        title,
        x_label,
        y_label,
        x_scale: scale,
        y_scale: scale,
        y_from_zero: true,
        y_cut: None,
        note: String::new(),
        size: (508.0, 300.0),
        series,
    };
    let lengths =
        chart("lengths", "Lengths of tokens", "bytes of a token", "% of the tokens", Scale::Linear, series(&lengths));
    let ranks = chart("ranks", "Frequencies of tokens", "rank of an id", "occurrences", Scale::Log, series(&ranks));
    section("Distributions", &format!("<div class=\"charts two\">\n{}{}</div>\n", figure(&lengths), figure(&ranks)))
}

fn languages(outcome: &Outcome) -> String {
    if outcome.languages.is_empty() {
        return String::new();
    }
    let value = |tokens: &Tokens| tokens.premium.unwrap_or(tokens.n_tokens as f64);
    let longest =
        outcome.languages.iter().flat_map(|language| language.tokenizers.iter().map(value)).fold(0.0, f64::max);
    let mut rows = String::new();
    for language in &outcome.languages {
        let class = if outcome.base.as_ref() == Some(&language.language) { " class=\"is-base\"" } else { "" };
        let tokens = || language.tokenizers.iter().enumerate();
        let bars: String = tokens().map(|(i, tokens)| bar(i, value(tokens) / longest)).collect();
        let numbers: String = tokens()
            .map(|(_, tokens)| {
                let number = tokens.premium.map_or_else(|| grouped(tokens.n_tokens), |premium| format!("{premium:.2}"));
                let title = match (tokens.tokens_per_word, tokens.tokens_per_character) {
                    (Some(per_word), _) => format!("{per_word:.2} tokens per word"),
                    (None, Some(per_character)) => format!("{per_character:.2} tokens per character"),
                    (None, None) => String::new(),
                };
                format!("<td class=\"number\" title=\"{} tokens; {title}\">{number}</td>", grouped(tokens.n_tokens))
            })
            .collect();
        let name = escape(&language.language);
        let _ = writeln!(rows, "<tr{class}><th scope=\"row\">{name}</th><td class=\"bar\">{bars}</td>{numbers}</tr>");
    }
    let keys: String = outcome
        .tokenizers
        .iter()
        .enumerate()
        .map(|(i, one)| {
            let name = escape(&one.name);
            format!("<th scope=\"col\" class=\"number nth-{}\"><span class=\"key\"></span>{name}</th>", i % N_COLOURS)
        })
        .collect();
    let caption = match &outcome.base {
        Some(base) => format!("How many times the tokens of {} a language takes for the same text.", escape(base)),
        None => "Tokens of the same text.".to_owned(),
    };
    let table = format!(
        "<p class=\"muted\">{caption}</p>\n<div class=\"scroll\"><table class=\"bars languages\">\n\
         <thead><tr><th></th><th></th>{keys}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    );
    section("By language", &table)
}

fn longest(outcome: &Outcome) -> String {
    let one = |(_, one, figures): (usize, &Compared, &Figures)| {
        let row = |token: &Longest| {
            let share = percent(token.count as f64 / figures.n_tokens.max(1) as f64);
            let text: String = token.text.chars().take(200).collect();
            vec![visible(&text), token.n_bytes.to_string(), token.id.to_string(), grouped(token.count), share]
        };
        table(&Table {
            title: one.name.clone(),
            header: ["token", "bytes", "id", "occurrences", "of all tokens"].map(str::to_owned).to_vec(),
            rows: figures.longest_tokens.iter().map(row).collect(),
            note: String::new(),
        })
    };
    let tables: String = measured(outcome).map(one).collect();
    match tables.is_empty() {
        true => tables,
        false => section("Longest tokens of the text", &format!("<div class=\"tables\">{tables}</div>\n")),
    }
}
