//! `cupola quickstart`: from books to a model that writes, by one command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use data::document::{ReadOptions, read_documents};
use train::config::{DataConfig, ValidationConfig};
use train::folder::write_whole;
use train::{RunConfig, RunFolder};

use super::program;
use super::train::{explain_setting, say_plan};
use crate::baselines::{self, Compressed};
use crate::run_report::{self, Sample, Summary};
use crate::signals::{Phase, StopRequest};
use crate::training::{self, FinishedRun, Outcome};
use crate::ui::progress::Unit;
use crate::ui::units::duration;
use crate::ui::{self, Bar};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola quickstart
  cupola quickstart --run runs/another

It trains a tokenizer and a small Llama-style model on fifty public-domain books, measures bits per byte on a novel that
it never saw, lets the model write, and makes a report. It takes about three minutes on two cores. Stopped or killed, it
goes on when it is started again. With --json: the content of summary.json, or
{\"status\": \"stopped\", ...}.";

const CONFIG: &str = include_str!("../../../../configs/quickstart.toml");
const BOOKS: &[u8] = include_bytes!("../../../../assets/books.jsonl.zst");
const HELD_OUT_BOOK: &[u8] = include_bytes!("../../../../assets/held_out_book.txt.zst");

/// Where the texts that come along lie in the run's folder.
const SOURCES: &str = "sources";
const BOOKS_FILE: &str = "books.jsonl.zst";

/// What the model is given to continue.
const PROMPTS: [&str; 3] = ["It was a dark night, and", "\"My dear friend,\" said the captain,", "She looked at"];

/// Train a small model on the books that come along, evaluate it, and let it write
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Quickstart {
    /// The run's folder
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    run: PathBuf,
    /// Change one key of the config, such as model.n_layers=2; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

impl Quickstart {
    pub(super) fn run(self) -> Result<ExitCode> {
        let begin = Instant::now();
        self.refuse_other_runs()?;
        // Whatever its config: another version may have made it.
        if RunFolder::new(&self.run).is_finished() {
            if let Some(setting) = self.set.first() {
                bail!(
                    "the quickstart in {} is finished, so --set {setting} changes nothing\nhint: choose another folder with \
                     --run",
                    self.run.display()
                );
            }
            return self.offer();
        }
        if let Some(setting) = self.set.iter().find(|setting| setting.starts_with("data.")) {
            bail!(
                "--set {setting}: the quickstart trains on the books that come along\nhint: {} train \
                 configs/quickstart.toml --set {setting} trains on other text",
                program()
            );
        }
        let sources = Sources::of(&self.run);
        let mut config =
            RunConfig::from_text(CONFIG, Path::new("the quickstart's config"), &self.set).map_err(explain_setting)?;
        config.data = DataConfig {
            train: vec![sources.books.clone()],
            validation: ValidationConfig::Files(vec![sources.held_out_book.clone()]),
        };
        let stop = StopRequest::listen(&self.run, self.json)?;
        let started = training::start(&self.run, &config)?;
        let folder = started.folder.clone();
        sources.write()?;
        ui::note(&format!("quickstart in {}", self.run.display()));
        say_plan(&started.config)?;
        let config = started.config.clone();
        let to_go_on = format!("quickstart --run {}", self.run.display());
        let finished = match training::train(started, None, &to_go_on, &stop)? {
            Outcome::Stopped { step } => return stop.stopped(step),
            Outcome::Finished(finished) => finished,
        };
        let compression = compression(&finished, &sources)?;
        let summary = run_report::finish(&folder, &config, &finished, &PROMPTS, compression)?;
        stop.enter(Phase::Finished);
        ui::print_result(self.json, &summary, &|| self.result_text(&summary))?;
        ui::note(&format!("all of it took {}", duration(begin.elapsed().as_secs_f64())));
        Ok(ExitCode::SUCCESS)
    }

    /// Refuses a folder with a run that is not the quickstart's. Its data tell: they are all that --set cannot change.
    fn refuse_other_runs(&self) -> Result<()> {
        let (folder, path) = (RunFolder::new(&self.run), self.run.display());
        if self.run.is_file() {
            bail!("{path} is a file, expected a folder\nhint: choose the run's folder with --run");
        }
        if !folder.is_started() {
            return Ok(());
        }
        let config = folder.config();
        let text = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        // Not as a whole config: another version may have had other keys.
        let stored = text.parse::<toml::Table>().ok();
        let trains_on = stored.as_ref().and_then(|stored| stored.get("data")?.get("train")?.get(0)?.as_str());
        if !trains_on.is_some_and(|text| Path::new(text).ends_with(Path::new(SOURCES).join(BOOKS_FILE))) {
            bail!("the run in {path} is not the quickstart's\nhint: choose another folder with --run");
        }
        Ok(())
    }

    /// Says what a finished run offers.
    fn offer(&self) -> Result<ExitCode> {
        let summary = Summary::read(&RunFolder::new(&self.run))?;
        let run = self.run.display();
        ui::print_result(self.json, &summary, &|| {
            let bits = summary.bits_per_byte().map_or(String::new(), |bits| format!(" with {bits:.3} bits per byte"));
            format!(
                "The quickstart in {run} is finished{bits} on the held-out book.\n\n{}Start over:     {} quickstart --run \
                 OTHER, or delete {run}\n",
                self.next_steps(),
                program(),
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn result_text(&self, summary: &Summary) -> String {
        let samples: String = summary.samples.iter().map(sample_text).collect();
        let mut sorted = summary.compression.clone();
        sorted.sort_by(|a, b| a.bits_per_byte.total_cmp(&b.bits_per_byte));
        let bits = |one: &Compressed| (one.name.clone(), format!("{:.3}", one.bits_per_byte));
        format!(
            "\nWhat it writes\n{samples}\nThe run\n{}\nBits per byte of the held-out book, fewer is better\n{}\n{}",
            ui::pairs(&summary.training_pairs()),
            ui::pairs(&sorted.iter().map(bits).collect::<Vec<_>>()),
            self.next_steps()
        )
    }

    fn next_steps(&self) -> String {
        let run = self.run.display();
        format!(
            "Report:         {}\nChat with it:   {} chat {run}\n",
            self.run.join("report.html").display(),
            program()
        )
    }
}

/// The prompt, and what came after it.
fn sample_text(sample: &Sample) -> String {
    let text = format!("{}{}", sample.prompt, sample.text);
    let lines: String = text.trim().lines().map(|line| format!("  │ {line}\n")).collect();
    format!("{lines}\n")
}

/// The texts that come along, as files of the run.
struct Sources {
    books: PathBuf,
    held_out_book: PathBuf,
}

impl Sources {
    fn of(run: &Path) -> Self {
        let folder = run.join(SOURCES);
        Sources { books: folder.join(BOOKS_FILE), held_out_book: folder.join("held_out_book.txt.zst") }
    }

    /// Writes those that are not there.
    fn write(&self) -> Result<()> {
        for (path, content) in [(&self.books, BOOKS), (&self.held_out_book, HELD_OUT_BOOK)] {
            let is_there = fs::metadata(path).is_ok_and(|file| file.len() == content.len() as u64);
            if !is_there {
                let folder = path.parent().expect("sources lie in a folder");
                fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
                write_whole(path, content)?;
            }
        }
        Ok(())
    }
}

/// The held-out book by this model and by what it has to beat.
fn compression(finished: &FinishedRun, sources: &Sources) -> Result<Vec<Compressed>> {
    let mut text = Vec::new();
    for document in read_documents(std::slice::from_ref(&sources.held_out_book), ReadOptions::default())? {
        text.extend(document?.text);
    }
    let batch_size = (4096 / finished.model.config().context_length).max(1);
    let mut bar = Bar::new("Evaluating", text.len() as u64, Unit::Bytes);
    let n_bytes = text.len() as u64;
    let mut progress = |done: u64, total: u64| bar.set(n_bytes * done / total.max(1));
    let result = eval::text::evaluate(&finished.model, &finished.tokenizer, &text, batch_size, &mut progress)?;
    bar.finish("Evaluated on the held-out book");
    let this = Compressed { name: "this model".to_owned(), bits_per_byte: result.bits_per_byte, is_this_run: true };
    let baselines = baselines::all(std::slice::from_ref(&sources.books), &text)?;
    Ok([vec![this], baselines].concat())
}
