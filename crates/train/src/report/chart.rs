//! One line chart as inline SVG, with what the script needs to show values under the pointer.

use std::fmt::Write;

use super::axis::{Axis, Scale};
use super::curves::Points;
use super::text::{escape, number, trimmed};

/// A chart of curves over a common x axis.
pub struct Chart {
    /// Unique within the page; part of element ids.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// What is along the x axis, with its unit.
    pub x_label: &'static str,
    /// What is along the y axis, with its unit.
    pub y_label: &'static str,
    /// How x becomes a length.
    pub x_scale: Scale,
    /// How y becomes a length.
    pub y_scale: Scale,
    /// Whether a linear y axis begins at 0.
    pub y_from_zero: bool,
    /// Where the y axis ends at most; curves above leave the plot. Say so in `note`.
    pub y_cut: Option<f64>,
    /// A remark beside the legend; may be empty.
    pub note: String,
    /// Width and height in SVG units, about a CSS pixel each.
    pub size: (f64, f64),
    /// The curves; those without points are left out.
    pub series: Vec<Series>,
}

/// One curve.
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// How it is drawn.
    pub style: Style,
    /// In order of x, all finite.
    pub points: Points,
}

/// How a curve is drawn; the name is its CSS class.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A thin, pale line: raw values behind a smoothed curve.
    Raw,
    /// The line to look at.
    Line,
    /// Dots joined by a line: values measured now and then.
    Dots,
    /// One of several lines that are to be told apart: its number, from 0. Colours repeat after
    /// [`N_COLOURS`].
    Nth(usize),
}

/// Lines that have a colour of their own.
pub const N_COLOURS: usize = 8;

impl Style {
    fn class(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Line => "line",
            Self::Dots => "dots",
            Self::Nth(n) => {
                ["nth nth-0", "nth nth-1", "nth nth-2", "nth nth-3", "nth nth-4", "nth nth-5", "nth nth-6", "nth nth-7"]
                    [n % N_COLOURS]
            }
        }
    }
}

// Space around the plot for tick labels and axis names.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// More dots than this would cover each other; the line alone stays.
const MAX_DOTS: usize = 60;

/// The chart as a `figure` with heading and legend.
pub fn figure(chart: &Chart) -> String {
    let series: Vec<&Series> = chart.series.iter().filter(|s| !s.points.is_empty()).collect();
    let mut html = format!("<figure class=\"chart\" data-chart=\"{}\">\n", data(chart, &series));
    let _ = write!(html, "<figcaption><h3>{}</h3>", escape(chart.title));
    if series.len() > 1 {
        html.push_str("<ul class=\"legend\">");
        for s in &series {
            let _ = write!(html, "<li class=\"{}\">{}</li>", s.style.class(), escape(&s.name));
        }
        html.push_str("</ul>");
    }
    if !chart.note.is_empty() {
        let _ = write!(html, "<p class=\"cut\">{}</p>", escape(&chart.note));
    }
    html.push_str("</figcaption>\n");
    match series.is_empty() {
        true => html.push_str("<p class=\"empty\">No values were recorded.</p>\n"),
        false => html.push_str(&svg(chart, &series)),
    }
    html.push_str("</figure>\n");
    html
}

fn axes(chart: &Chart, series: &[&Series]) -> (Axis, Axis) {
    let all = || series.iter().flat_map(|s| &s.points);
    let n_x_ticks = (chart.size.0 / 70.0) as usize;
    let x = match chart.x_scale {
        Scale::Linear => Axis::tight(all().map(|p| p.0), n_x_ticks.max(2)),
        Scale::Log => Axis::log(all().map(|p| p.0)),
    };
    let zero = chart.y_from_zero.then_some(0.0);
    let y_values = || all().map(|p| p.1.min(chart.y_cut.unwrap_or(f64::INFINITY)));
    let y = match chart.y_scale {
        Scale::Linear => Axis::rounded(y_values().chain(zero), 6),
        Scale::Log => Axis::log(y_values()),
    };
    (x, y)
}

fn svg(chart: &Chart, series: &[&Series]) -> String {
    let (width, height) = chart.size;
    let (right, bottom) = (width - RIGHT, height - BOTTOM);
    let (x_axis, y_axis) = axes(chart, series);
    let x_at = |value: f64| LEFT + x_axis.position(value) * (right - LEFT);
    let y_at = |value: f64| bottom - y_axis.position(value) * (bottom - TOP);

    let id = chart.id;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
         <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n",
        escape(chart.title),
        escape(&description(chart, series))
    );

    svg.push_str("<g class=\"grid\">");
    for (tick, label) in &y_axis.ticks {
        let y = coordinate(y_at(*tick));
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{y}\" dy=\"0.32em\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0
        );
    }
    for (tick, label) in &x_axis.ticks {
        let x = coordinate(x_at(*tick));
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"{bottom}\" y2=\"{}\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 5.0,
            bottom + 19.0
        );
    }
    let _ = write!(
        svg,
        "</g>\n<line class=\"base\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n\
         <text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
         <text class=\"name\" transform=\"translate(12 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        coordinate((LEFT + right) / 2.0),
        height - 6.0,
        escape(chart.x_label),
        coordinate((TOP + bottom) / 2.0),
        escape(chart.y_label)
    );

    let _ = writeln!(
        svg,
        "<clipPath id=\"{id}-clip\"><rect x=\"0\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\"/></clipPath>"
    );
    for s in series {
        let _ = write!(svg, "<g class=\"{}\" clip-path=\"url(#{id}-clip)\">", s.style.class());
        let mut path = String::new();
        for (i, &(x, y)) in s.points.iter().enumerate() {
            let command = if i == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{} {}", coordinate(x_at(x)), coordinate(y_at(y)));
        }
        if s.points.len() > 1 {
            let _ = write!(svg, "<path d=\"{path}\"/>");
        }
        // A lone point makes no line, so it is a dot in any style.
        let has_dots = s.style == Style::Dots && s.points.len() <= MAX_DOTS;
        if has_dots || s.points.len() == 1 {
            for &(x, y) in &s.points {
                let (x, y) = (coordinate(x_at(x)), coordinate(y_at(y)));
                let _ = write!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>");
            }
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("<g class=\"cursor\"></g>\n</svg>\n");
    svg
}

/// What the chart shows, in words.
fn description(chart: &Chart, series: &[&Series]) -> String {
    let mut text = format!("{} over {}.", chart.y_label, chart.x_label);
    for s in series.iter().filter(|s| s.style != Style::Raw) {
        let (first, last) = (s.points[0], s.points[s.points.len() - 1]);
        let low = s.points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = s.points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let _ = write!(
            text,
            " {}: from {} at {} to {} at {}, lowest {}, highest {}.",
            s.name,
            number(first.1),
            number(first.0),
            number(last.1),
            number(last.0),
            number(low),
            number(high)
        );
    }
    text
}

/// The plot's place and the points as JSON, escaped for an attribute.
fn data(chart: &Chart, series: &[&Series]) -> String {
    let (width, height) = chart.size;
    let (x_axis, y_axis) = axes(chart, series);
    // More digits than anyone reads would double the size of the page.
    let digits = |value: f64| -> f64 { format!("{value:.6e}").parse().unwrap_or(value) };
    let json = serde_json::json!({
        "plot": [LEFT, TOP, width - RIGHT, height - BOTTOM],
        "x": [x_axis.low, x_axis.high],
        "y": [y_axis.low, y_axis.high],
        "xLog": x_axis.scale == Scale::Log,
        "log": y_axis.scale == Scale::Log,
        "xName": chart.x_label,
        "series": series.iter().map(|s| serde_json::json!({
            "name": s.name,
            "style": s.style.class(),
            "points": s.points.iter().map(|&(x, y)| [digits(x), digits(y)]).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    escape(&json.to_string())
}

/// A coordinate to a tenth of a pixel.
fn coordinate(value: f64) -> String {
    trimmed(format!("{value:.1}"))
}
