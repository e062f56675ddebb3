//! The column `text` of a Parquet file, one row group at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::Error;

/// The column that holds documents.
const COLUMN: &str = "text";
/// Rows decoded at a time.
const BATCH_ROWS: usize = 64;

/// The rows of a file, in order.
pub(super) struct ParquetInput {
    pub(super) path: Arc<PathBuf>,
    file: SerializedFileReader<File>,
    column_idx: usize,
    next_group: usize,
    column: Option<ColumnReaderImpl<ByteArrayType>>,
    values: vec::IntoIter<ByteArray>,
    /// Whether each row of the batch has a value.
    is_present: vec::IntoIter<bool>,
    max_level: i16,
    n_bytes: u64,
    bytes_read: Arc<AtomicU64>,
    /// Row of the last text, from 1.
    pub(super) row: u64,
}

impl ParquetInput {
    /// Opens `path`; its bytes are added to `bytes_read` as its row groups are done.
    pub(super) fn open(path: &Path, bytes_read: &Arc<AtomicU64>) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::read(path, source))?;
        let n_bytes = file.metadata().map_err(|source| Error::read(path, source))?.len();
        let file = SerializedFileReader::new(file).map_err(|error| malformed(path, &error))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let is_text = |column: &parquet::schema::types::ColumnDescPtr| {
            column.path().string() == COLUMN
                && column.physical_type() == Type::BYTE_ARRAY
                && column.max_rep_level() == 0
        };
        let Some(column_idx) = schema.columns().iter().position(is_text) else {
            let reason = format!("it has no column `{COLUMN}` of texts");
            return Err(Error::MalformedParquet { path: path.to_owned(), reason });
        };
        let max_level = schema.column(column_idx).max_def_level();
        Ok(Self {
            path: Arc::new(path.to_owned()),
            file,
            column_idx,
            next_group: 0,
            column: None,
            values: Vec::new().into_iter(),
            is_present: Vec::new().into_iter(),
            max_level,
            n_bytes,
            bytes_read: Arc::clone(bytes_read),
            row: 0,
        })
    }

    /// The text of the next row, empty where there is none; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(is_present) = self.is_present.next() {
                self.row += 1;
                let value = if is_present { self.values.next() } else { None };
                return Ok(Some(value.map_or_else(Vec::new, |value| value.data().to_vec())));
            }
            let path = Arc::clone(&self.path);
            if !self.read_rows().map_err(|error| malformed(&path, &error))? {
                return Ok(None);
            }
        }
    }

    /// Decodes some more rows; `false` at the end.
    fn read_rows(&mut self) -> Result<bool, ParquetError> {
        let Some(column) = &mut self.column else {
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.next_group)?;
            self.next_group += 1;
            self.column = match group.get_column_reader(self.column_idx)? {
                ColumnReader::ByteArrayColumnReader(column) => Some(column),
                _ => return Err(ParquetError::General(format!("column `{COLUMN}` is not of texts"))),
            };
            return Ok(true);
        };
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let has_levels = self.max_level > 0;
        let (n_rows, ..) = column.read_records(BATCH_ROWS, has_levels.then_some(&mut levels), None, &mut values)?;
        if n_rows == 0 {
            self.column = None;
            // What the other columns take is read by nobody, but it is behind us.
            let n_groups = self.file.num_row_groups() as u64;
            let done = |n: u64| self.n_bytes * n / n_groups;
            let group = self.next_group as u64;
            self.bytes_read.fetch_add(done(group) - done(group - 1), Ordering::Relaxed);
        }
        self.is_present = match has_levels {
            true => levels.iter().map(|&level| level == self.max_level).collect::<Vec<_>>().into_iter(),
            false => vec![true; n_rows].into_iter(),
        };
        self.values = values.into_iter();
        Ok(true)
    }
}

fn malformed(path: &Path, error: &ParquetError) -> Error {
    Error::MalformedParquet { path: path.to_owned(), reason: error.to_string() }
}
