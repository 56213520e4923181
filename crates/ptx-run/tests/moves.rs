//! What only moves values from register to register leaves each where the text has it, in every
//! order of threads.

use ptx_run::{Grid, LaunchError, Memory, Module};

/// Runs a body with 2 blocks of 70 threads, over 140 words that are their places: of each thread
/// `%r1` is the place and `[%rd1]` the word.
fn run(body: &str, seed: u64) -> Result<Vec<u32>, LaunchError> {
    let text = format!(
        ".version 9.0
.target sm_80
.address_size 64
.visible .entry work(.param .u64 .ptr .align 1 work_param_0)
{{
    .reg .pred %p<8>;
    .reg .b32 %r<40>;
    .reg .b64 %rd<20>;
    ld.param.u64 %rd2, [work_param_0];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mad.lo.s32 %r1, %r3, %r4, %r2;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd1, %rd2, %rd3;
{body}
    ret;
}}
"
    );
    let memory = Memory::default();
    let module = Module::load(&text, &memory).expect("the text is known");
    let words: Vec<u8> = (0..140_u32).flat_map(u32::to_le_bytes).collect();
    let start = memory.take(words.len() as u64);
    assert!(memory.write(start, &words));
    let grid = Grid { blocks: 2, threads: 70, seed, most_steps: 1 << 20 };
    module.launch("work", grid, &[start.to_le_bytes().to_vec()], &memory)?;
    let mut bytes = vec![0; words.len()];
    assert!(memory.read(start, &mut bytes));
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn holds(body: &str, wanted: impl Fn(u32) -> u32) {
    let wanted: Vec<u32> = (0..140).map(wanted).collect();
    for seed in 0..40 {
        assert_eq!(run(body, seed).expect("it is right"), wanted, "seed {seed}: {body}");
    }
}

#[test]
fn registers_that_swap_in_a_loop_are_swapped_each_time() {
    // Three registers go round as often as the place says, with a copy of an older value kept.
    let body = "
    mov.u32 %r10, 100;
    add.s32 %r11, %r1, 200;
    mov.u32 %r12, 300;
    mov.u32 %r13, 0;
    mov.u32 %r14, 7;
$AGAIN:
    setp.ge.u32 %p1, %r13, %r2;
    @%p1 bra $DONE;
    mov.u32 %r14, %r12;
    mov.u32 %r20, %r10;
    mov.u32 %r10, %r11;
    mov.u32 %r11, %r12;
    mov.u32 %r12, %r20;
    add.s32 %r13, %r13, 1;
    bra.uni $AGAIN;
$DONE:
    mad.lo.s32 %r15, %r11, 1000, %r10;
    mad.lo.s32 %r15, %r12, 1000000, %r15;
    add.s32 %r15, %r15, %r14;
    st.global.u32 [%rd1], %r15;";
    holds(body, |place| {
        let (mut values, mut kept) = ([100, place + 200, 300_u32], 7);
        for _ in 0..place % 70 {
            kept = values[2];
            values.rotate_left(1);
        }
        let [a, b, c] = values;
        a.wrapping_add(b * 1000).wrapping_add(c.wrapping_mul(1_000_000)).wrapping_add(kept)
    });
}

#[test]
fn two_that_swap_and_a_third_that_follows_are_not_one() {
    let body = "
    mov.u32 %r10, %r1;
    not.b32 %r11, %r1;
    mov.u32 %r12, %r1;
    mov.u32 %r13, 0;
$AGAIN:
    mov.u32 %r12, %r10;
    mov.u32 %r10, %r11;
    mov.u32 %r11, %r12;
    add.s32 %r12, %r12, 1;
    add.s32 %r13, %r13, 1;
    setp.lt.u32 %p1, %r13, 3;
    @%p1 bra $AGAIN;
    sub.s32 %r14, %r10, %r11;
    xor.b32 %r14, %r14, %r12;
    st.global.u32 [%rd1], %r14;";
    holds(body, |place| (!place).wrapping_sub(place) ^ (place + 1));
}

#[test]
fn a_move_under_a_condition_leaves_the_others_as_they_were() {
    // %r10, %r11 and %r12 have one value before; one changes for some.
    let body = "
    add.s32 %r10, %r1, 5;
    mov.u32 %r11, %r10;
    mov.u32 %r12, %r11;
    mov.u32 %r13, 9;
    mov.u32 %r14, 9;
    and.b32 %r15, %r1, 1;
    setp.eq.u32 %p1, %r15, 1;
    @%p1 mov.u32 %r11, %r1;
    @!%p1 add.s32 %r12, %r12, %r11;
    @%p1 mov.u32 %r13, %r12;
    @%p1 mov.b64 %rd5, {%r10, %r13};
    mov.b64 %rd6, {%r10, %r13};
    mov.u64 %rd7, %rd6;
    @!%p1 mov.b64 {%r20, %r13}, %rd7;
    @%p1 add.s64 %rd7, %rd6, 1;
    mov.b64 {%r21, _}, %rd7;
    mov.b64 {%r22, _}, %rd6;
    mad.lo.s32 %r16, %r10, 31, %r11;
    mad.lo.s32 %r16, %r16, 31, %r12;
    mad.lo.s32 %r16, %r16, 31, %r13;
    mad.lo.s32 %r16, %r16, 31, %r14;
    mad.lo.s32 %r16, %r16, 31, %r21;
    mad.lo.s32 %r16, %r16, 31, %r22;
    st.global.u32 [%rd1], %r16;";
    holds(body, |place| {
        let five = place + 5;
        let values = if place % 2 == 1 {
            [five, place, five, five, 9, five + 1, five]
        } else {
            [five, five, five + five, 9, 9, five, five]
        };
        values.into_iter().fold(0_u32, |sum, value| sum.wrapping_mul(31).wrapping_add(value))
    });
}

#[test]
fn what_is_written_in_one_way_is_not_seen_in_the_other() {
    // Threads part; on one side a register that the other still reads is given a new value.
    let body = "
    mul.lo.s32 %r10, %r1, 3;
    mov.u32 %r11, %r10;
    and.b32 %r12, %r1, 3;
    setp.eq.u32 %p1, %r12, 2;
    @%p1 bra $TWO;
    mov.u32 %r13, %r10;
    mov.u32 %r10, 17;
    add.s32 %r14, %r13, %r10;
    mov.u32 %r11, %r14;
    bra.uni $MET;
$TWO:
    mov.u32 %r13, %r11;
    mov.u32 %r11, %r10;
    add.s32 %r10, %r13, 1;
$MET:
    mov.u32 %r15, %r10;
    mad.lo.s32 %r16, %r11, 1000, %r15;
    mad.lo.s32 %r16, %r13, 1000000, %r16;
    st.global.u32 [%rd1], %r16;";
    holds(body, |place| {
        let three = 3 * place;
        let (a, b) = if place % 4 == 2 { (three + 1, three) } else { (17, three + 17) };
        (three.wrapping_mul(1_000_000)).wrapping_add(b * 1000).wrapping_add(a)
    });
}

#[test]
fn halves_that_several_registers_share_stay_their_own() {
    // Of one word several numbers of 64 bits are made; one of them is computed with, in place.
    let body = "
    not.b32 %r10, %r1;
    mov.b64 %rd5, {%r10, %r10};
    mov.b64 %rd6, {%r1, %r10};
    mov.u64 %rd7, %rd5;
    add.s64 %rd5, %rd5, %rd6;
    mov.b64 {%r11, %r12}, %rd5;
    mov.b64 {%r12, %r11}, %rd7;
    shr.u64 %rd8, %rd5, 32;
    cvt.u32.u64 %r13, %rd8;
    shl.b64 %rd9, %rd6, 32;
    or.b64 %rd9, %rd9, %rd8;
    and.b64 %rd10, %rd9, 4294967295;
    cvt.u64.u32 %rd11, %r13;
    sub.s64 %rd12, %rd10, %rd11;
    cvt.s64.s32 %rd13, %r10;
    xor.b64 %rd14, %rd13, %rd9;
    shr.u64 %rd14, %rd14, 32;
    shr.u64 %rd15, %rd5, 31;
    add.s64 %rd15, %rd15, %rd14;
    add.s64 %rd15, %rd15, %rd12;
    add.s64 %rd15, %rd15, %rd7;
    mov.b64 {%r14, %r15}, %rd15;
    xor.b32 %r16, %r14, %r15;
    add.s32 %r16, %r16, %r11;
    mad.lo.s32 %r16, %r12, 3, %r16;
    st.global.u32 [%rd1], %r16;";
    holds(body, |place| {
        let not = !place;
        let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let sum = wide(not, not).wrapping_add(wide(place, not));
        let high = (sum >> 32) as u32;
        let mixed = wide(high, place);
        let sign = i64::from(not.cast_signed()).cast_unsigned();
        let all = (sum >> 31).wrapping_add((sign ^ mixed) >> 32).wrapping_add(wide(not, not));
        let (low, high) = (all as u32, (all >> 32) as u32);
        (low ^ high).wrapping_add(not).wrapping_add(not.wrapping_mul(3))
    });
}

#[test]
fn an_access_that_fails_behind_moves_is_named_with_its_line() {
    let body = "
    mov.u64 %rd5, %rd1;
    mov.b64 {%r10, %r11}, %rd5;
    mov.b64 %rd6, {%r10, %r11};
    ld.global.u32 %r12, [%rd6];
    mov.u32 %r13, %r12;
    ld.global.u32 %r14, [%rd6+4096];";
    match run(body, 1) {
        Err(LaunchError::Fault(fault)) => {
            assert_eq!(fault.instruction, "ld.global.u32 %r14, [%rd6+4096];");
            assert_eq!(fault.line, 22);
        }
        other => panic!("{other:?}"),
    }
}
