//! The host's end of a tap, for numbered frames as the `ring` unikernels send and count them:
//! broadcast, EtherType 0x88b5, the number as 8 bytes (highest first) after the header, the rest
//! filled with its lowest byte.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::net::{Tap, packet_socket};
use super::{LIMIT, host_error};

/// EtherType for local experiments.
const ETHERTYPE: u16 = 0x88b5;

/// Offset of the number.
const NUMBER: std::ops::Range<usize> = 14..22;

/// Receive buffer in bytes: room for more than 100,000 short frames.
const ROOM: libc::c_int = 64 << 20;

/// Most frames sent that `tender` has not taken yet; a tap's queue holds 1000.
const WINDOW: u64 = 400;

/// Sends and receives numbered frames, and only these.
pub struct Wire<'t> {
    tap: &'t Tap,
    socket: File,
    /// How many frames `tender` had taken before our first.
    before: u64,
    /// Length of the frames that are sent.
    pub size: usize,
    /// Number of the next frame expected.
    next: u64,
}

impl<'t> Wire<'t> {
    /// Starts to listen on `tap`.
    pub fn new(tap: &'t Tap) -> Wire<'t> {
        let socket: OwnedFd = packet_socket(tap.name(), ETHERTYPE);
        set(&socket, libc::SO_RCVBUFFORCE, &ROOM);
        let limit = libc::timeval {
            tv_sec: LIMIT.as_secs() as libc::time_t,
            tv_usec: 0,
        };
        set(&socket, libc::SO_RCVTIMEO, &limit);
        Wire {
            tap,
            socket: socket.into(),
            before: 0,
            size: 60,
            next: 0,
        }
    }

    /// Receives frames, in order, until there have been `count` since the start.
    #[track_caller]
    pub fn receive(&mut self, count: u64) {
        while self.next < count {
            if let Err(error) = self.take(0) {
                panic!(
                    "frame {} of {count} does not come: {error}; {}",
                    self.next,
                    self.losses()
                );
            }
        }
    }

    /// Sends the frames 0 to `out` - 1, as fast as `tender` takes them, and meanwhile receives
    /// frames, in order, until there have been `back`.
    #[track_caller]
    pub fn exchange(&mut self, out: u64, back: u64) {
        self.tap.wait_until_running();
        self.before = self.tap.sent();
        let (mut sent, mut moved) = (0, Instant::now());
        while sent < out || self.next < back {
            let before = (sent, self.next);
            let free = (self.tap.sent() - self.before + WINDOW).saturating_sub(sent);
            let end = out.min(sent + free);
            for number in sent..end {
                self.send(number)
                    .unwrap_or_else(|error| panic!("frame {number} is not sent: {error}"));
            }
            sent = end;
            while self.take(libc::MSG_DONTWAIT).is_ok() {}
            if (sent, self.next) == before {
                let stuck = moved.elapsed() > LIMIT;
                assert!(
                    !stuck,
                    "stuck at {sent} of {out} sent, {} of {back} received; {}",
                    self.next,
                    self.losses()
                );
                std::thread::sleep(Duration::from_micros(200));
            } else {
                moved = Instant::now();
            }
        }
    }

    /// Sends the frame `number`.
    pub fn send(&mut self, number: u64) -> io::Result<()> {
        let mut frame = vec![number as u8; self.size];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xfe]);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[NUMBER].copy_from_slice(&number.to_be_bytes());
        self.socket.write_all(&frame)
    }

    /// Checks that no more frames arrived and that this host lost none.
    #[track_caller]
    pub fn stays_silent(mut self) {
        let next = self.next;
        assert!(
            self.take(libc::MSG_DONTWAIT).is_err(),
            "a frame came after the last, {next}"
        );
        assert_eq!(self.lost(), 0, "{}", self.losses());
    }

    /// Receives one frame, which must be the next.
    #[track_caller]
    fn take(&mut self, flags: libc::c_int) -> io::Result<()> {
        let mut frame = [0; 10_000];
        // SAFETY: the length is that of the buffer.
        let length = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                flags,
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        assert!(
            length >= NUMBER.end,
            "a frame of {length} bytes has no number"
        );
        let number = u64::from_be_bytes(frame[NUMBER].try_into().expect("8 bytes"));
        assert!(
            number == self.next,
            "frame {number} came instead of {}; {}",
            self.next,
            self.losses()
        );
        assert!(
            frame[NUMBER.end..length]
                .iter()
                .all(|&byte| byte == number as u8),
            "frame {number} is damaged"
        );
        self.next += 1;
        Ok(())
    }

    fn losses(&self) -> String {
        format!("this host lost {} for want of room", self.lost())
    }

    /// Returns how many frames were lost for lack of room.
    fn lost(&self) -> u32 {
        let mut statistics = [0u32; 2];
        let mut size = size_of_val(&statistics) as libc::socklen_t;
        let (fd, value) = (self.socket.as_raw_fd(), statistics.as_mut_ptr().cast());
        // SAFETY: the kernel writes two numbers, for which there is room.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                value,
                &raw mut size,
            )
        };
        assert!(result == 0, "{}", host_error("statistics"));
        statistics[1]
    }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) {
    let (fd, value, size) = (
        socket.as_raw_fd(),
        (&raw const *value).cast(),
        size_of::<T>() as libc::socklen_t,
    );
    // SAFETY: the kernel reads the value, whose length is correct.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, size) };
    assert!(result == 0, "{}", host_error("socket option"));
}
