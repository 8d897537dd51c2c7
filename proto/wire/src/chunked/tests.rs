//! The chunked coding: every fixture under every cut, every refused form with its defect.

use super::*;

/// What decoding made of an input: the data, the verdict, and how much was read.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    done: Result<bool, ChunkError>,
    read: usize,
}

/// Decodes `bytes` handed over in pieces that end at `cuts`.
fn decode(bytes: &[u8], cuts: &[usize]) -> Decoded {
    let mut decoder = ChunkedDecoder::new();
    let mut data = Vec::new();
    let mut read = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        let mut input = &bytes[read..end];
        let done = loop {
            let before = input.len();
            match decoder.next(&mut input) {
                Ok(Chunk::Data(piece)) => {
                    assert!(!piece.is_empty(), "data is never empty");
                    data.extend_from_slice(piece);
                }
                Ok(Chunk::NeedMore) => {
                    assert!(input.is_empty(), "all was read before more is asked for");
                    break Ok(false);
                }
                Ok(Chunk::End) => break Ok(true),
                Err(error) => {
                    assert_eq!(decoder.next(&mut input), Err(error), "an error is final");
                    break Err(error);
                }
            }
            assert!(input.len() < before, "every step reads");
        };
        read = end - input.len();
        if done != Ok(false) {
            return Decoded { data, done, read };
        }
    }
    assert!(!decoder.is_done());
    Decoded { data, done: Ok(false), read }
}

/// Bodies with what becomes of them: the data, and how many bytes stay behind the end.
const ACCEPTED: &[(&[u8], &[u8], usize)] = &[
    (b"0\r\n\r\n", b"", 0),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0),
    (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /", b"hello world", 5),
    (b"00A\r\n0123456789\r\n000\r\n\r\n", b"0123456789", 0),
    (b"a;x=\"y;z\" ;\tq\r\n0123456789\r\n0;last\r\n\r\n0\r\n", b"0123456789", 3),
    (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n", 0),
    (b"3\r\nabc\r\n0\r\nExpires: never\r\nX:\r\n\r\nz", b"abc", 1),
    (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x", 0),
];

const REFUSED: &[(&[u8], ChunkError)] = &[
    (b"\r\n", ChunkError::SizeMissing),
    (b" 5\r\nhello\r\n", ChunkError::SizeMissing),
    (b"-5\r\n", ChunkError::SizeMissing),
    (b"+5\r\n", ChunkError::SizeMissing),
    (b";x\r\n", ChunkError::SizeMissing),
    (b"g\r\n", ChunkError::SizeMissing),
    (b"5 \r\nhello", ChunkError::SizeInvalid),
    (b"0x5\r\nhello", ChunkError::SizeInvalid),
    (b"5\nhello\r\n", ChunkError::SizeInvalid),
    (b"5,5\r\nhello\r\n", ChunkError::SizeInvalid),
    (b"00000000000000005\r\nhello\r\n", ChunkError::SizeTooLong),
    (b"fffffffffffffffff\r\n", ChunkError::SizeTooLong),
    (b"5\rhello", ChunkError::BareCr),
    (b"5;a\nhello\r\n", ChunkError::ExtensionInvalid),
    (b"5;a\0\r\n", ChunkError::ExtensionInvalid),
    (b"5;a\x7f\r\n", ChunkError::ExtensionInvalid),
    (b"5;a\rb\r\n", ChunkError::BareCr),
    (b"5\r\nhelloo\r\n", ChunkError::DataUnended),
    (b"5\r\nhello\n0\r\n\r\n", ChunkError::DataUnended),
    (b"5\r\nhello\r0\r\n\r\n", ChunkError::DataUnended),
    (b"5\r\nhell\r\n0\r\n\r\n", ChunkError::DataUnended),
    (b"0\r\n\n", ChunkError::TrailerInvalid),
    (b"0\r\n\rx", ChunkError::BareCr),
    (b"0\r\nX: a\n\r\n", ChunkError::TrailerInvalid),
    (b"0\r\nX: a\rb\r\n\r\n", ChunkError::BareCr),
    (b"0\r\nX: \0\r\n\r\n", ChunkError::TrailerInvalid),
    (b"0\r\nX : a\r\n\r\n", ChunkError::TrailerInvalid),
    (b"0\r\n: a\r\n\r\n", ChunkError::TrailerInvalid),
    (b"0\r\nno colon\r\n\r\n", ChunkError::TrailerInvalid),
    (b"0\r\nX: a\r\n fold\r\n\r\n", ChunkError::TrailerInvalid),
];

#[test]
fn bodies_decode_alike_under_every_cut() {
    for &(bytes, data, left) in ACCEPTED {
        let whole = Decoded { data: data.to_vec(), done: Ok(true), read: bytes.len() - left };
        check_every_cut(bytes, &whole);
        for len in 0..whole.read {
            assert_eq!(decode(&bytes[..len], &[]).done, Ok(false), "{len} of {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn every_defect_is_named_under_every_cut() {
    for &(bytes, error) in REFUSED {
        let whole = decode(bytes, &[]);
        assert_eq!(whole.done, Err(error), "{}", bytes.escape_ascii());
        check_every_cut(bytes, &whole);
    }
}

fn check_every_cut(bytes: &[u8], whole: &Decoded) {
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let cut = decode(bytes, &[first, second]);
            assert_eq!(&cut, whole, "{} cut at {first} and {second}", bytes.escape_ascii());
        }
    }
}

#[test]
fn a_size_of_sixteen_digits_is_believed() {
    let mut decoder = ChunkedDecoder::new();
    let mut input: &[u8] = b"ffffffffffffffff\r\nabc";
    assert_eq!(decoder.next(&mut input), Ok(Chunk::Data(b"abc".as_slice())));
    assert_eq!(decoder.remaining, u64::MAX - 3);
}

#[test]
fn extensions_are_bounded_per_chunk_and_per_body() {
    let max = usize::from(CHUNK_EXTENSION_BYTES_MAX);
    let chunk = |len: usize| format!("1;{}\r\nx\r\n", "e".repeat(len - 1));
    assert_eq!(decode(chunk(max).as_bytes(), &[]).done, Ok(false));
    assert_eq!(decode(chunk(max + 1).as_bytes(), &[]).done, Err(ChunkError::ExtensionTooLong));

    let chunks_max = CHUNK_EXTENSIONS_BYTES_MAX as usize / max;
    assert_eq!(decode(chunk(max).repeat(chunks_max).as_bytes(), &[]).done, Ok(false));
    let more = chunk(max).repeat(chunks_max) + "1;\r\n";
    assert_eq!(decode(more.as_bytes(), &[]).done, Err(ChunkError::ExtensionTooLong));
}

#[test]
fn trailers_are_bounded_together() {
    let line = "X: 345678901234\r\n";
    let lines_max = TRAILER_BYTES_MAX as usize / (line.len() - 1);
    let body = |lines| format!("0\r\n{}\r\n", line.repeat(lines));
    assert_eq!(decode(body(lines_max).as_bytes(), &[]).done, Ok(true));
    assert_eq!(decode(body(lines_max + 1).as_bytes(), &[]).done, Err(ChunkError::TrailersTooLong));
}

#[test]
fn what_is_encoded_decodes() {
    let mut bytes = Vec::new();
    let mut data = Vec::new();
    for len in [1, 9, 10, 15, 16, 255, 256, 4095, 70_000] {
        let piece = vec![b'x'; len];
        encode_chunk_head(len, &mut bytes);
        bytes.extend_from_slice(&piece);
        bytes.extend_from_slice(b"\r\n");
        data.extend_from_slice(&piece);
    }
    bytes.extend_from_slice(LAST_CHUNK);
    let read = bytes.len();
    assert_eq!(decode(&bytes, &[]), Decoded { data, done: Ok(true), read });

    let mut line = Vec::new();
    encode_chunk_head(usize::MAX, &mut line);
    encode_chunk_head(0x1a, &mut line);
    assert_eq!(line, format!("{:x}\r\n1a\r\n", usize::MAX).as_bytes());
}
