//! `cupola tokenizer compare`: what tokenizers make of a text, side by side.

mod languages;
mod names;
mod outcome;
mod shown;
mod terminal;
mod page;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use data::document::{ReadOptions, expand, read_parts, total_bytes};
use tokenizer::measure::{Measure, Measurement, TextSize};

use super::refuse_output_among;
use crate::ui::progress::Unit;
use crate::ui::{self, Bar};
use names::Named;
use outcome::{Outcome, Sample};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer compare --tokenizer tokenizer.json --input book.txt
  cupola tokenizer compare --tokenizer tokenizer.json gpt2/ llama=llama/tokenizer.model --text 'Hello, world'
  cupola tokenizer compare --tokenizer a.json b.json --input 'books/*.txt' --output page.html
  cupola tokenizer compare --tokenizer a.json --languages udhr/ --input book.txt --json

Words are what stands between white space; where most letters are of scripts without spaces between words, there is no
number of tokens per word. Special tokens spelt out in a text are ordinary text. The speed is that of encoding alone, once,
by as many threads as the kind can use (RAYON_NUM_THREADS). --languages takes the same text in each language, such as the Universal Declaration of
Human Rights, and tells how many times the tokens of English each language takes. Memory does not grow with the text.
With --json: threads, text (its size), tokenizers (one object each), languages, sample (text, and tokens by tokenizer).";

/// Text that is read at a time.
const PART_BYTES: u64 = 4 << 20;
/// Characters of the sample in the terminal, and on the page.
const SHOWN_CHARACTERS: usize = 700;
const PAGE_CHARACTERS: usize = 6000;

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compare {
    /// Tokenizers: a tokenizer.json, .model or .tiktoken file, or a folder (of a run, too) with one or with vocab.json and
    /// merges.txt; NAME=FILE gives it a name
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    tokenizer: Vec<String>,
    /// .txt, .jsonl (either with .zst or .gz) or .parquet files, folders, 'patterns*', or - for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["text", "languages"])]
    input: Vec<PathBuf>,
    /// A text to show token by token, instead of the beginning of --input; measured if there is no --input
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// The same text in many languages: a folder of en.txt, de.txt, ..., or a .jsonl file of {"lang": "en", "text": "..."}
    #[arg(long, value_name = "PATH")]
    languages: Option<PathBuf>,
    /// The language that the others are compared with, instead of English
    #[arg(long, value_name = "LANGUAGE", requires = "languages")]
    base: Option<String>,
    /// A page to write, with charts and coloured tokens
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Colour the tokens
    #[arg(long, value_enum, default_value = "auto")]
    color: Colour,
    /// Accept text that is not UTF-8
    #[arg(long)]
    raw_bytes: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self) -> Result<()> {
        if let Some(output) = &self.output {
            check_output(output)?;
            let tokenizers = self.tokenizer.iter().map(PathBuf::from);
            let read: Vec<PathBuf> = self.input.iter().chain(&self.languages).cloned().chain(tokenizers).collect();
            refuse_output_among(&read, output)?;
        }
        let tokenizers = names::load(&self.tokenizer)?;
        let mut opening = Opening::default();
        let measured = match (&self.text, self.input.is_empty()) {
            (_, false) => Some(self.measure_files(&tokenizers, &mut opening)?),
            (Some(text), true) if text.is_empty() => {
                bail!("--text is empty\nhint: give a text of at least one character")
            }
            (Some(text), true) => {
                let mut measures = Measures::new(&tokenizers);
                measures.add(text.as_bytes(), true);
                Some(measures.finish())
            }
            (None, true) => None,
        };
        if let Some(text) = &self.text {
            opening = Opening { text: text.as_bytes().to_vec(), ..Opening::default() };
        }
        let sample = Sample::of(&opening.text, PAGE_CHARACTERS, opening.goes_on, &tokenizers);
        let mut outcome = Outcome::new(&tokenizers, measured, sample);
        if let Some(path) = &self.languages {
            let counted = languages::count(path, &tokenizers, self.raw_bytes)?;
            let base = languages::base(&counted, self.base.as_deref(), path)?;
            outcome.add_languages(&counted, base);
        }
        if let Some(path) = &self.output {
            train::report::write_page(path, &page::html(&outcome))?;
            outcome.output = Some(path.clone());
        }
        let colour = match self.color {
            Colour::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
            }
            Colour::Always => true,
            Colour::Never => false,
        };
        ui::print_result(self.json, &outcome, &|| terminal::text(&outcome, SHOWN_CHARACTERS, colour))
    }

    /// Leaves the beginning of the text in `opening`.
    fn measure_files(&self, tokenizers: &[Named], opening: &mut Opening) -> Result<(TextSize, Vec<Measurement>)> {
        let input = expand(&self.input)?;
        let mut bar = Bar::new("Measuring", total_bytes(&input)?, Unit::Bytes);
        let options = ReadOptions { raw_bytes: self.raw_bytes, ..ReadOptions::default() };
        let mut measures = Measures::new(tokenizers);
        for part in read_parts(&input, options, PART_BYTES)? {
            let part = part?;
            opening.add(&part.text, part.ends_document);
            measures.add(&part.text, part.ends_document);
            bar.set(part.input_bytes);
        }
        Ok(measures.finish())
    }
}

/// Long work should not end where it could not have begun.
fn check_output(output: &Path) -> Result<()> {
    if output.is_dir() {
        bail!("{} is a folder, expected a file\nhint: name the page, such as page.html", output.display());
    }
    match output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => bail!("there is no folder {} for --output\nhint: make it first", folder.display()),
        None => Ok(()),
    }
}

/// The beginning of all text.
#[derive(Default)]
struct Opening {
    text: Vec<u8>,
    /// Whether there is more.
    goes_on: bool,
    /// Whether what follows is another document, which begins on a line of its own.
    is_document_end: bool,
}

impl Opening {
    /// More than the page shows, whatever the characters.
    const MAX_BYTES: usize = 4 * PAGE_CHARACTERS + 4;

    fn add(&mut self, text: &[u8], ends_document: bool) {
        if std::mem::replace(&mut self.is_document_end, ends_document) && self.text.len() < Self::MAX_BYTES {
            self.text.extend((!text.is_empty()).then_some(b'\n'));
        }
        let n = text.len().min(Self::MAX_BYTES - self.text.len());
        self.text.extend_from_slice(&text[..n]);
        self.goes_on |= n < text.len();
    }
}

/// A text, and what each tokenizer makes of it.
struct Measures<'t> {
    size: TextSize,
    measures: Vec<Measure<'t>>,
}

impl<'t> Measures<'t> {
    fn new(tokenizers: &'t [Named]) -> Self {
        let measures = tokenizers.iter().map(|named| Measure::new(&named.tokenizer)).collect();
        Measures { size: TextSize::default(), measures }
    }

    fn add(&mut self, text: &[u8], ends_document: bool) {
        self.size.add(text, ends_document);
        self.measures.iter_mut().for_each(|measure| measure.add(text, ends_document));
    }

    fn finish(mut self) -> (TextSize, Vec<Measurement>) {
        self.size.add(b"", true);
        (self.size, self.measures.into_iter().map(Measure::finish).collect())
    }
}
