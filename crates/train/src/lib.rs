//! Optimizer, schedules, the training loop, checkpoints, metrics, reports.
