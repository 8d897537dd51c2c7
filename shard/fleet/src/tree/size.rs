//! What the allocator really takes for the parts of the tree.
//!
//! The rule is mimalloc's, which the program ships with: steps of 16 bytes up to 128, then four classes per doubling.
//! glibc takes slightly less for large parts and up to 16 bytes more for small ones. Neither account knows of freed
//! pages that the allocator keeps: after building a tree of 48 MB the process is 51 MB larger with glibc, 55 to 65 MB
//! with mimalloc, the more the longer its purge delay.

/// The two reference counts in front of what an `Arc` points to.
const ARC_COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// Bytes that an allocation of `bytes` occupies.
pub(super) const fn allocated(bytes: usize) -> usize {
    if bytes <= 128 {
        bytes.next_multiple_of(16)
    } else {
        bytes.next_multiple_of(bytes.next_power_of_two() / 8)
    }
}

/// Bytes that a boxed slice or exact vector of `len` elements occupies; an empty one allocates nothing.
pub(super) const fn slice_bytes<T>(len: usize) -> usize {
    allocated(len * size_of::<T>())
}

/// Bytes that an `Arc<T>` occupies.
pub(super) const fn arc_bytes<T>() -> usize {
    allocated(ARC_COUNTS_BYTES + size_of::<T>())
}

/// Bytes that an `Arc<[T]>` of `len` elements occupies.
pub(super) const fn arc_slice_bytes<T>(len: usize) -> usize {
    allocated(ARC_COUNTS_BYTES + len * size_of::<T>())
}

/// Makes room for one more element, growing by a quarter: doubling would let one insertion overrun the byte bound by
/// a whole table, and evict thousands of leaves to pay for it.
pub(super) fn reserve_quarter<T>(table: &mut Vec<T>) {
    if table.len() == table.capacity() {
        table.reserve_exact((table.len() / 4).max(16));
    }
}
