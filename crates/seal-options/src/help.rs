//! Help texts about the environment.

use crate::Settings;
use crate::row::Unset;

/// The width of help texts.
const WIDTH: usize = 100;

/// A section `Environment` on the settings that have a name there.
pub fn environment_help<S: Settings>() -> String {
    let mut text = "Environment:".to_owned();
    for about in S::abouts() {
        let Some(name) = about.variable else { continue };
        let what = match about.option {
            Some(option) => format!("As {option}"),
            None => about.meaning.to_owned(),
        };
        let default = match (about.option, about.default) {
            (None, Unset::Value(value) | Unset::Else(value)) => format!(" [default: {value}]"),
            _ => String::new(),
        };
        text.push_str(&format!("\n  {name}"));
        wrap(&mut text, &format!("{what}{default}"));
    }
    text.push_str(
        "\nOther FIL_PROOFS_* names have no effect here; RUST_LOG=debug names those that are set.",
    );
    text
}

/// Appends lines of `text`, indented.
fn wrap(to: &mut String, text: &str) {
    const INDENT: &str = "\n          ";
    let mut room = 0;
    for word in text.split_whitespace() {
        if word.len() + 1 > room {
            to.push_str(INDENT);
            room = WIDTH - INDENT.len();
        } else {
            to.push(' ');
            room -= 1;
        }
        to.push_str(word);
        room = room.saturating_sub(word.len());
    }
}

#[cfg(test)]
mod tests {
    use crate::{C2, Pc1, Pc2, Settings};

    fn help<S: Settings>() -> String {
        let command = S::command("an executor").after_help(super::environment_help::<S>());
        command.clone().render_long_help().to_string()
    }

    #[test]
    fn every_setting_is_in_the_help_text_and_no_line_is_too_long() {
        fn check<S: Settings>() {
            let help = help::<S>();
            for about in S::abouts() {
                for name in [about.option, about.variable].into_iter().flatten() {
                    assert!(help.contains(name), "{name}: {help}");
                }
            }
            let long = help.lines().find(|line| line.len() > super::WIDTH);
            assert_eq!(long, None, "{help}");
        }
        check::<Pc1>();
        check::<Pc2>();
        check::<C2>();
    }
}
