//! The charts of a run: loss by step and by time, learning rate, gradient norm, throughput.

use super::axis::Scale;
use super::chart::{self, Chart, Series, Style};
use super::curves::{Points, points, smoothed, start_to_cut, thinned, window};
use super::page::section;
use super::text::grouped;
use crate::metrics::Record;

/// Loss by step and by time, behind two tabs that need no script; print shows both.
pub(super) fn loss_section(records: &[Record]) -> String {
    let by_step = loss_chart(records, "loss-by-step", "step", |r| r.step as f64);
    let (unit, unit_seconds) = time_unit(records);
    let by_time = loss_chart(records, "loss-by-time", unit, move |r| r.elapsed_seconds / unit_seconds);
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
    let losses = points(records, x, |r| Some(r.loss));
    let cut = start_to_cut(&losses);
    let note = match cut {
        Some((_, 1)) => "Not shown: the loss of the first step, above the axis.".into(),
        Some((_, n)) => {
            format!("Not shown: loss above the axis in the first {} steps.", grouped(n as i64))
        }
        None => String::new(),
    };
    let validation = points(records, x, |r| r.validation.as_ref().map(|v| v.loss));
    // Only the start may leave the plot: a validation loss that rises later is the thing to see.
    let y_cut = cut.map(|(cut, n_above)| {
        let end_of_start = losses[n_above].0;
        let late = validation.iter().filter(|p| p.0 >= end_of_start);
        late.map(|p| p.1).fold(cut, f64::max)
    });
    let mut series = raw_and_smoothed("training, ", losses);
    series.push(Series { name: "validation".into(), style: Style::Dots, points: thinned(validation) });
    chart::figure(&Chart {
        id,
        title: "Cross-entropy",
        x_label,
        y_label: "loss (nats per token)",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        y_from_zero: false,
        y_cut,
        note,
        size: (1040.0, 380.0),
        series,
    })
}

/// A smoothed curve before its pale raw values, or the values alone if they are few.
fn raw_and_smoothed(prefix: &str, points: Points) -> Vec<Series> {
    let window = window(points.len());
    if window == 1 {
        return vec![Series { name: format!("{prefix}each step"), style: Style::Line, points: thinned(points) }];
    }
    vec![
        Series {
            name: format!("{prefix}mean of {window} steps"),
            style: Style::Line,
            points: thinned(smoothed(&points)),
        },
        Series { name: format!("{prefix}each step"), style: Style::Raw, points: thinned(points) },
    ]
}

pub(super) fn dynamics_section(records: &[Record]) -> String {
    let by_step = |y: fn(&Record) -> Option<f64>| points(records, |r| r.step as f64, y);
    let mfu = by_step(|r| r.mfu.map(|mfu| 100.0 * mfu));
    // Three charts share a row, four make two rows.
    let size = if mfu.is_empty() { (336.0, 230.0) } else { (508.0, 250.0) };
    let chart = |id, title, y_label, y_scale, series| {
        let y_from_zero = y_scale == Scale::Linear;
        let x_label = "step";
        let (y_cut, note) = (None, String::new());
        let x_scale = Scale::Linear;
        Chart { id, title, x_label, y_label, x_scale, y_scale, y_from_zero, y_cut, note, size, series }
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
            raw_and_smoothed("", grad_norm),
        ),
        chart(
            "throughput",
            "Throughput",
            "tokens per second",
            Scale::Linear,
            raw_and_smoothed("", by_step(|r| Some(r.tokens_per_second))),
        ),
    ];
    if !mfu.is_empty() {
        charts.push(chart("mfu", "Model FLOPs utilisation", "% of peak", Scale::Linear, raw_and_smoothed("", mfu)));
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
