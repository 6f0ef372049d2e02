//! What the allocator does with the memory of frames that are gone.

use std::hint::black_box;

/// Twice this is kept: long messages, and all that is on its way. Bytes.
const HALF: usize = 4 << 20;

/// Lets the allocator keep some memory of frames that are gone, for those that come: once, before the first link.
///
/// glibc gives free memory at the end of its heap back to the system at once, and the system has to clear it again for the
/// next frame, page by page: at gigabytes a second that takes more time than the cipher. How much it keeps follows from the
/// largest block of its own that was ever freed: twice as much (mallopt(3), `M_MMAP_THRESHOLD`). Other allocators do not
/// mind.
pub fn keep_buffers() {
    drop(black_box(Vec::<u8>::with_capacity(black_box(HALF))));
}
