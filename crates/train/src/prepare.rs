//! Makes what a run needs before its first step: a tokenizer, and token shards of both parts of the text.
//!
//! Each stage leaves a finished file or folder, or nothing; so a run that was killed here goes on with the next
//! unfinished stage.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::document::{Document, ReadOptions, read_documents, total_bytes};
use data::fingerprint::fingerprint;
use data::prepare::PrepareOptions;
use data::shard::{Dataset, WriterOptions};
use data::split::split_tail;
use tokenizer::Tokenizer;

use crate::config::{DataConfig, TokenizerConfig, ValidationConfig};
use crate::folder::write_whole;
use crate::{Error, RunConfig, RunFolder};

/// What a run reads.
pub struct Inputs {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Shards of the training text.
    pub train: Arc<Dataset>,
    /// Shards of the held-out text.
    pub validation: Arc<Dataset>,
}

/// What is being prepared, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which stage.
    pub stage: Stage,
    /// Units done.
    pub done: u64,
    /// Units of the whole stage.
    pub total: u64,
}

/// The stages of preparation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Counting the words of the training text; in bytes.
    CountWords,
    /// Learning merges.
    LearnMerges,
    /// Tokenising the training text; in bytes.
    TrainShards,
    /// Tokenising the held-out text; in bytes.
    ValidationShards,
}

/// Looks whether the inputs that a config names are there and fit each other, before anything is made.
///
/// # Errors
/// As [`prepare`], as far as it shows without reading the text.
pub fn check(config: &RunConfig) -> Result<(), Error> {
    let tokenizer = match &config.tokenizer {
        TokenizerConfig::File { path } => Some(Tokenizer::from_file(path)?),
        TokenizerConfig::Bytes {} => Some(Tokenizer::bytes()),
        TokenizerConfig::Bpe(_) | TokenizerConfig::Characters {} => None,
    };
    if let Some(tokenizer) = &tokenizer {
        fits(tokenizer, config)?;
    }
    let (train, validation) = (&config.data.train, &config.data.validation);
    let parts = [
        (Part::Train, Some(train)),
        (
            Part::Validation,
            match validation {
                ValidationConfig::Files(files) => Some(files),
                ValidationConfig::Tail(_) => None,
            },
        ),
    ];
    for (part, paths) in parts {
        match (shards_given(config, part), paths) {
            (Some(path), _) => open_shards(path, tokenizer.as_ref()).map(|_| ())?,
            (None, Some(paths)) => total_bytes(paths).map(|_| ())?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn fits(tokenizer: &Tokenizer, config: &RunConfig) -> Result<(), Error> {
    let (tokenizer, model) = (tokenizer.vocab_size(), config.model.vocab_size);
    if tokenizer <= model { Ok(()) } else { Err(Error::VocabTooSmall { tokenizer, model }) }
}

/// Prepares the inputs of a run in its folder, or opens those that are there.
///
/// # Errors
/// If text is missing or broken, the tokenizer cannot be made, or the folder cannot be written.
pub fn prepare(folder: &RunFolder, config: &RunConfig, progress: &dyn Fn(Progress)) -> Result<Inputs, Error> {
    let tokenizer = tokenizer(folder, config, progress)?;
    fits(&tokenizer, config)?;
    let open = |part, output: PathBuf, stage| {
        let path = match shards_given(config, part) {
            Some(path) => path,
            None => {
                make_shards(&config.data, part, &tokenizer, output.clone(), stage, progress)?;
                &output
            }
        };
        open_shards(path, Some(&tokenizer)).map(Arc::new)
    };
    let train = open(Part::Train, folder.train_shards(), Stage::TrainShards)?;
    let validation = open(Part::Validation, folder.validation_shards(), Stage::ValidationShards)?;
    Ok(Inputs { tokenizer, train, validation })
}

/// Which part of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
}

/// The folder of shards that the config names for a part, if it names one instead of text.
fn shards_given(config: &RunConfig, part: Part) -> Option<&Path> {
    let paths = match (part, &config.data.validation) {
        (Part::Train, _) => &config.data.train,
        (Part::Validation, ValidationConfig::Files(files)) => files,
        (Part::Validation, ValidationConfig::Tail(_)) => return None,
    };
    paths.first().map(PathBuf::as_path).filter(|path| paths.len() == 1 && path.is_dir())
}

/// Shards, which must have been made with `tokenizer` if it is known.
fn open_shards(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Dataset, Error> {
    let dataset = Dataset::open(path)?;
    match tokenizer {
        Some(tokenizer) if dataset.tokenizer_xxh3() != fingerprint(tokenizer) => {
            Err(Error::OtherTokenizer { path: path.to_owned() })
        }
        _ => Ok(dataset),
    }
}

fn tokenizer(folder: &RunFolder, config: &RunConfig, progress: &dyn Fn(Progress)) -> Result<Tokenizer, Error> {
    let path = folder.tokenizer();
    if path.is_file() {
        return Ok(Tokenizer::from_file(&path)?);
    }
    let reads_text = matches!(config.tokenizer, TokenizerConfig::Bpe(_) | TokenizerConfig::Characters {});
    if reads_text && shards_given(config, Part::Train).is_some() {
        return Err(Error::ShardsNeedTokenizer);
    }
    let tokenizer = match &config.tokenizer {
        TokenizerConfig::File { path } => Tokenizer::from_file(path)?,
        TokenizerConfig::Bytes {} => Tokenizer::bytes(),
        TokenizerConfig::Characters {} => {
            let texts = [Part::Train, Part::Validation].map(|part| -> Result<Vec<String>, Error> {
                let texts = documents(&config.data, part)?;
                texts.map(|text| Ok(String::from_utf8_lossy(&text?.text).into_owned())).collect()
            });
            let [train, validation] = texts;
            Tokenizer::characters(train?.iter().chain(&validation?).map(String::as_str), &[])?
        }
        TokenizerConfig::Bpe(bpe) => {
            let total = total_bytes(&config.data.train)?;
            let read = Cell::new(0);
            let texts = documents(&config.data, Part::Train)?.map(|document| {
                document.map(|document| {
                    read.set(document.input_bytes);
                    document.text
                })
            });
            tokenizer::train::train_bpe(texts, bpe, &|event| match event {
                tokenizer::train::Progress::Counting { .. } => {
                    progress(Progress { stage: Stage::CountWords, done: read.get(), total });
                }
                tokenizer::train::Progress::Counted(_) | tokenizer::train::Progress::Pruning { .. } => {}
                tokenizer::train::Progress::Merging { n_done, n_total } => {
                    let (done, total) = (n_done as u64, n_total as u64);
                    progress(Progress { stage: Stage::LearnMerges, done, total });
                }
            })?
        }
    };
    write_whole(&folder.tokenizer_config(), &tokenizer_config(&tokenizer, config))?;
    tokenizer.save(&path)?;
    Ok(tokenizer)
}

/// The content of `tokenizer_config.json`: how `transformers` is to take `tokenizer.json`, namely as it is.
fn tokenizer_config(tokenizer: &Tokenizer, config: &RunConfig) -> Vec<u8> {
    let end = tokenizer.end_of_text().and_then(|id| tokenizer.token_bytes(id)).map(String::from_utf8_lossy);
    let content = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": config.model.context_length,
        "clean_up_tokenization_spaces": false,
    });
    serde_json::to_vec_pretty(&content).expect("a JSON value has a text")
}

/// The documents of one part of the text.
fn documents(
    data: &DataConfig,
    part: Part,
) -> Result<impl Iterator<Item = Result<Document, data::Error>> + use<>, Error> {
    let (paths, tail) = match (part, &data.validation) {
        (Part::Train, ValidationConfig::Files(_)) => (&data.train, None),
        (Part::Validation, ValidationConfig::Files(files)) => (files, None),
        (_, ValidationConfig::Tail(fraction)) => (&data.train, Some(*fraction)),
    };
    let documents = read_documents(paths, ReadOptions::default())?;
    Ok(documents.map(move |document| {
        let mut document = document?;
        if let Some(fraction) = tail {
            let (head, tail) = split_tail(&document.text, fraction);
            document.text = if part == Part::Train { head.to_vec() } else { tail.to_vec() };
        }
        Ok(document)
    }))
}

fn make_shards(
    data: &DataConfig,
    part: Part,
    tokenizer: &Tokenizer,
    output: PathBuf,
    stage: Stage,
    progress: &dyn Fn(Progress),
) -> Result<(), Error> {
    if output.is_dir() {
        return Ok(());
    }
    let parent = output.parent().expect("shards lie in the run's folder");
    std::fs::create_dir_all(parent).map_err(|source| Error::Io {
        action: "make the folder",
        path: parent.to_owned(),
        source,
    })?;
    let total = match (part, &data.validation) {
        (Part::Validation, ValidationConfig::Files(files)) => total_bytes(files)?,
        _ => total_bytes(&data.train)?,
    };
    let options = PrepareOptions {
        output,
        overwrite: false,
        append_end_of_text: true,
        tokenizer_xxh3: fingerprint(tokenizer),
        max_tokens_per_shard: WriterOptions::DEFAULT_TOKENS_PER_SHARD,
        resume_key: None,
    };
    data::prepare::prepare(documents(data, part)?, tokenizer, options, &|event| {
        progress(Progress { stage, done: event.input_bytes, total });
    })?;
    Ok(())
}
