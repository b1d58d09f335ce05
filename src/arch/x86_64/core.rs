//! x86_64 registers in the order and form of a Linux core file.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::arch::{CoreRegisters, Error, Vcpu};
use crate::memory::{GuestAddress, GuestMemory};

/// `elf_gregset_t`, whose order is that of `struct user_regs_struct`.
type GeneralRegisters = [u64; 27];

/// Index of RIP; CS, RFLAGS, RSP and SS follow.
const RIP: usize = 16;

/// The system call number outside of any system call.
const NO_CALL: u64 = u64::MAX;

/// `elf_fpregset_t`: what FXSAVE stores.
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct FxSave {
    control: u16,
    pub(super) status: u16,
    tags: u16,
    last_opcode: u16,
    last_instruction: u64,
    last_operand: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    stack: [[u8; 16]; 8],
    xmm: [[u8; 16]; 16],
    reserved: [u64; 12],
}

impl From<&kvm_fpu> for FxSave {
    fn from(fpu: &kvm_fpu) -> FxSave {
        FxSave {
            control: fpu.fcw,
            status: fpu.fsw,
            tags: fpu.ftwx.into(),
            last_opcode: fpu.last_opcode,
            last_instruction: fpu.last_ip,
            last_operand: fpu.last_dp,
            mxcsr: fpu.mxcsr,
            stack: fpu.fpr,
            xmm: fpu.xmm,
            ..FxSave::default()
        }
    }
}

impl From<FxSave> for kvm_fpu {
    fn from(registers: FxSave) -> kvm_fpu {
        kvm_fpu {
            fcw: registers.control,
            fsw: registers.status,
            ftwx: registers.tags as u8,
            last_opcode: registers.last_opcode,
            last_ip: registers.last_instruction,
            last_dp: registers.last_operand,
            mxcsr: registers.mxcsr,
            fpr: registers.stack,
            xmm: registers.xmm,
            ..Default::default()
        }
    }
}

impl CoreRegisters for Vcpu {
    type General = GeneralRegisters;

    /// KVM_GET_FPU.
    const CORE_REQUESTS: &'static [u64] = &[0x81a0_ae8c];

    fn general_registers(&self) -> Result<GeneralRegisters, Error> {
        let registers = self.engine.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?;
        let segments = self
            .engine
            .get_sregs()
            .map_err(Error::kvm("KVM_GET_SREGS"))?;
        Ok(general(&registers, &segments))
    }

    fn floating_registers(&self) -> Result<Vec<u8>, Error> {
        let fpu = self.engine.get_fpu().map_err(Error::kvm("KVM_GET_FPU"))?;
        Ok(FxSave::from(&fpu).as_bytes().to_vec())
    }

    fn return_to_trap(
        registers: &mut GeneralRegisters,
        memory: &GuestMemory,
        cookie: GuestAddress,
    ) {
        if cookie == GuestAddress(0) {
            return;
        }
        if let Ok([_cr2, _error, rip, cs, rflags, rsp, ss]) = memory.read::<[u64; 7]>(cookie) {
            registers[RIP..RIP + 5].copy_from_slice(&[rip, cs, rflags, rsp, ss]);
        }
    }
}

fn general(r: &kvm_regs, s: &kvm_sregs) -> GeneralRegisters {
    let [cs, ss, ds, es, fs, gs] =
        [s.cs, s.ss, s.ds, s.es, s.fs, s.gs].map(|segment| u64::from(segment.selector));
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, NO_CALL, r.rip, cs, r.rflags, r.rsp, ss, s.fs.base, s.gs.base, ds, es, fs,
        gs,
    ]
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use kvm_bindings::kvm_segment;
    use libc::{user_fpregs_struct, user_regs_struct};

    use super::*;

    /// Compares each register with the field of that name in Linux's structure.
    macro_rules! each_is_in_its_field {
        ($registers:ident: $($field:ident = $value:expr),* $(,)?) => {
            $(assert_eq!($registers[offset_of!(user_regs_struct, $field) / 8], $value, stringify!($field));)*
        };
    }

    #[test]
    fn registers_are_where_linux_has_them() {
        let r = kvm_regs {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rsp: 7,
            rbp: 8,
            r8: 9,
            r9: 10,
            r10: 11,
            r11: 12,
            r12: 13,
            r13: 14,
            r14: 15,
            r15: 16,
            rip: 17,
            rflags: 18,
        };
        let segment = |selector, base| kvm_segment {
            selector,
            base,
            ..kvm_segment::default()
        };
        let s = kvm_sregs {
            cs: segment(19, 0),
            ss: segment(20, 0),
            ds: segment(21, 0),
            es: segment(22, 0),
            fs: segment(23, 25),
            gs: segment(24, 26),
            ..kvm_sregs::default()
        };
        let registers = general(&r, &s);
        each_is_in_its_field!(registers: rax = 1, rbx = 2, rcx = 3, rdx = 4, rsi = 5, rdi = 6, rsp = 7, rbp = 8, r8 = 9,
            r9 = 10, r10 = 11, r11 = 12, r12 = 13, r13 = 14, r14 = 15, r15 = 16, rip = 17, eflags = 18, cs = 19,
            ss = 20, ds = 21, es = 22, fs = 23, gs = 24, fs_base = 25, gs_base = 26, orig_rax = NO_CALL);
        assert_eq!(size_of::<GeneralRegisters>(), size_of::<user_regs_struct>());
    }

    #[test]
    fn floating_registers_are_where_linux_has_them() {
        assert_eq!(size_of::<FxSave>(), size_of::<user_fpregs_struct>());
        assert_eq!(
            offset_of!(FxSave, tags),
            offset_of!(user_fpregs_struct, ftw)
        );
        assert_eq!(
            offset_of!(FxSave, last_instruction),
            offset_of!(user_fpregs_struct, rip)
        );
        assert_eq!(
            offset_of!(FxSave, mxcsr),
            offset_of!(user_fpregs_struct, mxcsr)
        );
        assert_eq!(
            offset_of!(FxSave, stack),
            offset_of!(user_fpregs_struct, st_space)
        );
        assert_eq!(
            offset_of!(FxSave, xmm),
            offset_of!(user_fpregs_struct, xmm_space)
        );
    }

    #[test]
    fn a_trap_is_returned_to_if_there_was_one() {
        let memory = GuestMemory::new(2 << 20).unwrap();
        let frame: [u64; 7] = [1, 2, 3, 4, 5, 6, 7];
        memory
            .place(GuestAddress(0x3001), zerocopy::IntoBytes::as_bytes(&frame))
            .unwrap();
        let after = |cookie| {
            let mut registers = [9; 27];
            Vcpu::return_to_trap(&mut registers, &memory, GuestAddress(cookie));
            registers
        };
        let mut expected = [9; 27];
        for cookie in [0, (2 << 20) - 55, u64::MAX, 1 << 40] {
            assert_eq!(after(cookie), expected, "{cookie:#x}");
        }
        expected[16..21].copy_from_slice(&[3, 4, 5, 6, 7]);
        assert_eq!(after(0x3001), expected);
    }
}
