//! Cards that people have: too old, taken, forbidden, with an old driver, and several of which one
//! is chosen. Everything that is refused is refused with the card's name, the cause and the remedy.

use std::process::Command;

use seal_cuda::{CudaError, Device, DeviceInfo, OpenOptions};

use crate::support::{open, scripted};

/// Two cards of different names, UUIDs and architectures.
const TWO: &str = "visible 1
devices 2
card 0 name NVIDIA A100-PCIE-40GB
card 0 uuid 5b6a1bfe1f5e4b6b8ed3b2d1b0f6f1d6
card 0 compute 8 0
card 1 name NVIDIA GeForce RTX 3080
card 1 uuid 5b6a99990123456789abcdef01234567
card 1 compute 8 6
";

/// Names the stand-in for the driver, in a process that is to open it.
const LIBRARY: &str = "SEAL_CUDA_TEST_LIBRARY";

/// Which card is opened with `CUDA_VISIBLE_DEVICES` like this, or why none is. The driver reads its
/// environment, so each is a process of its own.
fn opened(library: &std::path::Path, visible: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "cards::opens_the_card_that_it_is_told", "--nocapture"]);
    command.env(LIBRARY, library).env_remove("CUDA_VISIBLE_DEVICES");
    if let Some(visible) = visible {
        command.env("CUDA_VISIBLE_DEVICES", visible);
    }
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once("opened: ")).expect("it tells");
    line.1.to_owned()
}

/// The other process.
#[test]
fn opens_the_card_that_it_is_told() {
    let Some(library) = std::env::var_os(LIBRARY) else { return };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let options = OpenOptions {
        driver: Some(library.as_ref()),
        image: Some(b"the stand-in has its kernels within"),
        visible: visible.as_deref(),
    };
    let told = match Device::open(options) {
        Ok(device) => {
            let info = device.info();
            assert_eq!(DeviceInfo::of_first(options).expect("it is there"), *info);
            format!("{} {:?} {}", info.model(), info.compute, info.visible_devices)
        }
        Err(error) => error.to_string(),
    };
    #[expect(clippy::print_stdout, reason = "it is what the other process reads")]
    {
        println!("opened: {told}");
    }
}

#[test]
fn the_chosen_one_of_two_cards_is_used() {
    let Some((library, _dir)) = scripted("one of two cards", TWO) else { return };
    let a100 = "NVIDIA A100-PCIE-40GB (GPU-5b6a1bfe-1f5e-4b6b-8ed3-b2d1b0f6f1d6) (8, 0)";
    let rtx = "NVIDIA GeForce RTX 3080 (GPU-5b6a9999-0123-4567-89ab-cdef01234567) (8, 6)";
    for (visible, card, count) in [
        (None, a100, 2),
        (Some("0"), a100, 1),
        (Some("1"), rtx, 1),
        (Some("1,0"), rtx, 2),
        (Some("GPU-5b6a9999-0123-4567-89ab-cdef01234567"), rtx, 1),
        (Some("GPU-5b6a1"), a100, 1),
        (Some("GPU-5b6a9,0"), rtx, 2),
        // What comes after an entry that names none is hidden.
        (Some("1,7,0"), rtx, 1),
        (Some("0,-1,1"), a100, 1),
    ] {
        assert_eq!(opened(&library, visible), format!("{card} {count}"), "{visible:?}");
    }
    // A beginning that both have, an index that none has, and nothing.
    for hidden in ["GPU-5b6a", "7", "-1", "", "7,0"] {
        let error = opened(&library, Some(hidden));
        assert!(error.starts_with("the NVIDIA driver shows no device"), "{error}");
        assert!(error.contains(&format!("CUDA_VISIBLE_DEVICES={hidden:?}")), "{error}");
    }
}

#[test]
fn an_old_driver_is_named_whatever_else_it_says() {
    // Also where it says that there is no device, or lacks what newer ones have.
    for script in ["version 12040", "version 12090\ndevices 0", "version 11080\nfail cuInit 1 803"]
    {
        let Some((library, _dir)) = scripted("an old driver", script) else { return };
        let error = open(&library).expect_err("it is too old");
        assert!(matches!(error, CudaError::OldDriver { .. }), "{error}");
        let version = &script["version ".len()..][..4];
        let version = format!("for CUDA {}.{}", &version[..2], &version[3..]);
        let told = error.to_string();
        assert!(told.contains(&version) && told.contains("580 or newer"), "{told}");
    }
    let Some((library, _dir)) = scripted("a newer driver", "version 13010") else { return };
    let device = open(&library).expect("newer ones take older kernels");
    assert!(device.info().to_string().ends_with("driver for CUDA 13.1)"));
}

#[test]
fn a_card_that_another_process_has_is_named_with_what_to_do() {
    let card = "card 0 name NVIDIA A40\n";
    for (script, part) in [
        ("card 0 mode 3\ncard 0 held 1", "another process holds it, and its compute mode is excl"),
        ("card 0 mode 2", "its compute mode is prohibited"),
    ] {
        let script = format!("{card}{script}");
        let Some((library, _dir)) = scripted("a card of another process", &script) else { return };
        let error = open(&library).expect_err("it cannot be had");
        let told = error.to_string();
        assert!(matches!(error, CudaError::Open { .. }), "{error}");
        assert!(told.starts_with("NVIDIA A40 (GPU-00010203-") && told.contains(part), "{told}");
        assert!(told.contains("nvidia-smi"), "{told}");
    }
    // Exclusive, and nobody has it.
    let Some((library, _dir)) = scripted("an exclusive card", "card 0 mode 3") else { return };
    open(&library).expect("it is free");
}

#[test]
fn a_card_that_no_kernel_is_for_is_told_so_and_not_to_update_its_driver() {
    let card = "card 0 name NVIDIA Tesla P100\ncard 0 compute 6 0\n";
    let script = format!("{card}fail cuModuleLoadData 1 209");
    let Some((library, _dir)) = scripted("a card that is too old", &script) else { return };
    let error = open(&library).expect_err("no kernel is for it");
    let told = error.to_string();
    assert!(matches!(error, CudaError::NoImage { compute: (6, 0), .. }), "{error}");
    assert!(told.starts_with("NVIDIA Tesla P100 (GPU-00010203-"), "{told}");
    assert!(told.contains("compute capability 6.0") && !told.contains("580"), "{told}");
}

#[test]
fn a_card_that_does_not_answer_is_named_as_what_it_is() {
    for (script, part) in [
        // Fallen off the bus while the driver starts, and afterwards.
        ("fail cuInit 1 999", "does not start"),
        ("fail cuDevicePrimaryCtxRetain 1 999", "Xid"),
        ("fail cuDevicePrimaryCtxRetain 1 2", "hold its memory"),
        ("fail cuInit 1 803", "different versions"),
    ] {
        let Some((library, _dir)) = scripted("a card that does not answer", script) else { return };
        let error = open(&library).expect_err("it does not answer");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}
