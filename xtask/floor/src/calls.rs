//! The hypercalls of ABI 2. Section 4.

use crate::sys::{PPOLL, PREAD, PWRITE, READ, WRITE, call, exit};
use crate::vdso::{self, ClockGettime};

/// The descriptor of a device that the unikernel does not have.
pub const NONE: usize = usize::MAX;

const CLOCK_REALTIME: i32 = 0;
const POLLIN: u64 = 1;
const SECOND: usize = 1_000_000_000;
const STANDARD_OUTPUT: usize = 1;
const AGAIN: u32 = 1;

/// Everything that a hypercall uses.
pub struct Devices {
    pub memory: *mut u8,
    pub tap: usize,
    pub tap_handle: usize,
    pub disk: usize,
    /// Found when it is first needed.
    pub time: Option<ClockGettime>,
    /// Start of the process's stack, which leads to the vDSO.
    pub stack: *const usize,
}

impl Devices {
    pub unsafe fn serve(&mut self, number: u64, argument: u32) {
        let fields: *mut usize = self.memory.add(argument as usize).cast();
        let field = |index: usize| fields.add(index).read();
        let bytes = |index: usize| self.memory.add(field(index)) as usize;
        let answer = |index: usize, ret: u32| fields.add(index).cast::<u32>().write(ret);
        match number {
            1 => *fields = self.walltime(),
            2 if field(1) > 0 => {
                call(WRITE, [STANDARD_OUTPUT, bytes(0), field(1), 0, 0, 0]);
            }
            2 => {}
            3 => {
                let ready = self.poll(field(0));
                fields.add(1).write(usize::from(ready) << self.tap_handle);
                answer(2, ready.into());
            }
            4 => {
                call(PWRITE, [self.disk, bytes(2), field(3), field(1), 0, 0]);
                answer(4, 0);
            }
            5 => {
                call(PREAD, [self.disk, bytes(2), field(3), field(1), 0, 0]);
                answer(4, 0);
            }
            6 => {
                call(WRITE, [self.tap, bytes(1), field(2), 0, 0, 0]);
                answer(3, 0);
            }
            7 => {
                let length = call(READ, [self.tap, bytes(1), field(2), 0, 0, 0]);
                if length < 0 {
                    answer(3, AGAIN);
                } else {
                    fields.add(2).write(length as usize);
                    answer(3, 0);
                }
            }
            8 => exit(field(1) & 0xff),
            _ => exit(crate::NO_HYPERCALL),
        }
    }

    unsafe fn walltime(&mut self) -> usize {
        let clock = match self.time {
            Some(clock) => clock,
            None => *self.time.insert(vdso::clock_gettime(self.stack)),
        };
        let mut time = [0_usize; 2];
        clock(CLOCK_REALTIME, &raw mut time);
        time[0] * SECOND + time[1]
    }

    /// Returns whether the tap has a frame.
    unsafe fn poll(&self, timeout: usize) -> bool {
        if self.tap == NONE && timeout == 0 {
            return false;
        }
        let time = [timeout / SECOND, timeout % SECOND];
        let mut tap = (self.tap as u64 & 0xffff_ffff) | (POLLIN << 32);
        let count = usize::from(self.tap != NONE);
        let arguments = [
            &raw mut tap as usize,
            count,
            &raw const time as usize,
            0,
            0,
            0,
        ];
        call(PPOLL, arguments) > 0
    }
}
