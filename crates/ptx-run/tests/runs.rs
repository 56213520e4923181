//! Small kernels: what is right gives the right result in every order, and what is wrong is found
//! and named.

use ptx_run::{Deed, Grid, LaunchError, Memory, Module};

/// A kernel over `out`, an array of words, and `count`.
fn kernel(body: &str) -> String {
    format!(
        ".version 9.0
.target sm_80
.address_size 64
.const .align 4 .b8 table[16];
.visible .entry work(.param .u64 .ptr .align 1 work_param_0, .param .u32 work_param_1)
{{
    .reg .pred %p<8>;
    .reg .b32 %r<40>;
    .reg .b64 %rd<20>;
    .shared .align 16 .b8 memory[1024];
    ld.param.u64 %rd1, [work_param_0];
    ld.param.u32 %r1, [work_param_1];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mad.lo.s32 %r5, %r3, %r4, %r2;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    shl.b32 %r6, %r2, 2;
    mov.u32 %r7, memory;
    add.s32 %r8, %r7, %r6;
{body}
    ret;
}}
"
    )
}

const SEEDS: std::ops::Range<u64> = 0..40;

/// Runs a body with 3 blocks of 96 threads, over 288 words that are their places.
fn run(body: &str, seed: u64) -> Result<Vec<u32>, LaunchError> {
    let memory = Memory::default();
    let module = Module::load(&kernel(body), &memory).expect("the text is known");
    let (table, bytes) = module.variable("table").expect("it is declared");
    assert_eq!(bytes, 16);
    assert!(memory.write(table, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]));
    let words: Vec<u8> = (0..288_u32).flat_map(u32::to_le_bytes).collect();
    let start = memory.take(words.len() as u64);
    assert!(memory.write(start, &words));
    let grid = Grid { blocks: 3, threads: 96, seed, most_steps: 1 << 20 };
    let arguments = [start.to_le_bytes().to_vec(), 288_u32.to_le_bytes().to_vec()];
    module.launch("work", grid, &arguments, &memory)?;
    let mut bytes = vec![0; words.len()];
    assert!(memory.read(start, &mut bytes));
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// What a body does that it must not, in every order; and the instruction.
fn caught(body: &str) -> Vec<(Deed, String)> {
    SEEDS
        .map(|seed| match run(body, seed) {
            Err(LaunchError::Fault(fault)) => (fault.deed, fault.instruction),
            other => panic!("seed {seed}: {other:?}"),
        })
        .collect()
}

fn refused(body: &str) -> String {
    Module::load(&kernel(body), &Memory::default()).expect_err("it must not be taken").to_string()
}

/// Every thread leaves its word to the one on the other side of the block.
const TURN_ROUND: &str = "
    ld.global.u32 %r10, [%rd4];
    st.shared.u32 [%r8], %r10;
    bar.sync 0;
    mov.u32 %r11, 380;
    sub.s32 %r12, %r11, %r6;
    add.s32 %r13, %r7, %r12;
    ld.shared.u32 %r14, [%r13];
    st.global.u32 [%rd4], %r14;";

#[test]
fn threads_hand_words_to_each_other_at_a_barrier() {
    let wanted: Vec<u32> = (0..288).map(|i| i / 96 * 96 + 95 - i % 96).collect();
    for seed in SEEDS {
        assert_eq!(run(TURN_ROUND, seed).expect("it is right"), wanted, "seed {seed}");
    }
}

#[test]
fn a_barrier_that_is_left_out_is_a_race_or_a_read_too_early() {
    let found = caught(&TURN_ROUND.replace("bar.sync 0;", ""));
    let kinds = found.iter().map(|(deed, _)| deed);
    let (mut races, mut early) = (0, 0);
    for deed in kinds {
        match deed {
            Deed::Race { .. } => races += 1,
            Deed::Unwritten { .. } => early += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(races + early == SEEDS.end && early > 0, "{races} races, {early} early");
}

#[test]
fn two_threads_that_write_one_word_race() {
    let body = "
    shr.u32 %r10, %r6, 1;
    and.b32 %r10, %r10, -4;
    add.s32 %r11, %r7, %r10;
    st.shared.u32 [%r11], %r2;";
    for (deed, instruction) in caught(body) {
        assert!(matches!(deed, Deed::Race { other: Some(_), .. }), "{deed:?}");
        assert_eq!(instruction, "st.shared.u32 [%r11], %r2;");
    }
}

#[test]
fn a_barrier_that_not_all_threads_come_to_is_found() {
    let body = "
    setp.lt.u32 %p1, %r2, 90;
    @%p1 bra $ALL;
    ret;
$ALL:
    bar.sync 0;";
    assert!(caught(body).iter().all(|(deed, _)| *deed == Deed::Barrier));
    let two = "
    setp.lt.u32 %p1, %r2, 48;
    @%p1 bra $FIRST;
    bar.sync 0;
    bra.uni $END;
$FIRST:
    bar.sync 0;
$END:";
    assert!(caught(two).iter().all(|(deed, _)| *deed == Deed::Barrier));
}

#[test]
fn memory_that_is_not_there_is_named() {
    // One word past the end, by the last thread.
    let found = caught("    st.global.u32 [%rd4+4], %r2;");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Outside { bytes: 4, .. })));
    let found = caught("    st.shared.u32 [%r8+1024], %r2;");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Outside { .. })));
    let found = caught("    mov.u64 %rd5, table;\n    ld.const.u32 %r9, [%rd5+16];");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Outside { .. })));
    // Constants are no place of global memory.
    let found = caught("    mov.u64 %rd5, table;\n    st.global.u32 [%rd5], %r2;");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Outside { .. })));
    let found = caught("    ld.param.u32 %r9, [work_param_1+4];");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Outside { .. })));
}

#[test]
fn an_address_that_is_not_aligned_is_named() {
    let found = caught("    ld.global.v2.u32 {%r9, %r10}, [%rd4+4];");
    assert!(found.iter().all(|(deed, _)| {
        matches!(deed, Deed::Unaligned { bytes: 8, .. } | Deed::Outside { .. })
    }));
    assert!(found.iter().any(|(deed, _)| matches!(deed, Deed::Unaligned { .. })));
    let found = caught("    st.shared.u32 [%r8+2], %r2;");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Unaligned { bytes: 4, .. })));
}

#[test]
fn what_nobody_has_written_is_not_read() {
    let found = caught("    ld.shared.u32 %r9, [%r8];");
    assert!(found.iter().all(|(deed, _)| matches!(deed, Deed::Unwritten { .. })));
    let text = refused("    add.s32 %r9, %r2, %r30;");
    assert!(text.contains("reads a register (Word) that nobody may have written"), "{text}");
    // On one of two ways.
    let text = refused(
        "
    setp.lt.u32 %p1, %r2, 90;
    @%p1 bra $ON;
    mov.u32 %r30, 1;
$ON:
    add.s32 %r9, %r2, %r30;",
    );
    assert!(text.contains("nobody may have written"), "{text}");
    let text = refused("    @%p7 bra $ON;\n$ON:");
    assert!(text.contains("reads a register (Predicate)"), "{text}");
}

#[test]
fn a_flag_is_taken_only_as_what_it_was_given() {
    let text = refused("    addc.u32 %r9, %r2, %r2;");
    assert!(text.ends_with("takes a carry that nothing in this block has given"), "{text}");
    let text = refused("    sub.cc.u32 %r9, %r2, %r2;\n    addc.u32 %r10, %r2, %r2;");
    assert!(text.ends_with("takes a carry as a borrow, or a borrow as a carry"), "{text}");
    let guarded = "    setp.lt.u32 %p1, %r2, 9;\n    @%p1 add.cc.u32 %r8, %r2, %r2;\n";
    let text = refused(&format!("{guarded}    addc.u32 %r8, %r2, %r2;"));
    assert!(text.ends_with("takes a carry under another condition than it was given"), "{text}");
    let text = refused(&format!(
        "{guarded}    setp.lt.u32 %p1, %r2, 8;\n    @%p1 addc.u32 %r8, %r2, %r2;"
    ));
    assert!(text.ends_with("takes a carry that nothing in this block has given"), "{text}");
    let text = refused("    add.cc.u32 %r9, %r2, %r2;\n$ON:\n    addc.u32 %r10, %r2, %r2;");
    assert!(text.ends_with("takes a carry that nothing in this block has given"), "{text}");
}

#[test]
fn what_is_not_known_stops_the_loading() {
    let text = refused("    vote.sync.ballot.b32 %r9, %p1, -1;");
    assert!(text.contains("vote.sync.ballot.b32"), "{text}");
    let text = refused("    mov.u32 %r9, %smid;");
    assert!(text.contains("%smid is not known here"), "{text}");
    let text = refused("    bra $NOWHERE;");
    assert!(text.contains("no label $NOWHERE"), "{text}");
}

#[test]
fn a_kernel_without_an_end_is_stopped() {
    let body = "$AGAIN:\n    add.s32 %r9, %r2, 1;\n    bra.uni $AGAIN;";
    match run(body, 1) {
        Err(LaunchError::Fault(fault)) => assert_eq!(fault.deed, Deed::Endless),
        other => panic!("{other:?}"),
    }
}

#[test]
fn threads_that_part_meet_again() {
    // Collatz: every thread takes its own number of steps, at most 200.
    let body = "
    add.s32 %r10, %r5, 1;
    mov.u32 %r11, 0;
$AGAIN:
    setp.eq.u32 %p1, %r10, 1;
    @%p1 bra $DONE;
    add.s32 %r11, %r11, 1;
    and.b32 %r12, %r10, 1;
    setp.eq.s32 %p2, %r12, 1;
    @!%p2 bra $EVEN;
    mad.lo.s32 %r10, %r10, 3, 1;
    bra.uni $AGAIN;
$EVEN:
    shr.u32 %r10, %r10, 1;
    bra.uni $AGAIN;
$DONE:
    bar.sync 0;
    @%p1 st.global.u32 [%rd4], %r11;";
    let steps = |start: u32| {
        let next = |n: &u32| (*n != 1).then(|| if n % 2 == 1 { 3 * n + 1 } else { n / 2 });
        std::iter::successors(Some(start), next).count() as u32 - 1
    };
    let wanted: Vec<_> = (1..=288).map(steps).collect();
    for seed in SEEDS {
        assert_eq!(run(body, seed).expect("it is right"), wanted, "seed {seed}");
    }
}

#[test]
fn chains_carry_as_numbers_of_many_words_do() {
    // (x + 2^32 y) z + 2^64 - 1, with words that carry, as three words; then less itself but one.
    let body = "
    sub.s32 %r10, 0, %r5;
    not.b32 %r11, %r5;
    sub.s32 %r12, -3, %r5;
    mad.lo.cc.u32 %r20, %r10, %r12, -1;
    madc.hi.cc.u32 %r21, %r10, %r12, -1;
    addc.u32 %r22, 0, 0;
    mad.lo.cc.u32 %r21, %r11, %r12, %r21;
    madc.hi.u32 %r22, %r11, %r12, %r22;
    sub.cc.u32 %r23, %r20, %r10;
    subc.cc.u32 %r24, %r21, %r11;
    subc.u32 %r25, %r22, 0;
    mov.b64 %rd10, {%r23, %r24};
    mov.b64 {%r26, %r27}, %rd10;
    xor.b32 %r28, %r26, %r27;
    xor.b32 %r28, %r28, %r25;
    st.global.u32 [%rd4], %r28;";
    let wanted: Vec<u32> = (0..288_u32)
        .map(|i| {
            let (x, y, z) = (i.wrapping_neg(), !i, (-3_i32).cast_unsigned().wrapping_sub(i));
            let number = u128::from(x) | u128::from(y) << 32;
            let sum = (number * u128::from(z) + u128::from(u64::MAX)) & ((1 << 96) - 1);
            let less = sum.wrapping_sub(number);
            (less ^ less >> 32 ^ less >> 64) as u32
        })
        .collect();
    for seed in SEEDS {
        assert_eq!(run(body, seed).expect("it is right"), wanted, "seed {seed}");
    }
}

#[test]
fn a_chain_under_a_condition_is_for_those_for_whom_it_holds() {
    let body = "
    setp.lt.u32 %p1, %r5, 100;
    mov.u32 %r10, -1;
    mov.u32 %r11, %r5;
    @%p1 add.cc.u32 %r10, %r10, 1;
    @%p1 addc.u32 %r11, %r11, 0;
    add.s32 %r12, %r10, %r11;
    st.global.u32 [%rd4], %r12;";
    let wanted: Vec<u32> = (0..288).map(|i| if i < 100 { i + 1 } else { i - 1 }).collect();
    for seed in SEEDS {
        assert_eq!(run(body, seed).expect("it is right"), wanted, "seed {seed}");
    }
}

#[test]
fn single_instructions_compute_what_the_language_says() {
    for (body, wanted) in [
        (
            "mul.hi.u32 %r9, %r5, -1;",
            (|i| ((u64::from(i) * 0xffff_ffff) >> 32) as u32) as fn(u32) -> u32,
        ),
        ("shf.l.wrap.b32 %r9, %r5, 7, 33;", |i| 14 | i >> 31),
        ("shf.r.wrap.b32 %r9, %r5, 7, 4;", |i| i >> 4 | 7 << 28),
        ("prmt.b32 %r9, %r5, -2, 0x4041;", |i| {
            u32::from_le_bytes([(i >> 8) as u8, 0xfe, i as u8, 0xfe])
        }),
        ("lop3.b32 %r9, %r5, 12, 10, 0xe8;", |i| i & 12 | i & 10 | 12 & 10),
        ("shl.b32 %r9, %r5, 32;", |_| 0),
        ("shr.s32 %r9, -8, %r5;", |i| (-8_i32 >> i.min(31)).cast_unsigned()),
        ("neg.s32 %r9, %r5;", u32::wrapping_neg),
        ("min.s32 %r9, %r5, -1;", |_| u32::MAX),
        ("max.u32 %r9, %r5, 100;", |i| i.max(100)),
        ("rem.u32 %r9, %r5, 7;", |i| i % 7),
        ("popc.b32 %r9, %r5;", u32::count_ones),
        ("clz.b32 %r9, %r5;", u32::leading_zeros),
        ("setp.gt.s32 %p1, -1, %r5;\n selp.b32 %r9, 1, %r5, %p1;", |i| i),
        ("mul.wide.s32 %rd5, %r5, -1;\n shr.s64 %rd6, %rd5, 3;\n cvt.u32.u64 %r9, %rd6;", |i| {
            (-i64::from(i) >> 3) as u32
        }),
        (
            "mul.wide.u32 %rd5, %r5, -1;\n add.cc.u64 %rd6, %rd5, -1;\n addc.u64 %rd7, 0, 0;\n \
          cvt.u32.u64 %r9, %rd7;",
            |i| u32::from(i > 0),
        ),
        (
            "mov.u64 %rd5, table;\n and.b32 %r10, %r5, 3;\n mul.wide.u32 %rd6, %r10, 4;\n \
          add.s64 %rd7, %rd5, %rd6;\n ld.const.u32 %r9, [%rd7];",
            |i| i % 4 + 1,
        ),
        (
            "cvt.rn.f64.u32 %rd5, %r5;\n fma.rn.f64 %rd6, %rd5, 0d4000000000000000, %rd5;\n \
          shr.u64 %rd7, %rd6, 32;\n cvt.u32.u64 %r9, %rd7;",
            |i| ((f64::from(i) * 3.0).to_bits() >> 32) as u32,
        ),
    ] {
        let store = "\n    st.global.u32 [%rd4], %r9;";
        let wanted: Vec<_> = (0..288).map(wanted).collect();
        assert_eq!(run(&format!("{body}{store}"), 3).expect("it is right"), wanted, "{body}");
    }
}

#[test]
fn the_smallest_of_all_threads_is_kept() {
    let body = "
    cvt.u64.u32 %rd5, %r5;
    add.s64 %rd6, %rd5, 7;
    add.s64 %rd7, %rd2, 8;
    bar.sync 0;
    setp.gt.u32 %p1, %r5, 40;
    @%p1 atom.global.min.u64 %rd8, [%rd7], %rd6;";
    for seed in SEEDS {
        let words = run(body, seed).expect("it is right");
        // What was there, words 2 and 3, was larger.
        assert_eq!(words[2..4], [48, 0], "seed {seed}");
    }
}

#[test]
fn arguments_fit_the_kernel() {
    let memory = Memory::default();
    let module = Module::load(&kernel(""), &memory).expect("it is known");
    let grid = Grid { blocks: 1, threads: 32, seed: 1, most_steps: 1 << 20 };
    let wrong = |name, grid, arguments: &[Vec<u8>]| {
        module.launch(name, grid, arguments, &memory).expect_err("it does not fit").to_string()
    };
    assert_eq!(wrong("rest", grid, &[]), "there is no kernel rest");
    assert_eq!(wrong("work", grid, &[]), "work takes 2 arguments, 0 were given");
    let text = wrong("work", grid, &[vec![0; 8], vec![0; 8]]);
    assert_eq!(text, "work takes 4 bytes for work_param_1, not 8");
    let text = wrong("work", Grid { threads: 1025, ..grid }, &[vec![0; 8], vec![0; 4]]);
    assert!(text.starts_with("work cannot run as"), "{text}");
}

#[test]
fn what_threads_execute_is_counted() {
    let memory = Memory::default();
    let module = Module::load(
        &kernel("    setp.lt.u32 %p1, %r2, 10;\n    @%p1 bra $ON;\n    neg.s32 %r9, %r2;\n$ON:"),
        &memory,
    )
    .expect("it is known");
    let grid = Grid { blocks: 2, threads: 50, seed: 1, most_steps: 1 << 20 };
    for _ in 0..2 {
        module.launch("work", grid, &[vec![0; 8], vec![0; 4]], &memory).expect("it is right");
    }
    let (threads, counts) = module.counts("work").expect("there is such a kernel");
    assert_eq!((threads, counts["ret"], counts["neg.s32"]), (200, 200, 160));
    assert_eq!(counts["ld.param.u64"], 200);
}
