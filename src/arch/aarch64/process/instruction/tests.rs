use super::*;

#[test]
fn instructions_of_el1_are_decoded() {
    use Instruction::*;
    let mask = |bits, is_set| Some(Mask { bits, is_set });
    for (word, instruction) in [
        (0xd69f_03e0, Some(Return)),
        // hvc #7; smc #0
        (0xd400_00e2, Some(Hypervisor)),
        (0xd400_0003, None),
        // mrs x3, vbar_el1; msr vbar_el1, x4
        (
            0xd538_c003,
            Some(Read {
                register: 0xc600,
                general: 3,
            }),
        ),
        (
            0xd518_c004,
            Some(Write {
                register: 0xc600,
                general: 4,
            }),
        ),
        // msr daifset, #2; msr daifclr, #15
        (0xd503_42df, mask(2 << 6, true)),
        (0xd503_4fff, mask(0xf << 6, false)),
        // msr spsel, #0; msr spsel, #1; msr pan, #1
        (0xd500_40bf, Some(SelectStack { is_own: false })),
        (0xd500_41bf, Some(SelectStack { is_own: true })),
        (0xd500_419f, None),
        // tlbi vmalle1; tlbi vae1is, x0; dc ivac, x1; dc cisw, x1
        (0xd508_871f, Some(Nothing)),
        (0xd508_8320, Some(Nothing)),
        (0xd508_7621, Some(Nothing)),
        (0xd508_7e41, Some(Nothing)),
        // ic iallu; at s1e1r, x0; udf #0; hlt #3
        (0xd508_751f, None),
        (0xd508_7800, None),
        (0x0000_0000, None),
        (0xd440_0060, None),
    ] {
        assert_eq!(decode(word), instruction, "{word:#x}");
    }
}

fn single(size: u32, is_write: bool, base: u8, offset: Offset) -> Option<Access> {
    let data = 2;
    Some(Access {
        size,
        is_write,
        data,
        base,
        offset,
    })
}

#[test]
fn accesses_of_one_register_are_decoded() {
    let by = |option, shift| Offset::Register {
        number: 4,
        option,
        shift,
    };
    let at = Offset::Immediate;
    for (word, access) in [
        // str w2, [x3, #64]; str w2, [sp]; ldr w2, [x3]
        (0xb900_4062, single(2, true, 3, at(64))),
        (0xb900_03e2, single(2, true, LAST, at(0))),
        (0xb940_0062, single(2, false, 3, at(0))),
        // strb w2, [x3, #1]; strh w2, [x3, #2]; str x2, [x3, #8]; ldrsw x2, [x3, #4]
        (0x3900_0462, single(0, true, 3, at(1))),
        (0x7900_0462, single(1, true, 3, at(2))),
        (0xf900_0462, single(3, true, 3, at(8))),
        (0xb980_0462, single(2, false, 3, at(4))),
        // stur w2, [x3, #-4]; ldur x2, [x3, #-8]
        (0xb81f_c062, single(2, true, 3, at(-4))),
        (0xf85f_8062, single(3, false, 3, at(-8))),
        // str w2, [x3, x4]; str w2, [x3, w4, sxtw #2]; ldr x2, [x3, w4, uxtw]
        (0xb824_6862, single(2, true, 3, by(0b011, 0))),
        (0xb824_d862, single(2, true, 3, by(0b110, 2))),
        (0xf864_4862, single(3, false, 3, by(0b010, 0))),
        // stlr w2, [x3]; ldar x2, [x3]
        (0x889f_fc62, single(2, true, 3, at(0))),
        (0xc8df_fc62, single(3, false, 3, at(0))),
    ] {
        assert_eq!(super::access(word), access, "{word:#x}");
    }
}

/// Those for which the processor gives no details to KVM, and one that accesses nothing.
#[test]
fn other_accesses_are_not_decoded() {
    for word in [
        // str w2, [x3], #4; str w2, [x3, #4]!; stp w2, w3, [x4]; str q0, [x4]; st1 {v0.4s}, [x4]
        0xb800_4462,
        0xb800_4c62,
        0x2900_0c82,
        0x3d80_0080,
        0x4c00_7880,
        // stxr w0, w2, [x3]; ldadd w1, w2, [x3]; cas w1, w2, [x3]; prfm pldl1keep, [x3]
        0x8800_7c62,
        0xb821_0062,
        0x88a1_7c62,
        0xf980_0060,
        // ldr x0, .+8; dc civac, x3
        0x5800_0040,
        0xd50b_7e23,
    ] {
        assert_eq!(access(word), None, "{word:#x}");
    }
}

#[test]
fn stores_and_loads_differ() {
    for word in [
        // str w5, [x1]; stp w2, w3, [x4]; stp q0, q1, [x4]; str q0, [x4]; str d0, [x4]; st1
        0xb900_0025,
        0x2900_0c82,
        0xad00_0480,
        0x3d80_0080,
        0xfd00_0080,
        0x4c00_7880,
        // stxr w0, w2, [x3]; stxp w0, x1, x2, [x3]; stlr w2, [x3]; stlur w1, [x3, #4]; sttr
        0x8800_7c62,
        0xc820_0861,
        0x889f_fc62,
        0x9900_4061,
        0xb800_0862,
        // dc civac, x3; dc zva, x3
        0xd50b_7e23,
        0xd50b_7423,
    ] {
        assert!(is_store(word), "{word:#x}");
    }
    for word in [
        // ldr w2, [x3]; ldrsw; ldp w2, w3, [x4]; ldp q0, q1, [x4]; ldr q0, [x4]; ld1; ldr literal
        0xb940_0062,
        0xb980_0462,
        0x2940_0c82,
        0xad40_0480,
        0x3dc0_0080,
        0x4c40_7880,
        0x5800_0040,
        // ldxr w2, [x3]; ldar x2, [x3]; ldapur; ldapr; add x0, x0, x1
        0x885f_7c62,
        0xc8df_fc62,
        0x9940_4061,
        0xb8bf_c061,
        0x8b01_0000,
        // They read first: ldadd, swp, cas, casp.
        0xb821_0062,
        0xb821_8062,
        0x88a1_7c62,
        0x4820_7c82,
    ] {
        assert!(!is_store(word), "{word:#x}");
    }
}

/// No instruction word makes the decoders fail.
#[test]
fn any_word_is_decoded() {
    let mut word = 1_u32;
    for _ in 0..100_000 {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if let Some(access) = access(word) {
            assert_eq!(access.is_write, is_store(word), "{word:#x}");
            assert_eq!(decode(word), None, "{word:#x}");
        }
    }
}
