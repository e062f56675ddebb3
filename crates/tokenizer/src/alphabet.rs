//! The printable alphabet in which GPT-2 writes bytes: one character per byte, no white space.
//!
//! Printable Latin-1 stands for itself (`A`, `é`); the other 68 bytes, in order, are the characters
//! from U+0100, so a space is `Ġ` and a line feed is `Ċ`. Files hold tokens in this alphabet.

const CHAR_OF_BYTE: [char; 256] = char_of_byte();
const BYTE_OF_CHAR: [Option<u8>; 0x144] = byte_of_char();

/// All bytes in the order of their characters: the order of the 256 first tokens in the files of
/// GPT-2, of Hugging Face's trainer and of the course.
pub(crate) const BYTES_IN_ORDER: [u8; 256] = bytes_in_order();

/// `bytes` in the alphabet.
pub(crate) fn write(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| CHAR_OF_BYTE[usize::from(byte)]).collect()
}

/// The bytes that `text` stands for; `None` if a character is not of the alphabet.
pub(crate) fn read(text: &str) -> Option<Box<[u8]>> {
    text.chars().map(|c| BYTE_OF_CHAR.get(c as usize).copied().flatten()).collect()
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

const fn char_of_byte() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut byte = 0;
    let mut next = '\u{100}' as u32;
    while byte < 256 {
        if is_printable(byte as u8) {
            chars[byte] = byte as u8 as char;
        } else {
            chars[byte] = match char::from_u32(next) {
                Some(c) => c,
                None => panic!("68 characters from U+0100 are no surrogates"),
            };
            next += 1;
        }
        byte += 1;
    }
    chars
}

const fn byte_of_char() -> [Option<u8>; 0x144] {
    let mut bytes = [None; 0x144];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHAR_OF_BYTE[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
}

const fn bytes_in_order() -> [u8; 256] {
    let mut ordered = [0; 256];
    let (mut n, mut c) = (0, 0);
    while c < BYTE_OF_CHAR.len() {
        if let Some(byte) = BYTE_OF_CHAR[c] {
            ordered[n] = byte;
            n += 1;
        }
        c += 1;
    }
    ordered
}
