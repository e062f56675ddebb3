use super::*;
use crate::metrics::Validation;

fn records(n: u64) -> Vec<Record> {
    (0..n)
        .map(|step| Record {
            step,
            tokens: 4096 * (step + 1),
            elapsed_seconds: 0.09 * (step + 1) as f64,
            loss: 3.0 + 5.0 * (-(step as f64) / 150.0).exp(),
            grad_norm: 0.8,
            learning_rate: 1e-3,
            tokens_per_second: 45_000.0,
            mfu: None,
            device_memory_bytes: None,
            validation: (step % 100 == 99)
                .then(|| Validation { loss: 3.5 - step as f64 / 1e4, bits_per_byte: Some(2.2) }),
        })
        .collect()
}

fn page(report: &Report) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("report.html");
    write(&path, report).expect("written");
    std::fs::read_to_string(path).expect("text")
}

fn text(text: &str) -> String {
    text.into()
}

/// Checks that tags and quotes balance, as a browser's parser would have it without repairs.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 5] = ["!doctype", "meta", "link", "input", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| !" />\n".contains(*c)).collect();
        rest = after;
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(&name[..]), "closed by </{name}>");
        } else if !tag.ends_with('/') && !VOID.contains(&&name[..]) {
            if name == "script" || name == "style" {
                rest = &rest[rest.find(&format!("</{name}>")).expect("its end")..];
            }
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn runs_of_any_length_make_a_well_formed_page() {
    for n in [0, 1, 2, 3, 100, 5000] {
        let records = records(n);
        let html = page(&Report { title: text("run"), records: &records, ..Report::default() });
        assert_well_formed(&html);
        assert!(!html.contains("NaN") && !html.contains("inf"), "{n} records");
        assert!(html.len() < 400_000, "{n} records make {} bytes", html.len());
    }
}

#[test]
fn numbers_that_are_not_finite_are_left_out() {
    let mut records = records(3);
    records[0].loss = f64::NAN;
    records[1].grad_norm = f64::INFINITY;
    records[2].elapsed_seconds = f64::NAN;
    records[2].mfu = Some(f64::NAN);
    records[2].learning_rate = f64::MAX;
    let baselines = vec![
        Baseline { name: text("broken"), bits_per_byte: f64::NAN, is_this_run: true },
        Baseline { name: text("free"), bits_per_byte: 0.0, is_this_run: false },
    ];
    let html = page(&Report { records: &records, baselines, ..Report::default() });
    assert_well_formed(&html);
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
}

#[test]
fn no_text_of_the_run_can_become_markup() {
    let bad = || text("<script>alert(\"1\")</script>'&amp;");
    let report = Report {
        title: bad(),
        config: bad(),
        machine: vec![(bad(), bad())],
        summary: vec![(bad(), bad())],
        tables: vec![Table { title: bad(), header: vec![bad()], rows: vec![vec![bad(), bad()]], note: bad() }],
        records: &records(3),
        samples: vec![Sample { prompt: bad(), text: bad(), settings: bad() }],
        baselines: vec![Baseline { name: bad(), bits_per_byte: 1.0, is_this_run: false }],
    };
    let html = page(&report);
    assert_well_formed(&html);
    assert_eq!(html.matches("<script").count(), 1, "only the page's own script");
    assert_eq!(html.matches("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;amp;").count(), 16);
}

#[test]
fn the_page_asks_for_nothing_from_outside() {
    let html = page(&Report { records: &records(300), ..Report::default() });
    // The one address is the name of the SVG namespace in the script, which is never fetched.
    assert_eq!(html.matches("://").count(), 1);
    assert!(html.contains("http://www.w3.org/2000/svg"));
    for fetching in ["src=", "@import", "url(h", "fetch(", "XMLHttpRequest"] {
        assert!(!html.contains(fetching), "{fetching}");
    }
}

#[test]
fn the_figures_are_those_of_the_records() {
    let html = page(&Report { records: &records(400), ..Report::default() });
    for row in [
        "<th scope=\"row\">Steps recorded</th><td>400</td>",
        "<th scope=\"row\">Training tokens</th><td>1,638,400</td>",
        "<th scope=\"row\">Training time</th><td>36.0 s</td>",
        "<th scope=\"row\">Best validation loss</th><td>3.46 at step 399</td>",
        "<th scope=\"row\">Best validation bits per byte</th><td>2.2 at step 99</td>",
    ] {
        assert!(html.contains(row), "{row}");
    }
}

#[test]
fn the_curve_of_a_known_run_has_known_coordinates() {
    // Loss 0 at step 0 and 10 at step 10: from the lower left corner of the plot to the upper right.
    let mut records = records(2);
    (records[0].loss, records[1].loss, records[1].step) = (0.0, 10.0, 10);
    let html = page(&Report { records: &records, ..Report::default() });
    assert!(html.contains("<path d=\"M58 336L1026 12\"/>"), "{html}");
}

#[test]
fn curves_over_logarithmic_axes_have_known_coordinates_and_colours_of_their_own() {
    let line =
        |name: &str, n| Series { name: text(name), style: Style::Nth(n), points: vec![(1.0, 1000.0), (10.0, 1.0)] };
    let html = figure(&Chart {
        id: "ranks",
        title: "Frequencies",
        x_label: "rank",
        y_label: "occurrences",
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        y_from_zero: true,
        y_cut: None,
        note: String::new(),
        size: (172.0, 156.0),
        series: vec![line("a", 0), line("b", 1 + N_COLOURS)],
    });
    assert_well_formed(&html);
    // The plot is 100 by 100 from (58, 12).
    assert_eq!(html.matches("<path d=\"M58 12L158 112\"/>").count(), 2);
    assert!(html.contains("class=\"nth nth-0\"") && html.contains("class=\"nth nth-1\""), "{html}");
    assert!(html.contains("&quot;xLog&quot;:true"));
}

#[test]
fn a_validation_loss_that_rises_stays_in_the_plot() {
    let mut records = records(1000);
    for record in &mut records {
        record.loss = 3.0 + 5.0 * (-(record.step as f64) / 15.0).exp();
    }
    let falling = page(&Report { records: &records, ..Report::default() });
    assert!(falling.contains("Not shown: loss above the axis in the first"));
    records[999].validation = Some(Validation { loss: 31.0, bits_per_byte: None });
    let html = page(&Report { records: &records, ..Report::default() });
    assert!(html.contains(">35</text>"), "the axis reaches the last validation loss");
}

#[test]
fn a_failed_write_leaves_the_earlier_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("report.html");
    std::fs::write(&path, "earlier").expect("written");
    // A folder in the place of the temporary file makes writing it fail.
    std::fs::create_dir(dir.path().join("report.html.tmp")).expect("created");
    let error = write(&path, &Report::default()).expect_err("not writable");
    assert!(error.to_string().contains("report.html"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("text"), "earlier");
}
