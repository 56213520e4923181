//! Executors written as shell scripts, honest ones and such as do what none should: the campaign
//! has to find them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::subject::{Binaries, Subject};

/// What kind of an executor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Looks at every error.
    Careful,
    /// Does not look whether its file was written.
    Careless,
    /// Calls every error the sector's fault.
    Blaming,
    /// Writes a wrong byte where it finds something of an earlier run.
    WrongAfterKill,
    /// Answers twice.
    Twice,
    /// Takes requests and is silent.
    Silent,
    /// Ends as after a panic.
    Panics,
}

impl Script {
    fn text(self) -> String {
        let write = match self {
            Self::Careless => "cat staged > sealed 2>/dev/null",
            Self::WrongAfterKill => {
                "if [ -e cache/.began ]; then rm cache/.began; echo wrong > sealed; else \
                 : > cache/.began; sleep 0.3; cat staged > sealed; rm cache/.began; fi"
            }
            _ => "cat staged > .sealed.part 2>/dev/null && mv .sealed.part sealed || failed=1",
        };
        let error = if self == Self::Blaming { "[bad-input] x" } else { "[io] x" };
        let serve = match self {
            Self::Silent => ":".to_owned(),
            Self::Panics => "exit 101".to_owned(),
            Self::Twice => "echo \"$done\"; echo \"$done\"".to_owned(),
            _ => format!(
                "failed=; {write}\nif [ \"$failed\" ]; then rm -f .sealed.part; \
                 printf '{{\"id\":%s,\"err_msg\":\"{error}\",\"output\":null}}\\n' \"$id\"; \
                 else echo \"$done\"; fi"
            ),
        };
        format!(
            "#!/bin/sh\ntrap '' TERM\ncd sector || exit 3\necho 'pc1 processor ready'\nwhile read -r line; do\n\
             id=${{line#*\\\"id\\\":}}; id=${{id%%[!0-9]*}}\n\
             done='{{\"id\":'$id',\"err_msg\":null,\"output\":7}}'\n\
             printf '{{\"event\":\"started\",\"id\":%s,\"sector\":\"x\"}}\\n' \"$id\"\n\
             {serve}\ndone\n"
        )
    }

    /// Puts it as `name` into `dir`.
    pub(super) fn install(self, dir: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(dir)?;
        let path = dir.join(name);
        fs::write(&path, self.text())?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }
}

/// PC1 of a small sector by an honest script, which `script` then takes the place of.
pub(super) fn subject(dir: &Path, script: Script) -> Result<Subject> {
    let bin = dir.join("bin");
    Script::Careful.install(&bin, "pc1-exec")?;
    let subject = Subject::pc1(&Binaries { dir: bin.clone() }, "2KiB-v1_1-a", dir)?;
    script.install(&bin, "pc1-exec")?;
    Ok(subject)
}
