//! The page: sections in reading order, from results to the small print.

use std::fmt::Write;

use super::axis::Scale;
use super::chart::{self, Chart, Series, Style};
use super::curves::{Points, points, smoothed, thinned, window};
use super::text::{duration, escape, grouped, number};
use super::{Baseline, Report, Sample, Table};
use crate::metrics::Record;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The whole document.
pub(super) fn html(report: &Report) -> String {
    let title = escape(&report.title);
    // The policy forbids every request, so that not even a mistake in escaping could make one.
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><p class=\"kicker\">Cupola training report</p><h1>{title}</h1></header>\n"
    );
    page.push_str(&tiles(&report.summary));
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
    let _ = write!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

fn tiles(summary: &[(String, String)]) -> String {
    if summary.is_empty() {
        return String::new();
    }
    let tiles: String = summary
        .iter()
        .map(|(label, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(label), escape(value))
        })
        .collect();
    format!("<dl class=\"tiles\">\n{tiles}</dl>\n")
}

/// Loss by step and by time, behind two tabs that need no script; print shows both.
fn loss_section(records: &[Record]) -> String {
    let by_step = loss_chart(records, "loss-by-step", "step", |r| r.step as f64);
    let (unit, unit_seconds) = time_unit(records);
    let by_time =
        loss_chart(records, "loss-by-time", unit, move |r| r.elapsed_seconds / unit_seconds);
    let tabs = format!(
        "<div class=\"tabs\">\n\
         <input type=\"radio\" name=\"loss-axis\" id=\"tab-step\" checked>\
         <label for=\"tab-step\">by step</label>\n\
         <input type=\"radio\" name=\"loss-axis\" id=\"tab-time\">\
         <label for=\"tab-time\">by time</label>\n\
         <div class=\"panel step\">{by_step}</div>\n<div class=\"panel time\">{by_time}</div>\n</div>\n"
    );
    section("Loss", &tabs)
}

/// A unit of time in which the run has at least two, as name for the axis and in seconds.
fn time_unit(records: &[Record]) -> (&'static str, f64) {
    let longest = records.iter().map(|r| r.elapsed_seconds).fold(0.0, f64::max);
    match longest {
        7200.0.. => ("training time (hours)", 3600.0),
        120.0.. => ("training time (minutes)", 60.0),
        _ => ("training time (seconds)", 1.0),
    }
}

fn loss_chart(
    records: &[Record],
    id: &'static str,
    x_label: &'static str,
    x: impl Fn(&Record) -> f64 + Copy,
) -> String {
    let mut series = raw_and_smoothed("training", points(records, x, |r| Some(r.loss)));
    series.push(Series {
        name: "validation".into(),
        style: Style::Dots,
        points: thinned(points(records, x, |r| r.validation.as_ref().map(|v| v.loss))),
    });
    chart::figure(&Chart {
        id,
        title: "Cross-entropy",
        x_label,
        y_label: "loss (nats per token)",
        y_scale: Scale::Linear,
        y_from_zero: false,
        size: (1040.0, 380.0),
        series,
    })
}

/// A smoothed curve before its pale raw values, or the values alone if they are few.
fn raw_and_smoothed(name: &str, points: Points) -> Vec<Series> {
    let window = window(points.len());
    if window == 1 {
        return vec![Series { name: name.into(), style: Style::Line, points: thinned(points) }];
    }
    vec![
        Series {
            name: format!("{name}, mean of {window} steps"),
            style: Style::Line,
            points: thinned(smoothed(&points)),
        },
        Series { name: name.into(), style: Style::Raw, points: thinned(points) },
    ]
}

fn dynamics_section(records: &[Record]) -> String {
    let by_step = |y: fn(&Record) -> Option<f64>| points(records, |r| r.step as f64, y);
    let mfu = by_step(|r| r.mfu.map(|mfu| 100.0 * mfu));
    // Three charts share a row, four make two rows.
    let size = if mfu.is_empty() { (336.0, 230.0) } else { (508.0, 250.0) };
    let chart = |id, title, y_label, y_scale, series| {
        let y_from_zero = y_scale == Scale::Linear;
        let x_label = "step";
        Chart { id, title, x_label, y_label, y_scale, y_from_zero, size, series }
    };

    let grad_norm = by_step(|r| Some(r.grad_norm));
    let grad_norm_scale = if spans_decades(&grad_norm) { Scale::Log } else { Scale::Linear };
    let mut charts = vec![
        chart(
            "learning-rate",
            "Learning rate",
            "learning rate",
            Scale::Linear,
            vec![Series {
                name: "learning rate".into(),
                style: Style::Line,
                points: thinned(by_step(|r| Some(r.learning_rate))),
            }],
        ),
        chart(
            "grad-norm",
            "Gradient norm",
            "L2 norm before clipping",
            grad_norm_scale,
            raw_and_smoothed("gradient norm", grad_norm),
        ),
        chart(
            "throughput",
            "Throughput",
            "tokens per second",
            Scale::Linear,
            raw_and_smoothed("tokens per second", by_step(|r| Some(r.tokens_per_second))),
        ),
    ];
    if !mfu.is_empty() {
        charts.push(chart(
            "mfu",
            "Model FLOPs utilisation",
            "% of peak",
            Scale::Linear,
            raw_and_smoothed("MFU", mfu),
        ));
    }
    let figures: String = charts.iter().map(chart::figure).collect();
    let columns = if charts.len() == 3 { "three" } else { "two" };
    section("Dynamics", &format!("<div class=\"charts {columns}\">\n{figures}</div>\n"))
}

/// Whether the values need a logarithmic axis: all positive and some 20 times others.
fn spans_decades(points: &Points) -> bool {
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(0.0, f64::max);
    low > 0.0 && high > 20.0 * low
}

fn baseline_section(baselines: &[Baseline]) -> String {
    if baselines.is_empty() {
        return String::new();
    }
    let longest = baselines
        .iter()
        .map(|b| b.bits_per_byte)
        .filter(|bits| bits.is_finite())
        .fold(0.0, f64::max);
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

fn table(table: &Table) -> String {
    let n_columns = table.rows.iter().map(Vec::len).chain([table.header.len()]).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| escape(row.get(column).map_or("", |s| s));
    let class = |column: usize| match is_numeric(table, column) {
        true => " class=\"number\"",
        false => "",
    };
    let mut html = String::from("<div class=\"table\"><table>\n");
    let _ = writeln!(html, "<caption>{}</caption>", escape(&table.title));
    if !table.header.is_empty() {
        html.push_str("<thead><tr>");
        for column in 0..n_columns {
            let text = cell(&table.header, column);
            let _ = write!(html, "<th scope=\"col\"{}>{text}</th>", class(column));
        }
        html.push_str("</tr></thead>\n");
    }
    html.push_str("<tbody>\n");
    for row in &table.rows {
        html.push_str("<tr>");
        for column in 0..n_columns {
            let _ = write!(html, "<td{}>{}</td>", class(column), cell(row, column));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n");
    if !table.note.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&table.note));
    }
    html.push_str("</div>\n");
    html
}

/// Whether every filled cell of a column starts like a number; units may follow.
fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells =
        table.rows.iter().filter_map(|row| row.get(column)).filter(|s| !s.is_empty()).peekable();
    cells.peek().is_some()
        && cells.all(|s| {
            s.trim_start_matches(['-', '+', '~', '≈', '<', '−'])
                .starts_with(|c: char| c.is_ascii_digit())
                || s == "–"
        })
}

fn pairs_table(pairs: &[(String, String)]) -> String {
    let rows: String = pairs
        .iter()
        .map(|(name, value)| {
            format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value))
        })
        .collect();
    format!("<table class=\"pairs\">\n<tbody>\n{rows}</tbody>\n</table>\n")
}

/// The run in figures, all derived from its records.
fn metrics_section(records: &[Record]) -> String {
    let Some(last) = records.last() else {
        return String::new();
    };
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |label: &str, value: String| rows.push((label.into(), value));
    let at = |value: f64, step: f64| format!("{} at step {}", number(value), grouped(step as i64));
    let by_step = |y: fn(&Record) -> Option<f64>| points(records, |r| r.step as f64, y);
    let lowest = |points: &Points| points.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    let highest = |points: &Points| points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));

    row("Steps recorded", grouped(records.len() as i64));
    row("Training tokens", grouped(i64::try_from(last.tokens).unwrap_or(i64::MAX)));
    row("Training time", duration(last.elapsed_seconds));

    let losses = by_step(|r| Some(r.loss));
    let n_last = window(losses.len()).min(losses.len());
    if n_last > 0 {
        let tail = &losses[losses.len() - n_last..];
        let mean = tail.iter().map(|p| p.1).sum::<f64>() / n_last as f64;
        let over = if n_last == 1 { String::new() } else { format!(", mean of {n_last} steps") };
        row("Final training loss", format!("{} nats per token{over}", number(mean)));
    }
    let validation = by_step(|r| r.validation.as_ref().map(|v| v.loss));
    if let (Some(best), Some(last)) = (lowest(&validation), validation.last()) {
        row("Best validation loss", at(best.1, best.0));
        row("Final validation loss", at(last.1, last.0));
    }
    let bits = by_step(|r| r.validation.as_ref()?.bits_per_byte);
    if let Some(best) = lowest(&bits) {
        row("Best validation bits per byte", at(best.1, best.0));
    }
    if let Some(peak) = highest(&by_step(|r| Some(r.learning_rate))) {
        row("Peak learning rate", at(peak.1, peak.0));
    }
    if let Some(peak) = highest(&by_step(|r| Some(r.grad_norm))) {
        row("Largest gradient norm", at(peak.1, peak.0));
    }
    if let Some(median) = median(&by_step(|r| Some(r.tokens_per_second))) {
        row("Median tokens per second", number(median));
    }
    if let Some(median) = median(&by_step(|r| r.mfu)) {
        row("Median model FLOPs utilisation", format!("{:.1}%", 100.0 * median));
    }
    section("Figures", &pairs_table(&rows))
}

fn median(points: &Points) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
