//! The process's use of Linux: descriptors, files, signals, the service manager, the C start-up.

pub mod capabilities;
pub mod descriptors;
pub mod device_file;
pub mod files;
pub mod ids;
pub mod inherited_filter;
pub(crate) mod lease;
pub mod owner;
pub mod service_manager;
pub mod signal;
pub mod similar;
pub mod start;
pub mod threads;
pub(crate) mod title;
pub mod unix_socket;
#[cfg(panic = "abort")]
mod unwinder;
pub mod user;
