//! Tokenizers and what to call them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokenizer::Tokenizer;

/// A tokenizer of the comparison.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) tokenizer: Tokenizer,
}

/// Reads the tokenizers that the command line names: `FILE` or `NAME=FILE`.
pub(super) fn load(arguments: &[String]) -> Result<Vec<Named>> {
    let given: Vec<(Option<&str>, &Path)> = arguments.iter().map(|argument| split(argument)).collect();
    let short: Vec<String> =
        given.iter().map(|(name, file)| name.map_or_else(|| name_of(file), str::to_owned)).collect();
    // Of equal names the files tell more.
    let is_alone = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    let name = |i: usize| match given[i].0.is_some() || is_alone(&short[i]) {
        true => short[i].clone(),
        false => given[i].1.display().to_string(),
    };
    let names: Vec<String> = (0..given.len()).map(name).collect();
    let mut loaded = Vec::new();
    for (name, (_, file)) in names.into_iter().zip(given) {
        loaded.push(Named { name, file: file.to_owned(), tokenizer: Tokenizer::from_file(file)? });
    }
    Ok(loaded)
}

/// A file that exists is none with a name before it.
fn split(argument: &str) -> (Option<&str>, &Path) {
    match argument.split_once('=') {
        Some((name, file)) if !name.is_empty() && !Path::new(argument).exists() => (Some(name), Path::new(file)),
        _ => (None, Path::new(argument)),
    }
}

/// What tells a file from others: its name, or that of the folder before it where all such files have one name.
fn name_of(path: &Path) -> String {
    let part = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    if path.is_dir() {
        // Even of `.`.
        return part(path).or_else(|| part(&path.canonicalize().ok()?)).unwrap_or_else(|| path.display().to_string());
    }
    let name = part(path).unwrap_or_else(|| path.display().to_string());
    let folder = match name.as_str() {
        "tokenizer.json" | "tokenizer.model" | "spiece.model" => path.parent().and_then(part),
        _ => None,
    };
    let ends = [".tokenizer.json", ".json", ".model", ".tiktoken"];
    let stem = ends.into_iter().find_map(|end| name.strip_suffix(end)).filter(|stem| !stem.is_empty());
    folder.unwrap_or_else(|| stem.unwrap_or(&name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_called_by_what_tells_it_from_others() {
        let cases = [
            ("a/gpt2/tokenizer.json", "gpt2"),
            ("tokenizer.json", "tokenizer"),
            ("x/llama.model", "llama"),
            ("cl100k_base.tiktoken", "cl100k_base"),
            ("n.tokenizer.json", "n"),
        ];
        for (path, name) in cases {
            assert_eq!(name_of(Path::new(path)), name);
        }
        assert_eq!(split("mine=a/b.json"), (Some("mine"), Path::new("a/b.json")));
        assert_eq!(split("a/b.json"), (None, Path::new("a/b.json")));
    }

    #[test]
    fn equal_names_give_way_to_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name).join("tokenizer.json");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            Tokenizer::bytes().save(&path).unwrap();
            path.display().to_string()
        };
        let files = [file("a/x"), file("b/x"), file("y"), format!("z={}", file("w"))];
        let names: Vec<String> = load(&files).unwrap().into_iter().map(|named| named.name).collect();
        assert_eq!(names, [files[0].clone(), files[1].clone(), "y".to_owned(), "z".to_owned()]);
    }
}
