//! Protocol buffers, as much as a SentencePiece model needs:
//! <https://protobuf.dev/programming-guides/encoding/>.

use super::parse::{Result, invalid};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, in the order of the file.
pub(super) fn fields(mut message: &[u8]) -> Result<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        match field(&mut message) {
            Some(field) => fields.push(field),
            None => return invalid("a message ends within a field, or has a field of no kind that there is"),
        }
    }
    Ok(fields)
}

fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(message)?;
    let field = match key & 7 {
        0 => Field::Varint(varint(message)?),
        1 => Field::Fixed64(*message.split_off_chunk()?),
        2 => {
            let len = usize::try_from(varint(message)?).ok()?;
            let (bytes, rest) = message.split_at_checked(len)?;
            *message = rest;
            Field::Bytes(bytes)
        }
        5 => Field::Fixed32(*message.split_off_chunk()?),
        _ => return None,
    };
    Some((key >> 3, field))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

trait SplitOffChunk<'a> {
    fn split_off_chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]>;
}

impl<'a> SplitOffChunk<'a> for &'a [u8] {
    fn split_off_chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.split_first_chunk()?;
        *self = rest;
        Some(chunk)
    }
}

impl<'a> Field<'a> {
    /// The flag that it is, if it is a number.
    pub(super) fn flag(self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Varint(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn float(self) -> Option<f32> {
        match self {
            Self::Fixed32(bytes) => Some(f32::from_le_bytes(bytes)),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// A message that is being written.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    pub(super) fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
