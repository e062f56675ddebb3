//! The same work in PyTorch.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The work of `cupola bench gpu`.
pub(super) const GPU: &str = include_str!("../../../../../benches/gpu_peer.py");
/// The work of `cupola bench cpu`.
pub(super) const CPU: &str = include_str!("../../../../../benches/cpu_peer.py");

/// Runs a script and returns what it printed.
pub(super) fn run(script: &str) -> Result<String> {
    let mut child =
        Command::new("python3").args(["-", "all"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context(
            "cannot start python3\nhint: --peer needs a python3 that has torch; leave it out to measure Cupola alone",
        )?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // If python3 ends early, its exit code says more than the broken pipe.
    let _ = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for python3")?;
    if !output.status.success() {
        bail!(
            "the PyTorch script ended with {}\nhint: --peer needs a python3 that has torch, and for a GPU sees it",
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
