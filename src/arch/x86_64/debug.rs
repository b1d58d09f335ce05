//! An x86_64 vCPU under a debugger: its registers in gdb's terms, breakpoints and watchpoints.

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch, kvm_fpu, kvm_guest_debug, kvm_regs, kvm_sregs,
};
use kvm_ioctls::VmFd;

use crate::arch::debug::{Debug, Hardware, Trap, Watch};
use crate::arch::{Debugging, Error, Fields, Vcpu};

/// DR6: which of the four debug registers matched, and whether a single step completed.
const DR6_SLOTS: u64 = 0b1111;
const DR6_STEP: u64 = 1 << 14;

/// A bit of DR7 that is always set.
const DR7_RESERVED: u64 = 1 << 10;

/// The vector of #BP.
const BREAKPOINT_EXCEPTION: u32 = 3;

/// Writes a `<reg>` element for each name.
macro_rules! registers {
    ($more:literal: $($name:literal)*) => {
        concat!($("<reg name=\"", $name, "\" ", $more, "/>"),*)
    };
}

impl Debugging for Vcpu {
    /// KVM_SET_GUEST_DEBUG, and KVM_SET_REGS, KVM_GET_FPU and KVM_SET_FPU: ioctls for a debugger in
    /// addition to those for reports.
    const DEBUG_REQUESTS: &'static [u64] = &[0x4048_ae9b, 0x4090_ae82, 0x81a0_ae8c, 0x41a0_ae8d];

    /// INT3.
    const BREAKPOINT: &'static [u8] = &[0xcc];

    const DESCRIPTION: &'static str = concat!(
        r#"<target version="1.0"><architecture>i386:x86-64</architecture><feature name="org.gnu.gdb.i386.core">"#,
        r#"<flags id="flags" size="4"><field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>"#,
        r#"<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/>"#,
        r#"<field name="SF" start="7" end="7"/><field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>"#,
        r#"<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/></flags>"#,
        registers!("bitsize=\"64\" type=\"int64\"": "rax" "rbx" "rcx" "rdx" "rsi" "rdi"),
        registers!("bitsize=\"64\" type=\"data_ptr\"": "rbp" "rsp"),
        registers!("bitsize=\"64\" type=\"int64\"": "r8" "r9" "r10" "r11" "r12" "r13" "r14" "r15"),
        r#"<reg name="rip" bitsize="64" type="code_ptr"/><reg name="eflags" bitsize="32" type="flags"/>"#,
        registers!("bitsize=\"32\" type=\"int32\"": "cs" "ss" "ds" "es" "fs" "gs"),
        registers!("bitsize=\"80\" type=\"i387_ext\"": "st0" "st1" "st2" "st3" "st4" "st5" "st6" "st7"),
        registers!("bitsize=\"32\" type=\"int\" group=\"float\"":
            "fctrl" "fstat" "ftag" "fiseg" "fioff" "foseg" "fooff" "fop"),
        r#"</feature><feature name="org.gnu.gdb.i386.sse"><vector id="v4f" type="ieee_single" count="4"/>"#,
        registers!("bitsize=\"128\" type=\"v4f\"": "xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7"
            "xmm8" "xmm9" "xmm10" "xmm11" "xmm12" "xmm13" "xmm14" "xmm15"),
        r#"<reg name="mxcsr" bitsize="32" type="int" group="vector"/></feature>"#,
        r#"<feature name="org.gnu.gdb.i386.segments">"#,
        registers!("bitsize=\"64\" type=\"int\"": "fs_base" "gs_base"),
        r#"</feature><feature name="tender.system">"#,
        registers!("bitsize=\"64\" type=\"int64\" group=\"system\"": "cr0" "cr2" "cr3" "cr4" "efer"),
        "</feature></target>",
    );

    const PROGRAM_COUNTER: usize = 16 * 8;

    fn hardware_points(_: Option<&VmFd>) -> usize {
        4
    }

    fn can_watch(address: u64, length: u64) -> bool {
        [1, 2, 4, 8].contains(&length) && address % length == 0
    }

    /// Does nothing: the processor detects changes of instructions.
    fn instructions_changed(_host_address: u64, _length: u64) {}

    fn debug_registers(&self) -> Result<Vec<u8>, Error> {
        let general = self.engine.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?;
        let system = self
            .engine
            .get_sregs()
            .map_err(Error::kvm("KVM_GET_SREGS"))?;
        let floating = self.engine.get_fpu().map_err(Error::kvm("KVM_GET_FPU"))?;
        let mut fields = Fields::default();
        for value in order(general) {
            fields.put(value);
        }
        put_system(&mut fields, general.rflags, &system, &floating);
        Ok(fields.bytes)
    }

    fn set_debug_registers(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut fields = Fields::of(bytes);
        let mut general = kvm_regs::default();
        for register in in_order(&mut general) {
            *register = fields.take();
        }
        general.rflags = u64::from(fields.take::<u32>());
        for _segment in 0..6 {
            fields.take::<u32>();
        }
        let before = self.engine.get_fpu().map_err(Error::kvm("KVM_GET_FPU"))?;
        let floating = floating(&mut fields, before);
        self.engine
            .set_regs(&general)
            .map_err(Error::kvm("KVM_SET_REGS"))?;
        self.engine
            .set_fpu(&floating)
            .map_err(Error::kvm("KVM_SET_FPU"))
    }

    fn program_counter(&self) -> Result<u64, Error> {
        Ok(self
            .engine
            .get_regs()
            .map_err(Error::kvm("KVM_GET_REGS"))?
            .rip)
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
            request.control |= if debug.own_breakpoint {
                KVM_GUESTDBG_INJECT_BP
            } else {
                0
            };
            if !debug.hardware.is_empty() {
                request.control |= KVM_GUESTDBG_USE_HW_BP;
                request.arch.debugreg = slots(debug.hardware);
            }
        }
        self.engine
            .set_guest_debug(&request)
            .map_err(Error::kvm("KVM_SET_GUEST_DEBUG"))
    }
}

/// Returns the general registers in gdb's order.
fn order(mut regs: kvm_regs) -> [u64; 17] {
    in_order(&mut regs).map(|register| *register)
}

fn in_order(regs: &mut kvm_regs) -> [&mut u64; 17] {
    let kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        ..
    } = regs;
    [
        rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
    ]
}

/// Appends the registers after the general ones.
fn put_system(fields: &mut Fields, rflags: u64, system: &kvm_sregs, floating: &kvm_fpu) {
    fields.put(rflags as u32);
    for segment in [
        &system.cs, &system.ss, &system.ds, &system.es, &system.fs, &system.gs,
    ] {
        fields.put(u32::from(segment.selector));
    }
    for register in &floating.fpr {
        fields.put_bytes(&register[..10]);
    }
    fields.put(u32::from(floating.fcw));
    fields.put(u32::from(floating.fsw));
    fields.put(u32::from(full_tags(floating.ftwx)));
    for value in [
        0,
        floating.last_ip as u32,
        0,
        floating.last_dp as u32,
        u32::from(floating.last_opcode),
    ] {
        fields.put(value);
    }
    for register in &floating.xmm {
        fields.put_bytes(register);
    }
    fields.put(floating.mxcsr);
    for value in [
        system.fs.base,
        system.gs.base,
        system.cr0,
        system.cr2,
        system.cr3,
        system.cr4,
        system.efer,
    ] {
        fields.put(value);
    }
}

/// Returns the floating-point registers as set by the debugger; fields unknown to gdb are those of
/// `before`.
fn floating(fields: &mut Fields, before: kvm_fpu) -> kvm_fpu {
    let mut floating = before;
    for register in &mut floating.fpr {
        register[..10].copy_from_slice(&fields.take_bytes::<10>());
    }
    floating.fcw = fields.take::<u32>() as u16;
    floating.fsw = fields.take::<u32>() as u16;
    floating.ftwx = short_tags(fields.take::<u32>() as u16);
    for _place_of_the_last_instruction in 0..5 {
        fields.take::<u32>();
    }
    for register in &mut floating.xmm {
        *register = fields.take_bytes();
    }
    floating.mxcsr = fields.take();
    floating
}

/// Converts KVM's tag (one bit per register, set if in use) to gdb's (two bits: 0 in use, 3 empty).
fn full_tags(short: u8) -> u16 {
    (0..8)
        .filter(|slot| short >> slot & 1 == 0)
        .map(|slot| 0b11 << (2 * slot))
        .sum()
}

fn short_tags(full: u16) -> u8 {
    (0..8)
        .filter(|slot| full >> (2 * slot) & 0b11 != 0b11)
        .map(|slot| 1 << slot)
        .sum()
}

/// Returns the debug registers for these points, at most four.
fn slots(points: &[Hardware]) -> [u64; 8] {
    let mut registers = [0; 8];
    registers[7] = DR7_RESERVED;
    for (slot, point) in points.iter().take(4).enumerate() {
        // No x86 processor watches reads alone.
        let (kind, length) = match point.kind {
            Watch::Execute => (0b00, 0b00),
            Watch::Write => (0b01, length_code(point.length)),
            Watch::Read | Watch::Access => (0b11, length_code(point.length)),
        };
        registers[slot] = point.address;
        registers[7] |= 1 << (2 * slot) | kind << (16 + 4 * slot) | length << (18 + 4 * slot);
    }
    registers
}

fn length_code(length: u64) -> u64 {
    match length {
        1 => 0b00,
        2 => 0b01,
        8 => 0b10,
        _ => 0b11,
    }
}

/// Returns why KVM stopped the guest.
pub(super) fn trap(exit: &kvm_debug_exit_arch) -> Trap {
    match exit.dr6 {
        _ if exit.exception == BREAKPOINT_EXCEPTION => Trap::Instruction,
        dr6 if dr6 & DR6_SLOTS != 0 => Trap::Slot((dr6 & DR6_SLOTS).trailing_zeros() as usize),
        dr6 if dr6 & DR6_STEP != 0 => Trap::Step,
        _ => Trap::Instruction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of DR7 in Intel's manual, volume 3, section 18.2.4.
    #[test]
    fn points_are_placed_in_the_debug_registers() {
        let point = |address, length, kind| Hardware {
            address,
            length,
            kind,
        };
        let registers = slots(&[
            point(0x10_0004, 1, Watch::Execute),
            point(0x20_0008, 8, Watch::Write),
            point(0x20_0014, 4, Watch::Read),
            point(0x20_001e, 2, Watch::Access),
        ]);
        assert_eq!(registers[..4], [0x10_0004, 0x20_0008, 0x20_0014, 0x20_001e]);
        assert_eq!(registers[4..], [0, 0, 0, 0x7f90_0455]);
    }

    #[test]
    fn aligned_ranges_can_be_watched() {
        for (address, length, can) in [
            (0, 8, true),
            (4, 4, true),
            (7, 1, true),
            (2, 4, false),
            (0, 0, false),
            (0, 3, false),
        ] {
            assert_eq!(
                Vcpu::can_watch(address, length),
                can,
                "{length} at {address}"
            );
        }
    }

    #[test]
    fn a_stop_is_decoded_from_exception_and_dr6() {
        let exit = |exception, dr6| kvm_debug_exit_arch {
            exception,
            dr6,
            ..Default::default()
        };
        assert_eq!(trap(&exit(3, 0b1 | 1 << 14)), Trap::Instruction);
        assert_eq!(trap(&exit(1, 0b1100 | 1 << 14)), Trap::Slot(2));
        assert_eq!(trap(&exit(1, 1 << 14)), Trap::Step);
        assert_eq!(trap(&exit(1, 0)), Trap::Instruction);
    }

    #[test]
    fn tags_come_back_as_they_were() {
        assert_eq!(
            (full_tags(0), full_tags(0xff), full_tags(0b101)),
            (0xffff, 0, 0xffcc)
        );
        assert!((0..=u8::MAX).all(|short| short_tags(full_tags(short)) == short));
    }

    /// Each at its offset: KVM's registers, in gdb's order and back.
    #[test]
    fn floating_registers_come_back_as_they_were() {
        let mut before = kvm_fpu {
            fcw: 0x37f,
            fsw: 0x1234,
            ftwx: 0b1010,
            mxcsr: 0x1f80,
            ..Default::default()
        };
        for (number, (low, wide)) in before.fpr.iter_mut().zip(&mut before.xmm).enumerate() {
            low[..10].fill(number as u8 + 1);
            wide.fill(number as u8 + 0x11);
        }
        let mut fields = Fields::default();
        put_system(&mut fields, 0x202, &kvm_sregs::default(), &before);
        let mut fields = Fields::of(&fields.bytes);
        fields.take_bytes::<{ 7 * 4 }>();
        assert_eq!(
            floating(&mut fields, kvm_fpu::default()),
            kvm_fpu { ..before }
        );
    }
}
