//! What people and programs see. Results go to standard output; what happens meanwhile, and what went wrong, to standard
//! error.

pub(crate) mod progress;
pub(crate) mod units;

use std::io::{self, Write};

use anyhow::{Context, Error, Result};
use serde::Serialize;

pub(crate) use progress::Bar;

/// Prints text to standard output at once.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints bytes to standard output at once.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Prints the one object of `--json`.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(value).context("the result has no JSON text")?;
    text.push('\n');
    print(&text)
}

/// Prints a result: for a program as JSON, for a person as text.
pub(crate) fn print_result(json: bool, value: &impl Serialize, text: &dyn Fn() -> String) -> Result<()> {
    if json { print_json(value) } else { print(&text()) }
}

/// Says what is going on. A standard error that is gone stops nothing.
pub(crate) fn note(text: &str) {
    progress::above_bar(|| {
        let _ = writeln!(io::stderr().lock(), "{text}");
    });
}

/// Whether whoever read our output has had enough, as `head` does.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints what went wrong, why, and what to do.
pub(crate) fn print_error(error: &Error) {
    note(&error_with_hint(error));
}

/// What [`print_error`] prints: where no part of the program has a hint, there may be one for what the system said.
fn error_with_hint(error: &Error) -> String {
    let mut text = error_text(&error.chain().map(ToString::to_string).collect::<Vec<_>>());
    if !text.contains("\nhint: ")
        && let Some(hint) = error.chain().find_map(|cause| hint_of(cause.downcast_ref::<io::Error>()?.kind()))
    {
        text += &format!("\nhint: {hint}");
    }
    text
}

/// What to do when the system refuses.
fn hint_of(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind;
    match kind {
        ErrorKind::NotFound => Some("check the path and the folder that it is relative to"),
        ErrorKind::NotADirectory => Some("a part of the path is a file where a folder is needed"),
        ErrorKind::IsADirectory => Some("name a file, not a folder"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some("check the permissions of the folder, or choose another")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "free some space, or choose a folder on another disk, then start again; what was there before is unchanged",
        ),
        _ => None,
    }
}

/// `error: …`, a `caused by` line for each cause that says something more, then the hints of all.
fn error_text(messages: &[String]) -> String {
    let (mut text, mut hints) = (String::new(), String::new());
    let mut said = String::new();
    for message in messages {
        let is_hint = |line: &&str| line.starts_with("hint: ");
        for hint in message.lines().filter(is_hint) {
            hints += &format!("\n{hint}");
        }
        let rest = message.lines().filter(|line| !is_hint(line)).collect::<Vec<_>>().join("\n");
        if said.contains(&rest) {
            continue;
        }
        text += if text.is_empty() { "error: " } else { "\n  caused by: " };
        text += &rest;
        said += &rest;
    }
    text + &hints
}

/// Lines of `name  value` with the values in one column.
pub(crate) fn pairs(pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("  {name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(messages: &[&str]) -> String {
        error_text(&messages.iter().map(|&message| message.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_error_is_its_chain_without_repetition_and_its_hints_at_the_end() {
        let shown = text(&["cannot read a.txt\nhint: look", "cannot read a.txt", "permission denied"]);
        assert_eq!(shown, "error: cannot read a.txt\n  caused by: permission denied\nhint: look");
    }

    #[test]
    fn what_the_system_refuses_gets_a_hint_unless_there_is_one() {
        let shown = |kind: io::ErrorKind, what: &'static str| {
            error_with_hint(&Error::from(io::Error::from(kind)).context(what))
        };
        let denied = shown(io::ErrorKind::PermissionDenied, "cannot write a.txt");
        assert!(
            denied.starts_with("error: cannot write a.txt\n") && denied.contains("hint: check the permissions"),
            "{denied}"
        );
        assert!(shown(io::ErrorKind::StorageFull, "cannot write a.txt").contains("hint: free some space"));
        let hints = shown(io::ErrorKind::StorageFull, "cannot write a.txt\nhint: b").matches("hint: ").count();
        assert_eq!(hints, 1);
        assert!(shown(io::ErrorKind::NotFound, "cannot read a.txt").contains("hint: check the path"));
        assert!(!shown(io::ErrorKind::InvalidData, "cannot read a.txt").contains("hint: "));
    }

    #[test]
    fn lines_of_a_message_stay_in_order() {
        let shown = text(&["not a config\nline 3\n  |  ^\nhint: a\nhint: b"]);
        assert_eq!(shown, "error: not a config\nline 3\n  |  ^\nhint: a\nhint: b");
    }
}
