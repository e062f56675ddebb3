//! A run from its config to its end, or to where it was asked to stop, shown as it goes.

mod inputs;
mod start;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nn::Transformer;
use tokenizer::Tokenizer;
use train::metrics::{Record, Validation};
use train::run::End;
use train::startup::{DeviceMemory, Startup};
use train::{Event, RunConfig, Trainer};

use crate::commands::program;
use crate::machine::running_time;
use crate::signals::{Phase, StopRequest};
use crate::ui::progress::Unit;
use crate::ui::units::{compact, duration, grouped, percent};
use crate::ui::{self, Bar};

pub(crate) use start::{Difference, Started, first_difference, select_kernel, start};

/// How a run ended.
pub(crate) enum Outcome {
    /// At its end.
    Finished(Box<FinishedRun>),
    /// Before its end, because it was asked to; a checkpoint is there.
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// What a run leaves in memory.
pub(crate) struct FinishedRun {
    /// Not on the tape.
    pub(crate) model: Transformer,
    /// Text to tokens and back.
    pub(crate) tokenizer: Tokenizer,
    /// The beginning of the held-out text.
    pub(crate) held_out_opening: String,
    /// Over all of the held-out text.
    pub(crate) validation: Validation,
    /// Operations per second of a matrix product on this machine.
    pub(crate) matrix_product_rate: f64,
    /// Of a GPU.
    pub(crate) device_memory: Option<DeviceMemory>,
    /// Of this process, if it made a step.
    pub(crate) startup: Option<Startup>,
}

/// Prepares the inputs of a started run and trains. `to_go_on` is the command that goes on with it; `stop` is left in the
/// phase that follows.
///
/// # Errors
/// Whatever stops a run; the newest checkpoint stays good.
pub(crate) fn train(
    started: Started,
    initial: Option<Transformer>,
    to_go_on: &str,
    stop: &StopRequest,
) -> Result<Outcome> {
    let Started { folder, config, lock } = started;
    let inputs = inputs::prepare(&folder, &config)?;
    say_inputs(&inputs);
    let preparation = running_time().as_secs_f64();
    let mut trainer = Trainer::new(&folder, lock, &config, &inputs, initial)?;
    let from_step = trainer.progress().step;
    if from_step > 0 {
        ui::note(&format!("going on from step {} of {}", grouped(from_step), grouped(config.training.steps)));
    }

    stop.enter(Phase::Training);
    let mut view = View::new(&config, from_step);
    let mut startup = None;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let end = trainer.run(stop.flag(), &clock, &mut |event| {
        if let Event::Started(phases) = &event {
            let phases = Startup { preparation, total: running_time().as_secs_f64(), ..**phases };
            phases.gpu.iter().for_each(|_| ui::note(&startup_line(&phases)));
            startup = Some(phases);
        }
        let is_saved = matches!(event, Event::Checkpoint(_));
        view.show(event);
        if is_saved && view.done == view.steps {
            stop.enter(Phase::Finishing { steps: view.steps });
        }
    })?;
    view.bar.clear();
    let validation = match end {
        End::Stopped => {
            let step = trainer.progress().step;
            let (done, steps) = (grouped(step), grouped(config.training.steps));
            ui::note(&format!("stopped after step {done} of {steps}, and all of it is in the checkpoint"));
            ui::note(&format!("to go on: {} {to_go_on}", program()));
            return Ok(Outcome::Stopped { step });
        }
        End::Finished { validation } => validation,
    };
    Ok(Outcome::Finished(Box::new(FinishedRun {
        model: trainer.model()?,
        held_out_opening: inputs::opening(&inputs, config.model.context_length),
        tokenizer: inputs.tokenizer,
        validation,
        matrix_product_rate: trainer.ceiling(),
        device_memory: trainer.device_memory(),
        startup,
    })))
}

fn say_inputs(inputs: &train::prepare::Inputs) {
    let part = |dataset: &data::shard::Dataset| {
        format!("{} tokens ({} of text)", compact(dataset.n_tokens() as f64), ui::units::bytes(dataset.n_text_bytes()))
    };
    let ids = grouped(inputs.tokenizer.vocab_size() as u64);
    let (train, validation) = (part(&inputs.train), part(&inputs.validation));
    ui::note(&format!("data: {train} to train on, {validation} held out, a vocabulary of {ids}"));
}

/// A run on the screen.
struct View {
    bar: Bar,
    done: u64,
    steps: u64,
}

impl View {
    fn new(config: &RunConfig, from_step: u64) -> Self {
        let steps = config.training.steps;
        View { bar: Bar::resumed("Training", from_step, steps, Unit::Count), done: from_step, steps }
    }

    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Step(record) => {
                let done = record.step + 1;
                self.done = done;
                let message = self.step_text(record, done);
                self.bar.set_with(done, &message);
                if let Some(validation) = &record.validation {
                    ui::note(&validation_line(record, validation));
                }
            }
            Event::Validating(done, total) => {
                self.bar.set_message(&format!("validating, sequence {} of {}", grouped(done), grouped(total)));
            }
            Event::Started(_) => {}
            Event::Checkpoint(path) => ui::note(&format!("checkpoint {}", path.display())),
        }
    }

    /// The most wanted first: a narrow terminal cuts the end off.
    fn step_text(&self, record: &Record, done: u64) -> String {
        let mfu = record.mfu.map_or(String::new(), |mfu| format!("  MFU {}", percent(mfu)));
        format!(
            "step {} of {}  loss {:.3}  {} left  {} tokens/s{mfu}  {} elapsed",
            grouped(done),
            grouped(self.steps),
            record.loss,
            duration(self.bar.remaining_seconds(done)),
            grouped(record.tokens_per_second as u64),
            duration(record.elapsed_seconds),
        )
    }
}

/// Where the seconds until the end of the first step went.
pub(crate) fn startup_line(startup: &Startup) -> String {
    let Startup { preparation, weights, matrix_product_rate, first_step, total, gpu } = startup;
    let gpu = gpu.map_or(String::new(), |gpu| {
        format!(
            "; of it device {:.2}, {} kernels compiled and {} read {:.2}, matrix library {:.2}, algorithm search {:.2}, \
             device memory {:.2}",
            gpu.open,
            gpu.kernels_compiled,
            gpu.kernels_read,
            gpu.kernels,
            gpu.matrix_library,
            gpu.algorithm_search,
            gpu.memory,
        )
    });
    format!(
        "start-up to the end of the first step: {total:.2} s (preparation {preparation:.2}, weights {weights:.2}, \
         speed of matrix products {matrix_product_rate:.2}, first step {first_step:.2}{gpu})"
    )
}

fn validation_line(record: &Record, validation: &Validation) -> String {
    let bits = validation.bits_per_byte.map_or(String::new(), |bits| format!(", {bits:.3} bits per byte"));
    format!(
        "step {}: loss {:.3}, held-out loss {:.3}{bits} (after {})",
        grouped(record.step + 1),
        record.loss,
        validation.loss,
        duration(record.elapsed_seconds)
    )
}
