//! An ARM64 vCPU under a debugger: its registers in gdb's terms, breakpoints and watchpoints.

#![expect(unsafe_code, reason = "cache maintenance has instructions only")]

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW, KVM_GUESTDBG_USE_SW_BP,
    kvm_debug_exit_arch, kvm_guest_debug,
};
use kvm_ioctls::{Cap, VmFd};

use super::boot::{self, Register};
use super::registers::{FPCR, FPSR, PSTATE_OWN_STACK, general, stack_pointer, vector};
use crate::arch::debug::{Debug, Hardware, Trap, Watch};
use crate::arch::{Debugging, Error, Fields, Vcpu};

/// Exception classes in ESR of debug events in the guest: breakpoint, step and watchpoint.
pub(super) const EC_BREAKPOINT: u32 = 0x30;
pub(super) const EC_STEP: u32 = 0x32;
pub(super) const EC_WATCHPOINT: u32 = 0x34;

/// PSTATE at the entry of an exception: EL1 with its separate stack pointer; D, A, I and F masked.
const PSTATE_IN_EXCEPTION: u64 = 0x3c5;

/// Offset in the vector table of an exception that EL1 takes from itself, with the stack pointer of
/// EL0 or of EL1.
const VECTOR_SHARED_STACK: u64 = 0x000;
const VECTOR_OWN_STACK: u64 = 0x200;

/// ESR of BRK #0 taken by EL1.
const ESR_BRK: u64 = 0x3c << 26 | 1 << 25;

/// Breakpoints and watchpoints that every processor has at least, for a guest that is a process.
pub(super) const LEAST_POINTS: usize = 2;

/// Breakpoint and watchpoint control: on, at EL1 and EL0.
const CONTROL_ON: u64 = 0b11 << 1 | 1;

/// Writes a `<reg>` element for each name.
macro_rules! registers {
    ($more:literal: $($name:literal)*) => {
        concat!($("<reg name=\"", $name, "\" ", $more, "/>"),*)
    };
}

/// The system registers of [`Debugging::DESCRIPTION`].
const SYSTEM: [Register; 8] = [
    boot::ESR_EL1,
    boot::FAR_EL1,
    boot::ELR_EL1,
    boot::SPSR_EL1,
    boot::VBAR_EL1,
    boot::SCTLR_EL1,
    boot::TTBR0_EL1,
    boot::TCR_EL1,
];

impl Debugging for Vcpu {
    /// KVM_SET_GUEST_DEBUG and KVM_SET_ONE_REG: ioctls for a debugger in addition to those for
    /// reports.
    const DEBUG_REQUESTS: &'static [u64] = &[0x4208_ae9b, 0x4010_aeac];

    /// BRK #0.
    const BREAKPOINT: &'static [u8] = &0xd420_0000_u32.to_le_bytes();

    const DESCRIPTION: &'static str = concat!(
        r#"<target version="1.0"><architecture>aarch64</architecture><feature name="org.gnu.gdb.aarch64.core">"#,
        registers!("bitsize=\"64\"": "x0" "x1" "x2" "x3" "x4" "x5" "x6" "x7" "x8" "x9" "x10" "x11" "x12" "x13" "x14" "x15"
            "x16" "x17" "x18" "x19" "x20" "x21" "x22" "x23" "x24" "x25" "x26" "x27" "x28" "x29" "x30"),
        r#"<reg name="sp" bitsize="64" type="data_ptr"/><reg name="pc" bitsize="64" type="code_ptr"/>"#,
        r#"<flags id="flags" size="4"><field name="SP" start="0" end="0"/><field name="EL" start="2" end="3"/>"#,
        r#"<field name="F" start="6" end="6"/><field name="I" start="7" end="7"/><field name="A" start="8" end="8"/>"#,
        r#"<field name="D" start="9" end="9"/><field name="V" start="28" end="28"/><field name="C" start="29" end="29"/>"#,
        r#"<field name="Z" start="30" end="30"/><field name="N" start="31" end="31"/></flags>"#,
        r#"<reg name="cpsr" bitsize="32" type="flags"/></feature><feature name="org.gnu.gdb.aarch64.fpu">"#,
        r#"<vector id="v2d" type="ieee_double" count="2"/>"#,
        registers!("bitsize=\"128\" type=\"v2d\"": "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v8" "v9" "v10" "v11" "v12" "v13"
            "v14" "v15" "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23" "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31"),
        registers!("bitsize=\"32\" type=\"int\"": "fpsr" "fpcr"),
        r#"</feature><feature name="tender.system">"#,
        registers!("bitsize=\"64\" type=\"int64\" group=\"system\"": "esr_el1" "far_el1" "elr_el1" "spsr_el1" "vbar_el1"
            "sctlr_el1" "ttbr0_el1" "tcr_el1"),
        "</feature></target>",
    );

    const PROGRAM_COUNTER: usize = 32 * 8;

    /// Returns the smaller of the numbers of hardware breakpoints and of watchpoints.
    fn hardware_points(vm: Option<&VmFd>) -> usize {
        let Some(vm) = vm else {
            return LEAST_POINTS;
        };
        let [breakpoints, watchpoints] =
            [Cap::DebugHwBps, Cap::DebugHwWps].map(|cap| vm.check_extension_int(cap));
        usize::try_from(breakpoints.min(watchpoints))
            .unwrap_or(0)
            .min(16)
    }

    /// Returns whether the processor can watch these bytes: they must be in one doubleword.
    fn can_watch(address: u64, length: u64) -> bool {
        (1..=8).contains(&length) && address % 8 + length <= 8
    }

    /// Cleans the data cache and invalidates the instruction cache after a change of instructions
    /// at this host address. Guest and host pages have the same offsets, so an instruction cache
    /// that is indexed by address finds the same lines.
    fn instructions_changed(host_address: u64, length: u64) {
        let cache_type: u64;
        // SAFETY: CTR_EL0 is readable from user space on Linux and reading it changes nothing.
        unsafe {
            std::arch::asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags))
        };
        let line = |shift: u32| 4_u64 << (cache_type >> shift & 0xf);
        let lines =
            |size: u64| (host_address & !(size - 1)..host_address + length).step_by(size as usize);
        for address in lines(line(16)) {
            // SAFETY: the instruction cleans a line of memory that the caller has just written.
            unsafe {
                std::arch::asm!("dc cvau, {}", in(reg) address, options(nostack, preserves_flags))
            };
        }
        // SAFETY: a barrier.
        unsafe { std::arch::asm!("dsb ish", options(nostack, preserves_flags)) };
        for address in lines(line(0)) {
            // SAFETY: the instruction invalidates a line of the instruction cache, which loses no
            // data.
            unsafe {
                std::arch::asm!("ic ivau, {}", in(reg) address, options(nostack, preserves_flags))
            };
        }
        // SAFETY: barriers.
        unsafe { std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    }

    fn debug_registers(&self) -> Result<Vec<u8>, Error> {
        let mut fields = Fields::default();
        for number in 0..31 {
            fields.put(self.get(general(number))?);
        }
        let pstate = self.get(boot::PSTATE)?;
        fields.put(self.get(stack_pointer(pstate))?);
        fields.put(self.get(boot::PC)?);
        fields.put(pstate as u32);
        for number in 0..32 {
            fields.put_bytes(&self.get_floating(vector(number))?);
        }
        fields.put_bytes(&self.get_floating(FPSR)?);
        fields.put_bytes(&self.get_floating(FPCR)?);
        for register in SYSTEM {
            fields.put(self.get(register)?);
        }
        Ok(fields.bytes)
    }

    fn set_debug_registers(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut fields = Fields::of(bytes);
        for number in 0..31 {
            self.set(general(number), fields.take())?;
        }
        let (sp, pc, pstate): (u64, u64, u32) = (fields.take(), fields.take(), fields.take());
        self.set(boot::PSTATE, pstate.into())?;
        self.set(stack_pointer(pstate.into()), sp)?;
        self.set(boot::PC, pc)?;
        for number in 0..32 {
            self.set_floating(vector(number), &fields.take_bytes())?;
        }
        self.set_floating(FPSR, &fields.take_bytes())?;
        self.set_floating(FPCR, &fields.take_bytes())
    }

    fn program_counter(&self) -> Result<u64, Error> {
        self.get(boot::PC)
    }

    fn debug(&mut self, debug: Option<Debug<'_>>) -> Result<(), Error> {
        let mut request = kvm_guest_debug::default();
        if let Some(debug) = debug {
            request.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
            request.control |= if debug.step {
                KVM_GUESTDBG_SINGLESTEP
            } else {
                0
            };
            if !debug.hardware.is_empty() {
                request.control |= KVM_GUESTDBG_USE_HW;
                place(debug.hardware, &mut request);
            }
            if debug.own_breakpoint {
                self.take_breakpoint()?;
            }
        }
        self.engine
            .set_guest_debug(&request)
            .map_err(Error::kvm("KVM_SET_GUEST_DEBUG"))
    }
}

impl Vcpu {
    /// Delivers the guest's own BRK to the guest as the processor would; KVM intercepted it for the
    /// debugger.
    fn take_breakpoint(&mut self) -> Result<(), Error> {
        let (pc, pstate) = (self.get(boot::PC)?, self.get(boot::PSTATE)?);
        let own_stack = pstate & PSTATE_OWN_STACK != 0;
        let vector = if own_stack {
            VECTOR_OWN_STACK
        } else {
            VECTOR_SHARED_STACK
        };
        self.set(boot::ELR_EL1, pc)?;
        self.set(boot::SPSR_EL1, pstate)?;
        self.set(boot::ESR_EL1, ESR_BRK)?;
        self.set(boot::PSTATE, PSTATE_IN_EXCEPTION)?;
        self.set(boot::PC, self.get(boot::VBAR_EL1)?.wrapping_add(vector))
    }
}

/// Puts the points into the debug registers; the caller checked that there are enough.
fn place(points: &[Hardware], request: &mut kvm_guest_debug) {
    let (mut breakpoints, mut watchpoints) = (0, 0);
    for point in points {
        let kind = match point.kind {
            Watch::Execute => {
                request.arch.dbg_bvr[breakpoints] = point.address;
                // All four bytes of the instruction.
                request.arch.dbg_bcr[breakpoints] = CONTROL_ON | 0b1111 << 5;
                breakpoints += 1;
                continue;
            }
            Watch::Read => 0b01,
            Watch::Write => 0b10,
            Watch::Access => 0b11,
        };
        let bytes = ((1 << point.length) - 1) << (point.address % 8);
        request.arch.dbg_wvr[watchpoints] = point.address & !7;
        request.arch.dbg_wcr[watchpoints] = CONTROL_ON | kind << 3 | bytes << 5;
        watchpoints += 1;
    }
}

/// Returns why KVM stopped the guest.
pub(super) fn trap(exit: &kvm_debug_exit_arch) -> Trap {
    match exit.hsr >> 26 {
        EC_BREAKPOINT => Trap::Breakpoint,
        EC_STEP => Trap::Step,
        EC_WATCHPOINT => Trap::Watched(exit.far),
        _ => Trap::Instruction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(points: &[Hardware]) -> kvm_guest_debug {
        let mut request = kvm_guest_debug::default();
        place(points, &mut request);
        request
    }

    /// Fields of the Arm Architecture Reference Manual: E, PAC, LSC, BAS.
    #[test]
    fn each_kind_of_point_has_its_own_registers() {
        let point = |address, length, kind| Hardware {
            address,
            length,
            kind,
        };
        let arch = placed(&[
            point(0x10_0004, 4, Watch::Execute),
            point(0x20_0008, 8, Watch::Write),
            point(0x20_0014, 4, Watch::Read),
            point(0x20_001f, 1, Watch::Access),
            point(0x10_0008, 4, Watch::Execute),
        ])
        .arch;
        assert_eq!(
            (&arch.dbg_bvr[..3], &arch.dbg_bcr[..3]),
            (&[0x10_0004, 0x10_0008, 0][..], &[0x1e7, 0x1e7, 0][..])
        );
        assert_eq!(arch.dbg_wvr[..4], [0x20_0008, 0x20_0010, 0x20_0018, 0]);
        assert_eq!(arch.dbg_wcr[..4], [0x1ff7, 0x1e0f, 0x101f, 0]);
    }

    #[test]
    fn ranges_within_one_doubleword_can_be_watched() {
        for (address, length, can) in [
            (0, 8, true),
            (4, 4, true),
            (7, 1, true),
            (5, 4, false),
            (0, 0, false),
            (0, 9, false),
        ] {
            assert_eq!(
                Vcpu::can_watch(address, length),
                can,
                "{length} at {address}"
            );
        }
    }

    #[test]
    fn a_stop_has_the_class_of_its_exception() {
        let exit = |class: u32| kvm_debug_exit_arch {
            hsr: class << 26,
            far: 0x1234,
            ..Default::default()
        };
        assert_eq!(trap(&exit(EC_BREAKPOINT)), Trap::Breakpoint);
        assert_eq!(trap(&exit(EC_STEP)), Trap::Step);
        assert_eq!(trap(&exit(EC_WATCHPOINT)), Trap::Watched(0x1234));
        assert_eq!(trap(&exit(0x3c)), Trap::Instruction);
    }
}
