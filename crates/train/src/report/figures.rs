//! The run in figures: final and best values.

use super::curves::{Points, points, window};
use super::page::section;
use super::tables::pairs_table;
use super::text::{duration, grouped, number};
use crate::metrics::Record;

/// The run in figures, all derived from its records.
pub(super) fn metrics_section(records: &[Record]) -> String {
    let Some(last) = records.last() else {
        return String::new();
    };
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |label: &str, value: String| rows.push((label.into(), value));
    let at = |value: f64, step: f64| format!("{} at step {}", number(value), grouped(step as i64));
    let by_step = |y: fn(&Record) -> Option<f64>| points(records, |r| r.step as f64, y);
    let lowest = |points: &Points| points.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    // Of equal ones the first.
    let highest = |points: &Points| points.iter().copied().rev().max_by(|a, b| a.1.total_cmp(&b.1));

    row("Steps recorded", grouped(records.len() as i64));
    row("Training tokens", grouped(i64::try_from(last.tokens).unwrap_or(i64::MAX)));
    row("Training time", duration(last.elapsed_seconds));

    let losses = by_step(|r| Some(r.loss));
    let n_last = window(losses.len()).min(losses.len());
    if let Some(&(step, loss)) = losses.first() {
        row("First training loss", at(loss, step));
    }
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
