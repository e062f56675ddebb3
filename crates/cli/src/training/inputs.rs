//! The preparation of a run's inputs, shown as it goes.

use std::cell::RefCell;
use std::error::Error as _;
use std::time::Instant;

use anyhow::{Error, Result, anyhow};
use train::prepare::{self, Inputs, Progress, Stage};
use train::{RunConfig, RunFolder};

use crate::commands::program;
use crate::ui::Bar;
use crate::ui::progress::Unit;

/// Makes or opens tokenizer and shards.
pub(super) fn prepare(folder: &RunFolder, config: &RunConfig) -> Result<Inputs> {
    let shown = RefCell::new(Shown { bar: None, stage_began: Instant::now() });
    let inputs =
        prepare::prepare(folder, config, &|progress| shown.borrow_mut().show(progress)).map_err(of_training)?;
    shown.into_inner().end_stage();
    Ok(inputs)
}

/// The error as training has to tell it, which takes no option for text that is not UTF-8.
fn of_training(error: train::Error) -> Error {
    let found = match &error {
        train::Error::Data(error) => Some(error),
        error => std::iter::successors(error.source(), |&cause| cause.source()).find_map(|cause| cause.downcast_ref()),
    };
    let Some(data::Error::InvalidUtf8 { path, line, offset, compressed }) = found else { return error.into() };
    let of_what = if *compressed { " of the decompressed text" } else { "" };
    anyhow!(
        "{path}, line {line}: invalid UTF-8 at byte offset {offset}{of_what}\nhint: convert the file to UTF-8; or, to \
         train on its bytes as they are, run {program} data prepare --raw-bytes on it and name the folder of shards in \
         data.train",
        path = path.display(),
        program = program()
    )
}

/// The stage on the screen.
struct Shown {
    bar: Option<(Stage, Bar)>,
    /// A stage is first heard of when a part of it is done.
    stage_began: Instant,
}

impl Shown {
    fn show(&mut self, progress: Progress) {
        let Progress { stage, done, total } = progress;
        if self.bar.as_ref().is_none_or(|(current, _)| *current != stage) {
            self.end_stage();
            let unit = if stage == Stage::LearnMerges { Unit::Count } else { Unit::Bytes };
            self.bar = Some((stage, Bar::new(label(stage), total, unit).begun_at(self.stage_began)));
        }
        if let Some((_, bar)) = &mut self.bar {
            bar.set(done);
        }
    }

    fn end_stage(&mut self) {
        if let Some((stage, bar)) = self.bar.take() {
            bar.finish(label(stage));
            self.stage_began = Instant::now();
        }
    }
}

fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::CountWords => "Counting words",
        Stage::LearnMerges => "Learning the vocabulary",
        Stage::TrainShards => "Tokenising the training text",
        Stage::ValidationShards => "Tokenising the held-out text",
    }
}

/// The first words of the held-out text: a prompt that the model has not seen.
pub(super) fn opening(inputs: &Inputs, context_length: usize) -> String {
    const TOKENS: u64 = 24;
    let n_tokens = TOKENS.min(context_length as u64 / 2).min(inputs.validation.n_tokens());
    let mut ids = vec![0; n_tokens as usize];
    inputs.validation.copy_tokens(0, &mut ids);
    inputs.tokenizer.decode(&ids).trim_end_matches('\u{FFFD}').to_owned()
}
