//! C programs: clang with BTF, the way most third parties build theirs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, create_dir, workspace_root};

/// The third-party examples that are written in C, without `.c`.
pub const C_EXAMPLES: [&str; 3] = ["pktcount", "ratelimit", "portfilter"];

/// Builds every C example into `out`, as `<name>.o`. Returns their paths.
///
/// # Errors
/// When clang is missing, an example does not compile or `out` cannot be made.
pub fn build_c_examples(out: &Path) -> Result<Vec<PathBuf>, Error> {
    create_dir(out)?;
    // clang runs in another folder.
    let out = std::path::absolute(out).map_err(|source| Error::Write { path: out.to_path_buf(), source })?;
    // Relative source paths and a mapped directory keep the machine's paths out of the objects.
    let sources = workspace_root().join("programs/examples");
    let mut remap = std::ffi::OsString::from("-ffile-prefix-map=");
    remap.push(&sources);
    remap.push("=.");
    C_EXAMPLES
        .iter()
        .map(|name| {
            let object = out.join(format!("{name}.o"));
            let mut clang = Command::new("clang");
            clang.current_dir(&sources);
            clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]);
            clang
                .arg(&remap)
                .args(system_includes())
                .arg("-c")
                .arg(format!("{name}.c"))
                .arg("-o")
                .arg(&object);
            let output =
                clang.output().map_err(|source| Error::NoTool { program: "clang".to_owned(), source })?;
            if output.status.success() {
                Ok(object)
            } else {
                Err(Error::Compile {
                    what: format!("{name}.c"),
                    output: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
                })
            }
        })
        .collect()
}

/// Debian and Ubuntu keep `asm/types.h` below the machine's triplet, where clang does not look for a BPF target.
fn system_includes() -> Vec<String> {
    let triplet = Path::new("/usr/include").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    if triplet.is_dir() { vec![format!("-I{}", triplet.display())] } else { Vec::new() }
}
