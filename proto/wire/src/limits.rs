//! Every bound this crate puts on peer input, with its reason.

/// Longest head accepted unless the caller says otherwise: room for a large bearer token and a proxy chain's
/// headers.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Header lines accepted unless the caller says otherwise: several times what any client of this API sends.
pub const HEADERS_MAX: usize = 100;

/// Header lines accepted whatever the caller says: the tokeniser's table lives on the stack (4 KiB at this
/// size).
pub const HEADERS_CAP: usize = 128;

/// Headers kept without a heap allocation: clients of this API send 6 to 15, proxies add a few.
pub const HEADERS_INLINE: usize = 24;

/// Digits of a chunk size: sixteen hexadecimal digits are exactly a `u64`, so that no size can overflow.
pub const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of extension after one chunk size: nobody sends any, and they are thrown away.
pub const CHUNK_EXTENSION_BYTES_MAX: u16 = 256;

/// Bytes of extension over a whole body: else a body of one-byte chunks costs 256 times its size.
pub const CHUNK_EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;

/// Bytes of a trailer section: trailers are thrown away, so they get less room than a head.
pub const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// Containers open at once in a JSON text: the kinds of the open ones are one bit each of a `u128`.
pub const JSON_DEPTH_MAX: u32 = 128;

const _: () = assert!(HEADERS_INLINE <= HEADERS_MAX && HEADERS_MAX <= HEADERS_CAP);
const _: () = assert!(CHUNK_SIZE_DIGITS_MAX as u32 * 4 == u64::BITS);
const _: () = assert!(CHUNK_EXTENSION_BYTES_MAX as u32 <= CHUNK_EXTENSIONS_BYTES_MAX);
const _: () = assert!(TRAILER_BYTES_MAX as usize <= HEAD_BYTES_MAX);
const _: () = assert!(JSON_DEPTH_MAX <= u128::BITS);
