//! Time: the wall clock that a guest asks for, and how long POLL may sleep on ARM64 lest the guest's own clock slip.

/// WALLTIME: nanoseconds since 1970-01-01 00:00 UTC; 0 before that. Section 8.
pub fn walltime() -> u64 {
    todo!()
}

/// The gap between two looks at its cycle counter, in nanoseconds, at which an ARM64 guest's monotonic clock
/// overflows and falls behind by just that much. `frequency` is the counter's, in Hz. Section A5.
pub fn overflow_horizon(frequency: u64) -> u64 {
    todo!("{frequency}")
}

/// The longest that POLL may sleep on ARM64, in nanoseconds: a quarter of [`overflow_horizon`], which leaves room for
/// what the guest does before and after. Section A5.
pub fn poll_limit(frequency: u64) -> u64 {
    overflow_horizon(frequency) / 4
}
