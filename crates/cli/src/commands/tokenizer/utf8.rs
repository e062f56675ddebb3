//! A check of UTF-8 on text that streams by.

use std::io::{self, Read};

/// Passes bytes on and fails at the first that is not UTF-8.
pub(super) struct CheckedUtf8<R> {
    inner: R,
    /// The beginning of a character whose end was not read yet.
    incomplete: Vec<u8>,
    /// Bytes before `incomplete`.
    offset: u64,
}

impl<R: Read> CheckedUtf8<R> {
    pub(super) fn new(inner: R) -> Self {
        CheckedUtf8 { inner, incomplete: Vec::new(), offset: 0 }
    }

    /// Takes in what was read; nothing read is the end.
    fn check(&mut self, read: &[u8]) -> io::Result<()> {
        let mut text = std::mem::take(&mut self.incomplete);
        text.extend_from_slice(read);
        let valid = match std::str::from_utf8(&text) {
            Ok(_) => text.len(),
            Err(error) if error.error_len().is_none() && !read.is_empty() => error.valid_up_to(),
            Err(error) => {
                let offset = self.offset + error.valid_up_to() as u64;
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "invalid UTF-8 at byte offset {offset}\nhint: convert the text to UTF-8, or pass raw bytes on \
                         purpose (--raw-bytes)"
                    ),
                ));
            }
        };
        self.offset += valid as u64;
        self.incomplete = text.split_off(valid);
        Ok(())
    }
}

impl<R: Read> Read for CheckedUtf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if !buffer.is_empty() {
            self.check(&buffer[..n])?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buffer.len());
            self.0.read(&mut buffer[..n])
        }
    }

    #[test]
    fn the_offset_is_that_of_the_standard_library_however_the_text_is_cut() {
        let cases: [&[u8]; 6] =
            ["aé世😀b".as_bytes(), b"abc\xff", b"\xf0\x9f\x98", b"ab\xc3(", b"", b"\xe4\xb8\x96\xe4\xb8"];
        for case in cases {
            for step in 1..6 {
                let mut all = Vec::new();
                let result = CheckedUtf8::new(Slow(case, step)).read_to_end(&mut all);
                match std::str::from_utf8(case) {
                    Ok(_) => assert_eq!((result.unwrap(), &all[..]), (case.len(), case)),
                    Err(error) => {
                        let message = result.unwrap_err().to_string();
                        assert!(message.contains(&format!("offset {}\n", error.valid_up_to())), "{message}");
                    }
                }
            }
        }
    }
}
