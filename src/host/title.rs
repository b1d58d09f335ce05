//! The process title: the name that `ps`, `top` and the kernel's log show.

use std::ffi::CString;

use rustix::thread::set_name;

/// Sets the title to `name`, of which the kernel keeps 15 bytes. Later threads inherit it. A failure
/// is no error: only an inherited filter can refuse the call.
pub(crate) fn set(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = set_name(&name);
    }
}
