//! TensorBoard event files: TFRecord frames around hand-encoded `Event` messages.
//!
//! A frame is `length: u64 | crc(length): u32 | data | crc(data): u32`, little-endian, where `crc` is
//! the masked CRC-32C of TensorFlow's `record_writer.cc`. The messages and their field numbers are
//! those of `tensorflow/core/util/event.proto` and `framework/summary.proto`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// An event file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the TensorBoard events to {path}\nhint: check free space and permissions, then resume the run")]
pub struct EventError {
    /// The event file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Writes scalars to one event file.
///
/// Wall times are seconds since 1970 and come from the caller. Records are buffered: what was written
/// since the last [`EventWriter::flush`] is lost if the process is killed, and readers skip a torn end.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<seconds>.<suffix>` in `dir` and the folder itself if needed.
    ///
    /// Files of earlier parts of the run stay: TensorBoard reads all files of a folder in the order
    /// of their names. A number is added to a name that is taken.
    ///
    /// # Errors
    /// If the folder or the file cannot be created.
    pub fn create(dir: &Path, wall_time: f64, suffix: &str) -> Result<Self, EventError> {
        let failed = |path: &Path, source| EventError { path: path.into(), source };
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        // Ten digits keep the order of names the order of time until the year 2286.
        let name = format!("events.out.tfevents.{:010}.{suffix}", wall_time as u64);
        let mut path = dir.join(&name);
        let mut attempt = 0;
        let file = loop {
            match File::create_new(&path) {
                Ok(file) => break file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {
                    attempt += 1;
                    path = dir.join(format!("{name}.{attempt}"));
                }
                Err(source) => return Err(failed(&path, source)),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut event = event_at(wall_time, 0);
        put_bytes(&mut event, EVENT_FILE_VERSION, b"brain.Event:2");
        writer.write_frame(&event)?;
        Ok(writer)
    }

    /// Tells readers to forget the points at `step` and later that earlier files hold.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn resume_from(&mut self, step: u64, wall_time: f64) -> Result<(), EventError> {
        let mut session_log = Vec::new();
        put_varint_field(&mut session_log, SESSION_LOG_STATUS, SESSION_LOG_START);
        let mut event = event_at(wall_time, step);
        put_bytes(&mut event, EVENT_SESSION_LOG, &session_log);
        self.write_frame(&event)
    }

    /// Adds the point `(step, value)` to the curve `tag`, such as `train/loss`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f32, step: u64, wall_time: f64) -> Result<(), EventError> {
        let mut summary_value = Vec::new();
        put_bytes(&mut summary_value, VALUE_TAG, tag.as_bytes());
        put_key(&mut summary_value, VALUE_SIMPLE_VALUE, WIRE_FIXED32);
        summary_value.extend_from_slice(&value.to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, SUMMARY_VALUE, &summary_value);
        let mut event = event_at(wall_time, step);
        put_bytes(&mut event, EVENT_SUMMARY, &summary);
        self.write_frame(&event)
    }

    /// Hands everything written so far to the system, so that readers see it.
    ///
    /// # Errors
    /// If the file cannot be written, such as on a full disk.
    pub fn flush(&mut self) -> Result<(), EventError> {
        self.file.flush().map_err(|source| EventError { path: self.path.clone(), source })
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write_frame(&mut self, data: &[u8]) -> Result<(), EventError> {
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(data.len() + 16);
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
        frame.extend_from_slice(data);
        frame.extend_from_slice(&masked_crc32c(data).to_le_bytes());
        self.file.write_all(&frame).map_err(|source| EventError { path: self.path.clone(), source })
    }
}

// Field numbers of `Event`, `SessionLog`, `Summary` and `Summary.Value`.
const EVENT_WALL_TIME: u64 = 1;
const EVENT_STEP: u64 = 2;
const EVENT_FILE_VERSION: u64 = 3;
const EVENT_SUMMARY: u64 = 5;
const EVENT_SESSION_LOG: u64 = 7;
const SESSION_LOG_STATUS: u64 = 1;
const SESSION_LOG_START: u64 = 1;
const SUMMARY_VALUE: u64 = 1;
const VALUE_TAG: u64 = 1;
const VALUE_SIMPLE_VALUE: u64 = 2;

// Wire types of protocol buffers.
const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

fn event_at(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    put_key(&mut event, EVENT_WALL_TIME, WIRE_FIXED64);
    event.extend_from_slice(&wall_time.to_le_bytes());
    put_varint_field(&mut event, EVENT_STEP, step);
    event
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn put_key(message: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(message, field << 3 | wire_type);
}

fn put_varint_field(message: &mut Vec<u8>, field: u64, value: u64) {
    put_key(message, field, WIRE_VARINT);
    put_varint(message, value);
}

fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(message, field, WIRE_BYTES);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// The rotation and offset keep a checksum stored within checksummed data from being special.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 of Castagnoli: reflected polynomial 0x82f63b78, initial value and final XOR all ones.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| CRC32C[((crc ^ byte as u32) & 0xff) as usize] ^ (crc >> 8))
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};
