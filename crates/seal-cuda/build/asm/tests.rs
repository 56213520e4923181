//! Sources and PTX, right ones and wrong ones.

use super::{Fault, faults_of_ptx, faults_of_sources};

/// `add_chain` as it was: the carry is written first and not marked. One register each for an
/// input and the carry made every column of eleven layers wrong.
const CHAIN: &str = r#"
    asm("add.cc.u32 %8, %8, 0xffffffff;\n\t"
        "addc.cc.u32 %0, %0, %9;\n\t"
        "addc.cc.u32 %1, %1, %10;\n\t"
        "addc.cc.u32 %2, %2, %11;\n\t"
        "addc.cc.u32 %3, %3, %12;\n\t"
        "addc.cc.u32 %4, %4, %13;\n\t"
        "addc.cc.u32 %5, %5, %14;\n\t"
        "addc.cc.u32 %6, %6, %15;\n\t"
        "addc.cc.u32 %7, %7, %16;\n\t"
        "addc.u32 %8, 0, 0;"
        : "+r"(t[0]), "+r"(t[1]), "+r"(t[2]), "+r"(t[3]), "+r"(t[4]), "+r"(t[5]), "+r"(t[6]),
          "+r"(t[7]), "+r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
"#;

/// A piece that nvcc 13.0 made of it for compute_90: the first summand and the carry are one.
const MERGED: &str = "\
.visible .entry seal_columns_11(
	// begin inline asm
	add.cc.u32 %r121, %r121, 0xffffffff;
	addc.cc.u32 %r113, %r113, %r121;
	addc.cc.u32 %r114, %r114, %r123;
	addc.cc.u32 %r115, %r115, %r124;
	addc.cc.u32 %r116, %r116, %r125;
	addc.cc.u32 %r117, %r117, %r126;
	addc.cc.u32 %r118, %r118, %r127;
	addc.cc.u32 %r119, %r119, %r128;
	addc.cc.u32 %r120, %r120, %r129;
	addc.u32 %r121, 0, 0;
	// end inline asm
";

fn faults(source: &str) -> Vec<String> {
    let (_, faults) = faults_of_sources("a.cuh", source);
    faults.iter().map(Fault::to_string).collect()
}

fn faults_in_ptx(source: &str, ptx: &str) -> Vec<String> {
    let (statements, _) = faults_of_sources("a.cuh", source);
    let (_, faults) = faults_of_ptx("a.ptx", ptx, &statements);
    faults.iter().map(Fault::to_string).collect()
}

fn piece(text: &str) -> String {
    format!(".entry f(\n\t// begin inline asm\n\t{text}\n\t// end inline asm\n")
}

#[test]
fn each_unmarked_output_is_named_with_the_operand_that_is_read_after_it() {
    let faults = faults(CHAIN);
    let carry = "a.cuh:2: %8 (carry) is written by instruction 1 (add.cc.u32 %8, %8, 0xffffffff) \
                 before the last read of %9 (a[0]), by instruction 2 (addc.cc.u32 %0, %0, %9); \
                 where both are known to be equal the compiler gives them one register: make its \
                 constraint \"+&r\"";
    assert!(faults.iter().any(|fault| fault == carry), "{faults:#?}");
    // The last word is written when nothing else is read any more.
    assert_eq!(faults.len(), 8, "{faults:#?}");
    assert!(!faults.iter().any(|fault| fault.contains("%7 (t[7]) is written")), "{faults:#?}");
}

#[test]
fn marked_outputs_are_right() {
    let marked = CHAIN.replace("\"+r\"", "\"+&r\"").replace("\"+&r\"(t[7])", "\"+r\"(t[7])");
    assert_eq!(faults(&marked), [""; 0]);
}

#[test]
fn a_register_that_two_operands_share_is_found_in_ptx() {
    let found = faults_in_ptx(CHAIN, MERGED);
    assert_eq!(
        found,
        ["a.ptx:2: in seal_columns_11, %8 (carry) and %9 (a[0]) of a.cuh:2 share the register \
          %r121: instruction 1 (add.cc.u32 %8, %8, 0xffffffff) overwrites what instruction 2 \
          (addc.cc.u32 %0, %0, %9) reads"]
    );
    let apart = MERGED.replace("%r113, %r121;", "%r113, %r122;");
    assert_eq!(faults_in_ptx(CHAIN, &apart), [""; 0]);
    // Only inputs are one register, and the last word and its summand, which harms nobody.
    let harmless = apart.replace("%r124", "%r123").replace("%r129", "%r120");
    assert_eq!(faults_in_ptx(CHAIN, &harmless), [""; 0]);
}

#[test]
fn a_piece_of_unknown_origin_is_a_fault() {
    let found = faults_in_ptx(CHAIN, &MERGED.replace("0xffffffff", "0xfffffffe"));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("is of none of the sources"), "{found:?}");
    // An operand has one register wherever it stands.
    let found = faults_in_ptx(CHAIN, &MERGED.replace("addc.u32 %r121", "addc.u32 %r122"));
    assert!(found[0].contains("is of none of the sources"), "{found:?}");
    let cut = MERGED.replace("\t// end inline asm\n", "");
    assert!(faults_in_ptx(CHAIN, &cut)[0].contains("has no"));
    // One instruction by itself reads before it writes.
    assert_eq!(faults_in_ptx("", &piece("mov.u64 \t%rd1, %clock64;")), [""; 0]);
}

#[test]
fn of_two_statements_with_the_same_instructions_a_piece_may_be_of_either() {
    let own = r#"asm("add.u32 %0, %0, %1; add.u32 %2, %2, %0;" : "+&r"(x), "+r"(y) : "r"(z));"#;
    let own = own.replace("%2, %2", "%1, %1").replace(", %1; ", ", %2; ");
    let other = r#"asm("add.u32 %0, %0, %2; add.u32 %1, %1, %3;"
        : "+&r"(x), "+r"(y) : "r"(z), "r"(u));"#;
    let ptx = piece("add.u32 %r1, %r1, %r3; add.u32 %r2, %r2, %r1;");
    assert_eq!(faults_in_ptx(&own, &ptx), [""; 0]);
    assert_eq!(faults_in_ptx(other, &ptx).len(), 1);
    assert_eq!(faults_in_ptx(&format!("{own}{other}"), &ptx), [""; 0]);
}

#[test]
fn local_registers_vectors_and_predicates_are_read() {
    let source = r#"
    asm volatile("{ .reg .u32 t0, t1; .reg .pred p; // a comment
        "
        : );
    "#;
    assert!(faults(source)[0].contains("a text without an end"));
    let source = r#"asm("{ .reg .u32 t0, t1;\n\t.reg .pred p;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p mad.lo.cc.u32 t0, %2, %3, t0;\n\t"
        "addc.u32 %1, %1, 0;\n\t"
        "mov.b64 %0, {t0, t1};\n\t}"
        : "+l"(pair), "+r"(top) : "r"(a), "r"(b));"#;
    assert_eq!(faults(source), [""; 0]);
    // The guard of an instruction is read, and what is written under a guard is written.
    let source = r#"asm("mov.u32 %0, 1;\n\t@!%1 mov.u32 %0, 2;" : "=r"(x) : "p"(q));"#;
    assert!(faults(source)[0].contains("before the last read of %1 (q)"), "{:?}", faults(source));
    let source = r#"asm("@%1 mov.u32 %0, 1;\n\tadd.u32 %0, %0, %2;" : "+r"(x) : "p"(q), "r"(a));"#;
    assert!(faults(source)[0].contains("before the last read of %2 (a)"), "{:?}", faults(source));
    // Both halves of a pair are written.
    let source = r#"asm("mov.b64 {%0, %1}, %2;\n\tmov.u32 %0, %3;" : "=&r"(x), "=r"(y)
        : "l"(z), "r"(a));"#;
    assert!(faults(source)[0].contains("%1 (y) is written"), "{:?}", faults(source));
}

#[test]
fn operands_may_have_names() {
    let source = r#"asm("mov.u32 %[out], 0;\n\tadd.u32 %[out], %[out], %[in];"
        : [out] "=r"(x) : [in] "r"(f(y, 1)));"#;
    assert!(faults(source)[0].contains("%0 (x) is written"), "{:?}", faults(source));
    assert!(faults(source)[0].contains("read of %1 (f(y,1))"), "{:?}", faults(source));
    assert_eq!(faults(&source.replace("\"=r\"", "\"=&r\"")), [""; 0]);
    assert!(faults(&source.replace("%[in]", "%[on]"))[0].contains("no operand has this name"));
}

#[test]
fn tied_operands_and_immediates_are_told_from_others() {
    // The input is the output's own register.
    let tied = r#"asm("add.u32 %0, %0, 1;\n\tadd.u32 %0, %0, %2;" : "=&r"(x) : "0"(y), "r"(z));"#;
    assert!(faults(tied)[0].contains("read by instruction 1"), "{:?}", faults(tied));
    let read_late = r#"asm("mov.u32 %0, 1;\n\tadd.u32 %0, %0, %1;" : "=&r"(x) : "0"(y));"#;
    assert!(faults(read_late)[0].contains("lies in the register of %0"), "{:?}", faults(read_late));
    let read_in_time = r#"asm("add.u32 %0, %1, 1;\n\tadd.u32 %0, %0, 1;" : "=r"(x) : "0"(y));"#;
    assert_eq!(faults(read_in_time), [""; 0]);
    // A number is no register.
    let number = r#"asm("mov.u32 %0, 1;\n\tadd.u32 %0, %0, %1;" : "=r"(x) : "n"(5));"#;
    assert_eq!(faults(number), [""; 0]);
    assert_eq!(faults_in_ptx(number, &piece("mov.u32 %r1, 1; add.u32 %r1, %r1, -5;")), [""; 0]);
}

#[test]
fn other_wrong_constraints_are_faults() {
    for (source, what) in [
        (r#"asm("add.u32 %1, %1, 1;" : "=r"(x) : "r"(y));"#, "%0 (x) is an output and never"),
        (r#"asm("add.u32 %0, %1, 1;\n\tadd.u32 %1, %0, 1;" : "=&r"(x) : "r"(y));"#, "is an input"),
        (r#"asm("add.u32 %0, %0, 1;" : "=r"(x));"#, "make its constraint \"+r\""),
        (r#"asm("add.u32 %0, %0, 1;" : "r"(x));"#, "neither = nor +"),
        (r#"asm("add.u32 %0, %1, 1;" : "=r"(x) : "+r"(y));"#, "marked as an output"),
        (r#"asm("add.u32 %0, %2, 1;" : "=r"(x) : "r"(y));"#, "operand %2, and there are 2"),
        (r#"asm("frobnicate.u32 %0, %1;" : "=r"(x) : "r"(y));"#, "\"frobnicate\""),
        (r#"asm(TEXT : "=r"(x));"#, "no text"),
        (r#"asm("mov.u32 %0, " REGISTER ";" : "=r"(x));"#, "\"REGISTER\" behind its template"),
        (r#"asm("mov.u32 %0, %laneid;" : "=r"(x));"#, "neither an operand"),
        (r#"asm(R"(mov.u32 %0, 1;)" : "=r"(x));"#, "a raw string"),
        ("/* asm", "a comment without an end"),
    ] {
        let found = faults(source);
        assert!(found.iter().any(|fault| fault.contains(what)), "{source}: {found:?}");
    }
}

#[test]
fn with_labels_nothing_is_known_of_the_order() {
    let source = r#"asm("again: add.u32 %0, %0, %1;\n\tbra again;" : "+r"(x) : "r"(y));"#;
    assert!(faults(source)[0].contains("before the last read of %1 (y)"), "{:?}", faults(source));
    assert_eq!(faults(&source.replace("again: ", "").replace("bra again;", "")), [""; 0]);
}

#[test]
fn comments_texts_and_escaped_signs_are_no_assembly() {
    let source = r#"
    // asm("add.u32 %1, %0, 1;" : "=r"(x) : "r"(y));
    /* asm(NOTHING) */
    const char *text = "asm(NOTHING)"; const char quote = '"';
    long big = 1'000'000;
    asm("mov.u32 %0, %%laneid;" : "=r"(x));
    #define STEP \
      asm volatile("add.u32 %0, %0, %1;" \
                   : "+r"(x) : "r"(y) : "memory")
    "#;
    let (statements, faults) = faults_of_sources("a.cuh", source);
    assert_eq!(faults, []);
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[0].place(), "a.cuh:6");
}

#[test]
fn functions_are_named_in_ptx() {
    let ptx = MERGED.replace(".visible .entry seal_columns_11(", ".func (.param .b32 r) add(");
    assert!(faults_in_ptx(CHAIN, &ptx)[0].contains("in add, "));
}
