//! The algorithms of a GPU's matrix products: measured in the first step of a run and kept in its folder.
//!
//! Algorithms differ in rounding, and which is fastest is measured anew each time: a resumed run computes the same bits
//! because it reads what the first step chose.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use tensor::cuda::Context;

use crate::folder::write_whole;
use crate::{Error, RunFolder};

const TITLE: &str = "matrix products measured on ";
const CHECKSUM: &str = ", checksum ";
/// A run has some hundred products, each with a line of about 150 bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Hands the run's choices to the device; `false` if it has none yet.
///
/// # Errors
/// If the file is damaged or was written on another device.
pub(crate) fn restore(folder: &RunFolder, context: &Context) -> Result<bool, Error> {
    let path = folder.matmul_choices();
    let choices = read(&path, &context.name())?;
    // Without a file, those of another run in this process are forgotten.
    context.set_matmul_choices(choices.as_deref().unwrap_or("")).map_err(|error| damaged(&path, error.to_string()))?;
    Ok(choices.is_some())
}

/// Writes down what the device measured.
///
/// # Errors
/// If the folder cannot be written.
pub(crate) fn store(folder: &RunFolder, context: &Context) -> Result<(), Error> {
    write_whole(&folder.matmul_choices(), to_text(&context.name(), &context.matmul_choices()).as_bytes())
}

fn damaged(path: &Path, reason: String) -> Error {
    // The hint below is the one that helps here.
    let reason = reason.lines().next().unwrap_or_default().to_owned();
    Error::MatmulChoices { path: path.to_owned(), reason }
}

fn read(path: &Path, device: &str) -> Result<Option<String>, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    from_text(&bytes, device).map(Some).map_err(|reason| damaged(path, reason))
}

fn to_text(device: &str, choices: &str) -> String {
    format!("{TITLE}{device}{CHECKSUM}{:016x}\n{choices}", xxhash_rust::xxh3::xxh3_64(choices.as_bytes()))
}

/// The choices, or why they are none.
fn from_text(bytes: &[u8], device: &str) -> Result<String, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {} MiB", MAX_BYTES >> 20));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (title, choices) = text.split_once('\n').ok_or("its first line is cut short")?;
    let (measured_on, checksum) = title
        .strip_prefix(TITLE)
        .and_then(|rest| rest.rsplit_once(CHECKSUM))
        .ok_or_else(|| format!("its first line does not start with \"{TITLE}\""))?;
    if u64::from_str_radix(checksum, 16) != Ok(xxhash_rust::xxh3::xxh3_64(choices.as_bytes())) {
        return Err("its lines do not have its checksum".to_owned());
    }
    if measured_on != device {
        return Err(format!("it was measured on {measured_on}, and this is {device}"));
    }
    Ok(choices.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOICES: &str = "bf16 f32 768x2304x9 = 130001 0 1 2 3 4 5 6 7\nf32 f32 1x2x3 = separate\n";

    #[test]
    fn choices_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("choices");
        assert_eq!(read(&path, "a device").unwrap(), None);
        for choices in [CHOICES, ""] {
            write_whole(&path, to_text("a device", choices).as_bytes()).unwrap();
            assert_eq!(read(&path, "a device").unwrap().unwrap(), choices);
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_with_its_reason() {
        let good = to_text("a device", CHOICES);
        let refused = |bytes: &[u8], device: &str, reason: &str| {
            let found = from_text(bytes, device).unwrap_err();
            assert!(found.contains(reason), "{found}");
        };
        refused(good.as_bytes(), "another", "measured on a device, and this is another");
        refused(good.replace("768", "769").as_bytes(), "a device", "checksum");
        refused(&good.as_bytes()[..good.len() - 1], "a device", "checksum");
        refused(&good.as_bytes()[..20], "a device", "cut short");
        refused(b"", "a device", "cut short");
        refused(b"\xff\n", "a device", "not text");
        refused(CHOICES.as_bytes(), "a device", "does not start with");
        refused(&vec![b'x'; MAX_BYTES as usize + 1], "a device", "longer than 16 MiB");
        let error = damaged(Path::new("run/matmul_choices.txt"), "no\nhint: other".to_owned()).to_string();
        assert!(error.contains("run/matmul_choices.txt") && error.matches("hint: ").count() == 1, "{error}");
    }
}
