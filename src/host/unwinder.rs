//! Replaces the unwinder of the C compiler's library.
//!
//! In a program that aborts on a panic, only two things need an unwinder: a backtrace, which the
//! panic hook of [`start`](super::start) does not print, and C code that ends a thread. Without an
//! unwinder, the compiler omits all code that reads debug information and prints names: 11 % of the
//! binary.

#![expect(unsafe_code, reason = "replaces functions of a C library")]

use std::ffi::c_int;

/// `_URC_END_OF_STACK` of the Itanium C++ ABI: there is no caller to visit.
const END_OF_STACK: c_int = 5;

/// Visits no caller.
// SAFETY: the functions here replace all those of the unwinder that the program refers to, so that
// the linker finds no second one. This result is valid on any stack.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const (), _argument: *mut ()) -> c_int {
    END_OF_STACK
}

/// Defines functions that can only be called while the stack is unwound.
macro_rules! unused {
    ($($name:ident)*) => {$(
        // SAFETY: as above. The function does not return, so that its parameters do not matter.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

unused! {
    _Unwind_FindEnclosingFunction
    _Unwind_ForcedUnwind
    _Unwind_GetCFA
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
}
