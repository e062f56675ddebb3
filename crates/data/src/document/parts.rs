//! Texts as parts of about equal size, however long a document is.

use super::{
    Documents, Error, Input, Layout, Open, Piece, ReadOptions, count_newlines, next_piece, next_row, read_documents,
};
use std::path::PathBuf;

/// A stretch of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// UTF-8, unless raw bytes were asked for: no character is cut.
    pub text: Vec<u8>,
    /// Whether the document ends here.
    pub ends_document: bool,
    /// As [`super::Document::input_bytes`].
    pub input_bytes: u64,
}

/// The documents of `paths`, in order, where those of `.txt` files come in parts of about `part_bytes` and so may have
/// any size. A separator is not looked for: cut the parts at it, one after the other.
///
/// **Errors**: as [`read_documents`].
pub fn read_parts(paths: &[PathBuf], options: ReadOptions, part_bytes: u64) -> Result<Parts, Error> {
    Ok(Parts { documents: read_documents(paths, options)?, part_bytes: part_bytes.max(4), rest: Vec::new() })
}

/// Iterator over the parts of documents; see [`read_parts`].
pub struct Parts {
    documents: Documents,
    part_bytes: u64,
    /// The first bytes of a character whose others are not read yet.
    rest: Vec<u8>,
}

impl Parts {
    fn next_part(&mut self) -> Result<Option<Part>, Error> {
        loop {
            let documents = &mut self.documents;
            let Some(input) = &mut documents.input else {
                if !documents.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let piece = match input {
                Open::Bytes(input) if input.layout == Layout::Text => {
                    match read_text(input, &documents.options, self.part_bytes, &mut self.rest)? {
                        (text, true) if text.is_empty() => {
                            // The end of a document whose text is all handed out, or that has none.
                            let (is_empty, input_bytes) = (documents.n_documents_of_file == 0, documents.bytes_read());
                            if is_empty {
                                documents.note(true);
                            }
                            documents.close()?;
                            return Ok(Some(Part { text, ends_document: true, input_bytes }));
                        }
                        (text, false) if text.is_empty() => continue,
                        (text, ends_document) => Some((text, ends_document)),
                    }
                }
                Open::Bytes(input) => match next_piece(input, &documents.options)? {
                    Some(Piece::Text(text)) => Some((text, true)),
                    Some(Piece::Blank) => continue,
                    None => None,
                },
                Open::Rows(input) => next_row(input, &documents.options)?.map(|text| (text, true)),
            };
            let Some((text, ends_document)) = piece else {
                documents.close()?;
                continue;
            };
            if documents.note(text.is_empty()) {
                return Ok(Some(Part { text, ends_document, input_bytes: documents.bytes_read() }));
            }
        }
    }
}

impl Iterator for Parts {
    type Item = Result<Part, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.next_part().transpose();
        if matches!(part, Some(Err(_))) {
            self.documents.input = None;
            self.documents.paths.clear();
        }
        part
    }
}

/// About `n` bytes of text, and whether nothing follows; nothing at the end.
fn read_text(input: &mut Input, options: &ReadOptions, n: u64, rest: &mut Vec<u8>) -> Result<(Vec<u8>, bool), Error> {
    let start = input.offset - rest.len() as u64;
    let mut text = Vec::with_capacity(n as usize + rest.len());
    text.append(rest);
    let is_end = input.read_up_to(None, n, &mut text)? == 0;
    let valid_up_to = match std::str::from_utf8(&text) {
        Ok(_) => text.len(),
        Err(_) if options.raw_bytes => text.len(),
        Err(error) if error.error_len().is_none() && !is_end => error.valid_up_to(),
        Err(error) => {
            let path = input.path.to_path_buf();
            let line = input.line + count_newlines(&text[..error.valid_up_to()]);
            let offset = start + error.valid_up_to() as u64;
            return Err(Error::InvalidUtf8 { path, line, offset, compressed: input.compressed });
        }
    };
    *rest = text.split_off(valid_up_to);
    input.line += count_newlines(&text);
    Ok((text, is_end))
}
