//! The allocator. A record is some twenty small allocations, and its memory is freed in batches: with the system's
//! allocator that was among the largest costs of gateway and processor (docs/performance.md, "Where the time goes").
//! It also replaces `malloc`, so that librdkafka uses it.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// Of `mimalloc.h`. The binding has them behind a feature that brings another dependency, and has no name for the option.
unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
}

/// `mi_option_purge_delay`.
const PURGE_DELAY: c_int = 15;

/// For how long freed memory is kept before the kernel gets it back, ms.
const KEPT: c_long = 10_000;

/// Keeps freed memory for longer than mimalloc's second. A role at full load frees and takes the same hundreds of
/// megabytes all the time, and what was given back meanwhile has to be cleared by the kernel to be had again. An
/// operator's `MIMALLOC_PURGE_DELAY` counts instead.
pub fn keep_freed_memory() {
    // SAFETY: it writes one number, and no other thread has been started yet that could read it meanwhile.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upgrade of mimalloc may number its options anew.
    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: a number is read; the tests of this binary change it nowhere else.
        let read = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(read(), 1000, "mimalloc's own purge delay");
        keep_freed_memory();
        assert_eq!(read(), KEPT);
    }
}
