use super::*;

fn check(schedule: &ScheduleConfig, total_steps: u64, peak: f64, expected: &[f64]) {
    for (step, &want) in expected.iter().enumerate() {
        let got = schedule.learning_rate(step as u64, total_steps, peak);
        assert!((got - want).abs() < 1e-12, "{schedule:?} at step {step}: {got}, not {want}");
    }
}

/// The published values of the course's own test, `test_get_lr_cosine_schedule`.
#[test]
fn cosine_equals_the_table_of_cs336() {
    let expected = [
        0.0,
        0.14285714285714285,
        0.2857142857142857,
        0.42857142857142855,
        0.5714285714285714,
        0.7142857142857143,
        0.8571428571428571,
        1.0,
        0.9887175604818206,
        0.9554359905560885,
        0.9018241671106134,
        0.8305704108364301,
        0.7452476826029011,
        0.6501344202803414,
        0.55,
        0.44986557971965857,
        0.3547523173970989,
        0.26942958916356996,
        0.19817583288938662,
        0.14456400944391146,
        0.11128243951817937,
        0.1,
        0.1,
        0.1,
        0.1,
    ];
    check(&ScheduleConfig::Cosine { warmup_steps: 7, min_ratio: 0.1 }, 21, 1.0, &expected);
}

/// `torch.optim.lr_scheduler.LinearLR(start_factor=1, end_factor=0.2, total_iters=4)` at lr 0.05.
#[test]
fn linear_without_warmup_equals_linear_lr_of_pytorch() {
    let schedule = ScheduleConfig::Linear { warmup_steps: 0, min_ratio: 0.2 };
    check(&schedule, 4, 0.05, &[0.05, 0.04, 0.03, 0.02, 0.01, 0.01]);
}

/// `transformers.get_linear_schedule_with_warmup(2, 6)`.
#[test]
fn linear_with_warmup_is_two_straight_lines() {
    let schedule = ScheduleConfig::Linear { warmup_steps: 2, min_ratio: 0.0 };
    check(&schedule, 6, 1.0, &[0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
}

#[test]
fn wsd_is_flat_until_its_decay() {
    let linear = ScheduleConfig::Wsd { warmup_steps: 2, decay_steps: 4, min_ratio: 0.2, shape: DecayShape::Linear };
    check(&linear, 10, 1.0, &[0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]);
    let sqrt = ScheduleConfig::Wsd { warmup_steps: 0, decay_steps: 4, min_ratio: 0.0, shape: DecayShape::Sqrt };
    check(&sqrt, 5, 1.0, &[1.0, 1.0, 0.5, 1.0 - 0.5f64.sqrt(), 1.0 - 0.75f64.sqrt(), 0.0]);
}

#[test]
fn constant_stays_at_the_peak() {
    let schedule = ScheduleConfig::Constant { warmup_steps: 2 };
    check(&schedule, 4, 3.0, &[0.0, 1.5, 3.0, 3.0, 3.0, 3.0]);
}

#[test]
fn phases_of_no_steps_are_skipped() {
    for schedule in [
        ScheduleConfig::Cosine { warmup_steps: 3, min_ratio: 0.5 },
        ScheduleConfig::Linear { warmup_steps: 3, min_ratio: 0.5 },
        ScheduleConfig::Wsd { warmup_steps: 3, decay_steps: 0, min_ratio: 0.5, shape: DecayShape::Sqrt },
    ] {
        assert_eq!(schedule.validate(3), Ok(()));
        assert_eq!(schedule.learning_rate(3, 3, 1.0), 0.5);
        assert_eq!(schedule.learning_rate(u64::MAX, 0, 1.0), 0.5);
    }
}

#[test]
fn a_schedule_that_does_not_fit_is_refused() {
    let cosine = ScheduleConfig::Cosine { warmup_steps: 11, min_ratio: 0.1 };
    let message = cosine.validate(10).expect_err("too long").to_string();
    assert_eq!(
        message,
        "schedule.cosine.warmup_steps = 11 is more than the 10 steps of the run\n\
         hint: lower schedule.cosine.warmup_steps or train for more steps"
    );
    let wsd = ScheduleConfig::Wsd { warmup_steps: 6, decay_steps: 5, min_ratio: 0.1, shape: DecayShape::Linear };
    assert!(matches!(wsd.validate(10), Err(ScheduleError::PhasesTooLong { .. })));
    assert_eq!(wsd.validate(11), Ok(()));
    for min_ratio in [-0.1, 1.1, f64::NAN] {
        let linear = ScheduleConfig::Linear { warmup_steps: 0, min_ratio };
        assert!(matches!(linear.validate(10), Err(ScheduleError::BadMinRatio { .. })));
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Holder {
    schedule: ScheduleConfig,
}

#[test]
fn the_key_chooses_the_variant() {
    let text = "[schedule.wsd]\nwarmup_steps = 1\ndecay_steps = 2\nmin_ratio = 0.1\n";
    let holder: Holder = toml::from_str(text).expect("a schedule");
    assert_eq!(
        holder.schedule,
        ScheduleConfig::Wsd { warmup_steps: 1, decay_steps: 2, min_ratio: 0.1, shape: DecayShape::Linear }
    );
    let written = toml::to_string(&holder).expect("serializable");
    assert!(written.contains("shape = \"linear\""), "{written}");
    assert_eq!(toml::from_str::<Holder>(&written).expect("readable"), holder);
}

#[test]
fn a_misspelt_key_is_named() {
    let text = "[schedule.cosine]\nwarmup_step = 1\nmin_ratio = 0.1\n";
    let message = toml::from_str::<Holder>(text).expect_err("a typo").to_string();
    assert!(message.contains("warmup_step"), "{message}");
    assert!(message.contains("line 2"), "{message}");
}
