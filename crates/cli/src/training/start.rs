//! What a run folder and a config mean together: a new run, one to go on with, or a finished one.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tensor::cpu::gemm::Kernel;
use toml::{Table, Value};
use train::config::Auto;
use train::folder::{FolderLock, write_whole};
use train::{Error, RunConfig, RunFolder, checkpoint, plan};

use crate::ui;

/// A run that may train.
pub(crate) struct Started {
    /// Its folder, which no other process trains in.
    pub(crate) folder: RunFolder,
    /// Its effective config, as it lies in the folder.
    pub(crate) config: RunConfig,
    /// Held while it trains.
    pub(crate) lock: FolderLock,
}

/// Starts the run of `config` in the folder `path`, or opens the one that is there if it has the same config.
///
/// # Errors
/// If the folder holds another run or other things, or the config asks for what is not there.
pub(crate) fn start(path: &Path, config: &RunConfig) -> Result<Started> {
    let folder = RunFolder::new(path);
    if !folder.is_started() {
        refuse_foreign_files(path)?;
        // Refused before anything is made.
        plan::Plan::of(&plan::choose(config)?).check_memory()?;
    }
    let lock = folder.lock()?;
    if folder.is_started() {
        let stored = RunConfig::from_file(&folder.config(), &[])?;
        let asked = with_choices_of(config, &stored);
        match first_difference(&stored, &asked) {
            None => {
                let config = plan::choose(&stored)?;
                if !folder.is_finished() {
                    plan::Plan::of(&config).check_memory()?;
                }
                select_kernel(&config)?;
                return Ok(Started { config, folder, lock });
            }
            Some(difference) if was_trained(&folder)? => {
                let difference = difference.to_string();
                return Err(Error::ConfigChanged { path: path.to_owned(), difference }.into());
            }
            Some(difference) => {
                ui::note(&format!("{difference}\nnothing was trained yet: starting over with the changed config"));
            }
        }
    }
    let config = plan::choose(config)?;
    plan::Plan::of(&config).check_memory()?;
    select_kernel(&config)?;
    remove_inputs(&folder)?;
    write_whole(&folder.config(), config.to_text().as_bytes())?;
    Ok(Started { folder, config, lock })
}

/// Makes the run's kernel that of this process: the first matrix product decides, and measuring this machine makes one.
pub(crate) fn select_kernel(config: &RunConfig) -> Result<()> {
    let kernel = config.training.kernel.value().expect("an effective config");
    Ok(Kernel::from(kernel).select()?)
}

/// A folder with other things in it must not become a run: the run would take or replace them.
fn refuse_foreign_files(path: &Path) -> Result<()> {
    /// What a run leaves that was killed before its config was written.
    const OWN: [&str; 3] = ["lock", "sources", "config.toml.tmp"];
    if !path.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read the folder {}", path.display()))?;
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read the folder {}", path.display()))?.file_name();
        if !OWN.iter().any(|own| name == *own) {
            bail!(
                "{} holds {}, but no run\nhint: choose a new or empty folder with --run",
                path.display(),
                name.to_string_lossy()
            );
        }
    }
    Ok(())
}

/// Whether there is anything in the folder that another config would contradict.
fn was_trained(folder: &RunFolder) -> Result<bool> {
    Ok(folder.metrics().is_file() || folder.weights().is_file() || !checkpoint::list(folder)?.is_empty())
}

/// Removes what was prepared for another config.
fn remove_inputs(folder: &RunFolder) -> Result<()> {
    for file in [folder.tokenizer(), folder.matmul_choices()] {
        if file.is_file() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    for shards in [folder.train_shards(), folder.validation_shards()] {
        if shards.is_dir() {
            fs::remove_dir_all(&shards).with_context(|| format!("cannot remove {}", shards.display()))?;
        }
    }
    Ok(())
}

/// `config` with what the stored run chose in place of every `"auto"`.
fn with_choices_of(config: &RunConfig, stored: &RunConfig) -> RunConfig {
    let mut config = config.clone();
    let (training, chosen) = (&mut config.training, &stored.training);
    if training.device == "auto" {
        training.device.clone_from(&chosen.device);
    }
    if let Auto::Auto(_) = training.micro_batch_size {
        training.micro_batch_size = chosen.micro_batch_size;
    }
    if let Auto::Auto(_) = training.precision {
        training.precision = chosen.precision;
    }
    if let Auto::Auto(_) = training.recompute {
        training.recompute = chosen.recompute;
    }
    if let Auto::Auto(_) = training.matmul {
        training.matmul = chosen.matmul;
    }
    if let Auto::Auto(_) = training.kernel {
        training.kernel = chosen.kernel;
    }
    config
}

/// A key in which two configs differ, with both values as a config spells them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// With its sections.
    pub(crate) key: String,
    /// In the config that is there.
    pub(crate) stored: String,
    /// In the config that is asked for.
    pub(crate) asked: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Difference { key, stored, asked } = self;
        write!(f, "{key} = {stored} in its config.toml, {asked} is asked for")
    }
}

/// The first key in which two configs differ.
pub(crate) fn first_difference(stored: &RunConfig, asked: &RunConfig) -> Option<Difference> {
    let table = |config: &RunConfig| config.to_text().parse::<Table>().expect("a config's text is TOML");
    let (stored, asked) = (Value::Table(table(stored)), Value::Table(table(asked)));
    let (key, stored, asked) = differing(String::new(), Some(&stored), Some(&asked))?;
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), ToString::to_string);
    Some(Difference { key, stored: text(stored), asked: text(asked) })
}

type DifferingValues<'a> = (String, Option<&'a Value>, Option<&'a Value>);

fn differing<'a>(key: String, a: Option<&'a Value>, b: Option<&'a Value>) -> Option<DifferingValues<'a>> {
    if let (Some(Value::Table(table_a)), Some(Value::Table(table_b))) = (a, b) {
        let new_keys = table_b.keys().filter(|key| !table_a.contains_key(*key));
        return table_a.keys().chain(new_keys).find_map(|name| {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            differing(key, table_a.get(name), table_b.get(name))
        });
    }
    (a != b).then_some((key, a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[&str]) -> RunConfig {
        let text = include_str!("../../../../configs/shakespeare-char.toml");
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        RunConfig::from_text(text, Path::new("config.toml"), &settings).unwrap()
    }

    #[test]
    fn the_first_key_that_differs_is_named_with_both_values() {
        assert_eq!(first_difference(&config(&[]), &config(&[])), None);
        let difference = first_difference(&config(&[]), &config(&["model.n_layers=6"])).unwrap().to_string();
        assert_eq!(difference, "model.n_layers = 4 in its config.toml, 6 is asked for");
        let difference = first_difference(&config(&[]), &config(&["seed=9"])).unwrap().to_string();
        assert!(difference.starts_with("seed = 1337"), "{difference}");
    }

    #[test]
    fn what_was_chosen_automatically_is_no_difference() {
        let asked = config(&[
            "training.micro_batch_size=auto",
            "training.device=auto",
            "training.precision=auto",
            "training.recompute=auto",
            "training.matmul=auto",
            "training.kernel=auto",
        ]);
        let stored = plan::choose(&asked).unwrap();
        assert_ne!(stored, asked);
        assert_eq!(first_difference(&stored, &with_choices_of(&asked, &stored)), None);
    }
}
