use super::*;

fn record(step: u64) -> Record {
    Record {
        step,
        tokens: 512 * (step + 1),
        elapsed_seconds: 0.1 + step as f64,
        loss: 1.0 / 3.0 + step as f64,
        grad_norm: 0.7,
        learning_rate: 3e-4,
        tokens_per_second: 5120.5,
        mfu: None,
        device_memory_bytes: None,
        validation: None,
    }
}

fn write_steps(path: &Path, from_step: u64, steps: std::ops::Range<u64>) {
    let mut writer = MetricsWriter::resume(path, from_step).expect("writable");
    for step in steps {
        writer.write(&record(step)).expect("written");
    }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    let full =
        Record { mfu: Some(0.41), validation: Some(Validation { loss: 2.5, bits_per_byte: Some(1.9) }), ..record(1) };
    let mut writer = MetricsWriter::append(&path).expect("writable");
    writer.write(&record(0)).expect("written");
    writer.write(&full).expect("written");
    assert_eq!(read(&path).expect("readable"), [record(0), full]);
    let first = std::fs::read_to_string(&path).expect("text").lines().next().map(str::to_owned);
    assert_eq!(
        first.as_deref(),
        Some(
            r#"{"step":0,"tokens":512,"elapsed_seconds":0.1,"loss":0.3333333333333333,"grad_norm":0.7,"learning_rate":0.0003,"tokens_per_second":5120.5}"#
        )
    );
}

#[test]
fn numbers_that_are_not_finite_become_null() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    let broken = Record {
        loss: f64::NAN,
        grad_norm: f64::INFINITY,
        mfu: Some(f64::NEG_INFINITY),
        validation: Some(Validation { loss: f64::NAN, bits_per_byte: Some(f64::NAN) }),
        ..record(0)
    };
    MetricsWriter::append(&path).expect("writable").write(&broken).expect("written");
    let line = std::fs::read(&path).expect("bytes");
    let json: serde_json::Value = serde_json::from_slice(&line).expect("valid JSON");
    assert!(json["loss"].is_null() && json["grad_norm"].is_null() && json["mfu"].is_null());
    let records = read(&path).expect("readable");
    assert!(records[0].loss.is_nan() && records[0].mfu.is_none());
    let validation = records[0].validation.as_ref().expect("kept");
    assert!(validation.loss.is_nan() && validation.bits_per_byte.is_none());
}

/// The file of an unbroken run is the oracle, whatever byte the process was killed at.
#[test]
fn a_killed_and_resumed_run_has_each_step_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    write_steps(&path, 0, 0..6);
    let unbroken = std::fs::read(&path).expect("bytes");
    let first_three = {
        let ends: Vec<usize> = (0..unbroken.len()).filter(|&i| unbroken[i] == b'\n').collect();
        ends[2] + 1
    };
    for killed_at in first_three..=unbroken.len() {
        std::fs::write(&path, &unbroken[..killed_at]).expect("written");
        write_steps(&path, 3, 3..6);
        assert_eq!(std::fs::read(&path).expect("bytes"), unbroken, "killed at byte {killed_at}");
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "no partial file is left");
}

#[test]
fn a_torn_last_line_is_left_out_and_repaired() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    write_steps(&path, 0, 0..2);
    let whole = std::fs::read(&path).expect("bytes");
    for torn in [&b"{\"step\":2,\"tok"[..], b"\0\0\0", b"\xff"] {
        std::fs::write(&path, [&whole, torn].concat()).expect("written");
        assert_eq!(read(&path).expect("readable"), [record(0), record(1)]);
        MetricsWriter::append(&path).expect("writable").write(&record(2)).expect("written");
        assert_eq!(read(&path).expect("readable"), [record(0), record(1), record(2)]);
    }
}

#[test]
fn a_bad_line_in_the_middle_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    write_steps(&path, 0, 0..1);
    let mut bytes = std::fs::read(&path).expect("bytes");
    bytes.extend_from_slice(b"{\"step\":1}\n");
    std::fs::write(&path, &bytes).expect("written");
    let error = read(&path).expect_err("a bad line");
    assert!(error.to_string().contains("metrics.jsonl, line 2 is not a metrics record"), "{error}");
    assert!(MetricsWriter::resume(&path, 0).is_err());
    assert_eq!(std::fs::read(&path).expect("bytes"), bytes, "what existed is untouched");
}

#[test]
fn an_endless_line_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    std::fs::write(&path, vec![b' '; 1 << 20]).expect("written");
    assert!(matches!(read(&path), Err(MetricsError::BadLine { line: 1, .. })));
}

#[test]
fn a_missing_file_is_an_error_to_read_and_fine_to_append_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics.jsonl");
    assert!(matches!(read(&path), Err(MetricsError::Read { .. })));
    MetricsWriter::append(&path).expect("created");
    assert_eq!(read(&path).expect("readable"), []);
    let nowhere = dir.path().join("missing").join("metrics.jsonl");
    assert!(matches!(MetricsWriter::append(&nowhere), Err(MetricsError::Write { .. })));
}
