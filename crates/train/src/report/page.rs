//! The page: sections in reading order, from results to the small print.

use std::fmt::Write;

use super::figures::metrics_section;
use super::run_charts::{dynamics_section, loss_section};
use super::tables::{pairs_table, table};
use super::text::{escape, number};
use super::{Baseline, Report, Sample};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A whole document in the style of all reports: `content` is HTML, and `kicker` and `title` are plain text above it;
/// `style` and `script` are added to those of the charts.
pub fn document(kicker: &str, title: &str, content: &str, style: &str, script: &str) -> String {
    let (kicker, title) = (escape(kicker), escape(title));
    // The policy forbids every request, so that not even a mistake in escaping could make one.
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n\
         <header><p class=\"kicker\">{kicker}</p><h1>{title}</h1></header>\n{content}</main>\n\
         <script>\n{SCRIPT}{script}</script>\n</body>\n</html>\n"
    )
}

/// The page of a run.
pub(super) fn html(report: &Report) -> String {
    let mut page = tiles(&report.summary);
    page.push_str(&loss_section(report.records));
    page.push_str(&dynamics_section(report.records));
    page.push_str(&baseline_section(&report.baselines));
    page.push_str(&sample_section(&report.samples));
    if !report.tables.is_empty() {
        let tables: String = report.tables.iter().map(table).collect();
        page.push_str(&section("Accounting", &format!("<div class=\"tables\">{tables}</div>\n")));
    }
    page.push_str(&metrics_section(report.records));
    if !report.machine.is_empty() {
        page.push_str(&section("Machine", &pairs_table(&report.machine)));
    }
    if !report.config.is_empty() {
        let config = format!("<pre class=\"config\">{}</pre>\n", escape(report.config.trim_end()));
        page.push_str(&section("Config", &config));
    }
    document("Cupola training report", &report.title, &page, "", "")
}

/// A part of a page: `title` and `content` are HTML.
pub fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// Results that matter most, as `(label, value with unit)`; nothing if there are none.
pub fn tiles(summary: &[(String, String)]) -> String {
    if summary.is_empty() {
        return String::new();
    }
    let tiles: String = summary
        .iter()
        .map(|(label, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(label), escape(value)))
        .collect();
    format!("<dl class=\"tiles\">\n{tiles}</dl>\n")
}

fn baseline_section(baselines: &[Baseline]) -> String {
    if baselines.is_empty() {
        return String::new();
    }
    let longest = baselines.iter().map(|b| b.bits_per_byte).filter(|bits| bits.is_finite()).fold(0.0, f64::max);
    let mut rows = String::new();
    for baseline in baselines {
        let share = match baseline.bits_per_byte / longest {
            share if share.is_finite() => (100.0 * share).clamp(0.0, 100.0),
            _ => 0.0,
        };
        let class = if baseline.is_this_run { " class=\"this-run\"" } else { "" };
        let _ = writeln!(
            rows,
            "<tr{class}><th scope=\"row\">{}</th><td class=\"bar\">\
             <svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect width=\"{share:.2}\" height=\"10\"/></svg></td><td class=\"number\">{}</td></tr>",
            escape(&baseline.name),
            two_decimals(baseline.bits_per_byte)
        );
    }
    let table = format!(
        "<table class=\"bars\">\n<caption>Bits per byte of the held-out text; lower is better.</caption>\n\
         <tbody>\n{rows}</tbody>\n</table>\n"
    );
    section("Held-out text", &table)
}

fn two_decimals(value: f64) -> String {
    if value.is_finite() && value.abs() < 1e6 { format!("{value:.2}") } else { number(value) }
}

fn sample_section(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut figures = String::new();
    for sample in samples {
        let _ = write!(
            figures,
            "<figure class=\"sample\"><blockquote dir=\"auto\"><b>{}</b>{}</blockquote>",
            escape(&sample.prompt),
            escape(&sample.text)
        );
        if !sample.settings.is_empty() {
            let _ = write!(figures, "<figcaption>{}</figcaption>", escape(&sample.settings));
        }
        figures.push_str("</figure>\n");
    }
    section("Samples", &format!("<div class=\"samples\">\n{figures}</div>\n"))
}
