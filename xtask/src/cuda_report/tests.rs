//! The report over made-up machine code, from end to end but for nvcc.

use super::*;

const PTX: &str = r#"
.visible .entry NAME(
	.param .u32 NAME_param_0
)
.maxntid 64, 1, 1
{
	mov.u32 	%r1, 0;
$L:
	mad.lo.cc.u32 	%r3, %r4, %r5, %r3;
	madc.hi.u32 	%r6, %r4, %r5, %r6;
	add.s32 	%r1, %r1, 1;
	setp.ne.s32 	%p1, %r1, 10;
	@%p1 bra 	$L;
	ret;
}
"#;

const CODE: &str = "\
.text.NAME:
        /*0000*/                   MOV R1, RZ ;
.L_x_0:
        /*0010*/                   IMAD.WIDE.U32 R2, R4, R5, R2 ;
        /*0020*/                   VIADD R1, R1, 0x1 ;
        /*0030*/                   ISETP.NE.AND P0, PT, R1, 0xa, PT ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/                   EXIT ;
";

fn named(text: &str, names: &[&str]) -> String {
    names.iter().map(|name| text.replace("NAME", name)).collect()
}

fn compiled() -> (Compiled, Vec<ptxas::Kernel>) {
    let names: Vec<_> = HASHES.iter().map(|(name, _)| *name).chain([ENCODE]).collect();
    let operations = [
        "seal_operation_product",
        "seal_operation_square",
        "seal_operation_fifth_power",
        "seal_operation_dot_term",
    ];
    let said = |name: &&str| ptxas::Kernel {
        name: (*name).to_owned(),
        architecture: 90,
        registers: 160,
        shared: 24_576,
        stack: 0,
        spilled: 0,
    };
    let said = names.iter().map(said).collect();
    let compiled = Compiled {
        architecture: 90,
        kernels: named(CODE, &names),
        ptx: named(PTX, &names),
        operations: named(CODE, &operations),
    };
    (compiled, said)
}

#[test]
fn kernels_operations_and_predictions_come_of_the_machine_code() {
    let (compiled, said) = compiled();
    let kernels = kernels(&compiled, &said).expect("kernels");
    let operations = operations(&compiled).expect("operations");
    assert_eq!((kernels.len(), operations.len()), (5, 4));
    assert_eq!((operations[0].instructions, operations[0].wide_products), (4.0, 1.0));
    let columns = &kernels[0];
    assert_eq!(columns.wide_products_of_ptx, Some(10));
    assert_eq!(columns.occupancy.map(|occupancy| occupancy.threads), Some(384));
    let whole = columns.machine.executed.as_ref().expect("executed");
    assert_eq!((whole.counts.all(), whole.counts.get(Class::WideProduct)), (42, 10));
    let expected = expected(&kernels).expect("predictions");
    let cards: Vec<_> = expected.iter().map(|e| (e.card.name, e.rate.name())).collect();
    assert_eq!(cards, [("H100", "full"), ("H100", "half"), ("H200", "full"), ("H200", "half")]);
    let planned = checks_of_planner(&expected).expect("known cards");
    assert!(planned.len() == 2 && planned.iter().all(|check| !check.kept()), "{planned:?}");
    let checks = checks(&kernels, &operations).expect("checks");
    let report = Report { kernels, operations, expected, checks };
    let json = report.to_json();
    assert_eq!(json["kernels"][0]["executed"]["loops"][0]["passes"], 10);
    assert_eq!(json["kernels"][0]["threads_a_multiprocessor"], 384);
    assert_eq!(json["operations"][1]["operation"], "square");
    assert_eq!(json["predictions"][3]["wide_rate"], "half");
    assert_eq!(json["kept"], false);
}

#[test]
fn every_broken_promise_is_found() {
    let (compiled, mut said) = compiled();
    said[0].registers = 200;
    said[1].spilled = 8;
    let packed = compiled.kernels.replacen("VIADD R1", "P2R R9, PR, RZ, 0x1 ;\n/*0*/ VIADD R1", 1);
    let compiled = Compiled { kernels: packed, ..compiled };
    let kernels = kernels(&compiled, &said).expect("kernels");
    let checks = checks(&kernels, &operations(&compiled).expect("operations")).expect("checks");
    let broken: Vec<_> = checks.iter().filter(|check| !check.kept()).map(text::check).collect();
    for what in [
        "threads a multiprocessor, seal_columns_11 for 90: 256.00, at least 384",
        "bytes on a stack or spilled, seal_columns_2 for 90: 8.00, at most 0",
        "packed predicates, seal_columns_11 for 90: 1.00, at most 0",
        "instructions for each wide product, seal_columns_11 for 90: 5.20, at most 1.8",
        "wide products of PTX beside those counted, seal_rows_8 for 90: 1.00, at most 0.001",
    ] {
        assert!(broken.iter().any(|line| line == what), "{what} is not in {broken:#?}");
    }
    // What is kept is not among them.
    assert!(!broken.iter().any(|line| line.contains("instructions of a product")), "{broken:#?}");
    assert!(!broken.iter().any(|line| line.contains("of the PTX")), "{broken:#?}");
}

#[test]
fn machine_code_of_another_loop_count_than_the_ptx_is_found() {
    let (compiled, said) = compiled();
    let compiled = Compiled { kernels: compiled.kernels.replace("0xa,", "0xb,"), ..compiled };
    let kernels = kernels(&compiled, &said).expect("kernels");
    let checks = checks(&kernels, &[]).expect("checks");
    let broken = checks.iter().filter(|check| !check.kept());
    assert_eq!(broken.filter(|check| check.what.contains("of the PTX")).count(), 4);
}

#[test]
fn a_kernel_without_machine_code_is_an_error() {
    let (compiled, said) = compiled();
    let compiled = Compiled { kernels: compiled.kernels.replace(ENCODE, "other"), ..compiled };
    assert!(kernels(&compiled, &said).is_err());
}
