//! The files are taken apart by a reader that shares no code with the writer.

use super::*;

/// One field of a protocol-buffer message.
#[derive(Debug, PartialEq)]
enum Field {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

/// Takes `n` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(n);
    *bytes = tail;
    head
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value += u64::from(byte % 128) << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key % 8 {
            0 => Field::Varint(varint(&mut bytes)),
            1 => Field::Fixed64(take(&mut bytes, 8).try_into().expect("8 bytes")),
            2 => {
                let n = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, n).to_vec())
            }
            5 => Field::Fixed32(take(&mut bytes, 4).try_into().expect("4 bytes")),
            wire_type => panic!("wire type {wire_type}"),
        };
        fields.push((key / 8, field));
    }
    fields
}

/// The check value bit by bit: no table, as the definition has it.
fn masked_crc_by_division(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    let crc = crc ^ u32::MAX;
    (crc >> 15).wrapping_add(crc << 17).wrapping_add(0xa282_ead8)
}

fn events(path: &Path) -> Vec<Vec<(u64, Field)>> {
    let file = std::fs::read(path).expect("an event file");
    let mut bytes = &file[..];
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        let check = take(&mut bytes, 4);
        assert_eq!(check, masked_crc_by_division(length).to_le_bytes());
        let data = take(&mut bytes, u64::from_le_bytes(length.try_into().expect("8")) as usize);
        let check = take(&mut bytes, 4);
        assert_eq!(check, masked_crc_by_division(data).to_le_bytes());
        events.push(fields(data));
    }
    events
}

/// The check value of the catalogue of CRC algorithms, and RFC 3720, appendix B.4.
#[test]
fn crc32c_equals_published_values() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn an_independent_reader_finds_version_and_scalars() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut writer = EventWriter::create(&dir.path().join("a/b"), 1.7e9, "cupola").expect("created");
    assert!(writer.path().ends_with("a/b/events.out.tfevents.1700000000.cupola"));
    writer.resume_from(300, 1.7e9 + 1.0).expect("written");
    writer.scalar("train/loss", 2.5, 1 << 40, 1.7e9 + 2.5).expect("written");
    writer.flush().expect("flushed");

    let time = |seconds: f64| (1, Field::Fixed64((1.7e9 + seconds).to_le_bytes()));
    let events = events(writer.path());
    assert_eq!(events[0], [time(0.0), (2, Field::Varint(0)), (3, Field::Bytes(b"brain.Event:2".to_vec()))]);
    assert_eq!(events[1], [time(1.0), (2, Field::Varint(300)), (7, Field::Bytes(vec![8, 1]))]);
    let [at, step, (5, Field::Bytes(summary))] = &events[2][..] else { panic!("{events:?}") };
    assert_eq!((at, step), (&time(2.5), &(2, Field::Varint(1 << 40))));
    let summary = fields(summary);
    let [(1, Field::Bytes(value))] = &summary[..] else { panic!("{summary:?}") };
    let expected = [(1, Field::Bytes(b"train/loss".to_vec())), (2, Field::Fixed32(2.5f32.to_le_bytes()))];
    assert_eq!(fields(value), expected);
    assert_eq!(events.len(), 3);
}

#[test]
fn a_second_file_of_the_same_second_gets_its_own_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = EventWriter::create(dir.path(), 5.0, "cupola").expect("created");
    let second = EventWriter::create(dir.path(), 5.0, "cupola").expect("created");
    assert!(first.path() < second.path());
    assert!(second.path().ends_with("events.out.tfevents.0000000005.cupola.1"));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = EventWriter::create(&file.join("tb"), 5.0, "cupola").expect_err("a file");
    assert!(error.to_string().contains("file/tb"), "{error}");
}
