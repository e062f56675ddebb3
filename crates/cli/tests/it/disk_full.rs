//! A disk that fills up stops a run with a message, and leaves its last checkpoint good.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{cupola, write_config};

/// A small file system in memory, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// None where mounting is not allowed.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mount.ok().filter(|output| output.status.success()).map(|_| SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_last_checkpoint_good() {
    let folder = tempfile::tempdir().unwrap();
    let disk_folder = folder.path().join("disk");
    fs::create_dir(&disk_folder).unwrap();
    let Some(_disk) = SmallDisk::mount(&disk_folder, "12m") else {
        eprintln!("skipped: mounting a small disk is not allowed here");
        return;
    };
    // Each checkpoint is about 3.6 MB: the first fits, the second or third does not.
    let settings = [
        ("training.steps", "6".to_owned()),
        ("training.checkpoint_every", "1".to_owned()),
        ("training.keep_checkpoints", "9".to_owned()),
        ("model.d_model", "128".to_owned()),
        ("model.d_ff", "352".to_owned()),
    ];
    let config = write_config(folder.path(), &settings);
    let run = disk_folder.join("run");
    let train = ["train", config.to_str().unwrap(), "--run", run.to_str().unwrap()];
    let message = cupola(&train).failure();
    assert!(message.contains("No space left") || message.contains("os error 28"), "{message}");
    assert!(message.contains("checkpoint") && message.contains("step-"), "what and where: {message}");

    // Whatever was half-written is gone, and what is there can be used.
    let names: Vec<String> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.is_empty() && names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    cupola(&["generate", run.to_str().unwrap(), "--prompt", "a", "--max-tokens", "3"]).success();
}
