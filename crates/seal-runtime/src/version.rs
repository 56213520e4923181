//! What `--version` tells beyond a number.

/// The text behind `--version`: number, build features, and what was detected of the processor.
pub fn long_version(number: &str, features: &[&str], kernels: &[(&str, &str)]) -> String {
    let mut text = format!("{number}\nfeatures: ");
    text.push_str(&if features.is_empty() { "none".to_owned() } else { features.join(" ") });
    for (what, name) in kernels {
        text.push_str(&format!("\n{what}: {name}"));
    }
    let isa = detected_isa();
    text.push_str("\nprocessor: ");
    text.push_str(&if isa.is_empty() {
        "no extensions that matter here".to_owned()
    } else {
        isa.join(" ")
    });
    text
}

/// The instruction set extensions that some kernel of this project can use, where they are.
fn detected_isa() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return [
        ("sha", is_x86_feature_detected!("sha")),
        ("adx", is_x86_feature_detected!("adx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_kernels_are_chosen_by_is_named_where_it_is() {
        let isa = detected_isa();
        for (name, there) in [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
        ] {
            assert_eq!(isa.contains(&name), there, "{name}: {isa:?}");
        }
    }

    #[test]
    fn tells_features_and_kernels() {
        let text = long_version("1.2.3", &["cuda"], &[("sha256", "portable")]);
        assert!(text.starts_with("1.2.3\nfeatures: cuda\nsha256: portable\nprocessor: "), "{text}");
    }
}
