//! Rules about the code itself, from ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The crates that a crate's library depends on.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let allowed: [(&str, &[&str]); 6] = [
        ("tokenizer", &[]),
        ("data", &["tokenizer"]),
        ("tensor", &[]),
        ("nn", &["tensor"]),
        ("train", &["tokenizer", "data", "tensor", "nn"]),
        ("eval", &["tokenizer", "tensor", "nn"]),
    ];
    let ours = ["tokenizer", "data", "tensor", "nn", "train", "eval", "cupola"];
    for (name, allowed) in allowed {
        for dependency in dependencies(name) {
            let fine = !ours.contains(&dependency.as_str()) || allowed.contains(&dependency.as_str());
            assert!(fine, "{name} depends on {dependency}");
        }
    }
}

#[test]
fn unsafe_code_stays_where_the_architecture_puts_it() {
    let allowed = [
        "tensor/src/cpu/",
        "tensor/src/io.rs",
        "tensor/src/cuda/",
        "/cuda.rs",
        "/cuda/",
        "/flat_kernel.rs",
        "/row_kernel.rs",
        "/quantise.rs",
        "tensor/benches/cuda_",
        "data/src/shard/",
        // Memory maps.
        "tokenizer/src/encode.rs",
        // Vector instructions.
        "tokenizer/src/pretokenize/",
        "tokenizer/src/encode/kernel.rs",
        "tokenizer/src/encode/packed.rs",
        // Fetching ahead, and large pages.
        "tokenizer/src/encode/table.rs",
    ];
    let mut files = Vec::new();
    rust_files(&root().join("crates"), &mut files);
    for file in files {
        let name = file.display().to_string();
        let uses = fs::read_to_string(&file).unwrap().lines().any(|line| line.contains("unsafe {"));
        let fine = !uses || allowed.iter().any(|allowed| name.contains(allowed)) || name.ends_with("architecture.rs");
        assert!(fine, "{name} has unsafe code");
    }
}

#[test]
fn only_the_binary_prints_and_reads_the_environment() {
    let mut files = Vec::new();
    for name in ["tokenizer", "data", "tensor", "nn", "train", "eval"] {
        rust_files(&root().join("crates").join(name).join("src"), &mut files);
    }
    for file in files {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        // Tests may print what they skipped.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = name.contains("tests") || name.ends_with("testing.rs") || name.ends_with("reference.rs");
        for word in ["println!", "std::env::", "SystemTime"] {
            assert!(is_test || !code.contains(word), "{name} uses {word}");
        }
    }
}
