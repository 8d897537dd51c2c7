//! Chunked bodies: the same data and the same verdict under every cut, and after being encoded anew.

use wire::{Chunk, ChunkError, ChunkedDecoder, LAST_CHUNK, encode_chunk_head};

use super::cuts;

/// The data, whether it came to its end, and how many bytes were read.
type Decoded = (Vec<u8>, Result<bool, ChunkError>, usize);

/// One input: the bytes of a body, and what follows it.
pub fn fuzz_chunked(data: &[u8]) {
    let whole = decode(&[data]);
    for cut in cuts(data.len()) {
        let (before, after) = data.split_at(cut);
        assert_eq!(decode(&[before, after]), whole, "cut at {cut}");
    }
    let (body, done, read) = whole;
    assert!(body.len() <= read && read <= data.len(), "no more is handed out than was read");
    if done == Ok(true) {
        let mut encoded = Vec::new();
        if !body.is_empty() {
            encode_chunk_head(body.len(), &mut encoded);
            encoded.extend_from_slice(&body);
            encoded.extend_from_slice(b"\r\n");
        }
        encoded.extend_from_slice(LAST_CHUNK);
        assert_eq!(decode(&[&encoded]), (body, Ok(true), encoded.len()));
    }
}

fn decode(pieces: &[&[u8]]) -> Decoded {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Vec::new();
    let mut read = 0;
    for &piece in pieces {
        let mut input = piece;
        let done = loop {
            match decoder.next(&mut input) {
                Ok(Chunk::Data(data)) => body.extend_from_slice(data),
                Ok(Chunk::NeedMore) => break Ok(false),
                Ok(Chunk::End) => break Ok(true),
                Err(error) => break Err(error),
            }
        };
        read += piece.len() - input.len();
        if done != Ok(false) {
            return (body, done, read);
        }
    }
    (body, Ok(false), read)
}
