//! Where chains.yaml and the objects come from.

use std::io;
use std::path::{Path, PathBuf};

use xdpchain_spec::{ChainSpec, Config, Engine, ObjectRef, near};

use crate::builtin;
use crate::error::{Error, Result};

/// Where chains.yaml is looked for.
const DEFAULT_FILES: [&str; 2] = ["chains.yaml", "/etc/xdpchain/chains.yaml"];

/// Reads the chains.yaml that was named, else the first that there is.
pub(crate) fn read(file: Option<&Path>) -> Result<(Config, PathBuf)> {
    let (text, path) = read_text(file)?;
    Ok((Config::parse(&text, &path)?, path))
}

/// The text of the chains.yaml that was named, else of the first that there is, and where it is.
pub(crate) fn read_text(file: Option<&Path>) -> Result<(String, PathBuf)> {
    let path = match file {
        Some(file) => file,
        None => DEFAULT_FILES.iter().map(Path::new).find(|path| path.exists()).ok_or(Error::NoConfig)?,
    };
    let failed = |source| Error::ReadConfig { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))?;
    tracing::debug!(file = %path.display(), "read");
    Ok((text, path.to_owned()))
}

/// The chain for an interface: the one called `name`, else the one that lists the interface.
pub(crate) fn chain_for<'a>(
    config: &'a Config,
    file: &Path,
    iface: &str,
    name: Option<&str>,
) -> Result<&'a ChainSpec> {
    let chain = match name {
        Some(name) => config.chains.get(name).ok_or_else(|| Error::NoSuchChain {
            file: file.to_owned(),
            chain: name.to_owned(),
            hint: match near(name, &config.chains.keys().collect::<Vec<_>>()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its chains are: {}", listed(config.chains.keys())),
            },
        })?,
        None => config.chains.values().find(|chain| chain.interfaces.iter().any(|i| i == iface)).ok_or_else(
            || Error::NoChainForInterface {
                file: file.to_owned(),
                iface: iface.to_owned(),
                interfaces: listed(config.chains.values().flat_map(|chain| &chain.interfaces)),
            },
        )?,
    };
    supported(chain)?;
    Ok(chain)
}

/// Not every build has every engine.
pub(crate) fn supported(chain: &ChainSpec) -> Result<()> {
    match chain.engine {
        Engine::Libxdp if !xdpchain_host::libxdp::BUILT => {
            Err(Error::NoEngine { chain: chain.name.clone(), engine: chain.engine.name() })
        }
        _ => Ok(()),
    }
}

/// The octets of an object.
pub(crate) fn object_bytes(object: &ObjectRef) -> Result<Vec<u8>> {
    match object {
        ObjectRef::Builtin(name) => match builtin::find(name) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => {
                let names = builtin::names();
                let hint = match near(name, &names) {
                    Some(near) => format!("did you mean `builtin:{near}`?"),
                    None => format!("there are: {}", listed(&names)),
                };
                Err(Error::NoBuiltin { name: name.clone(), hint })
            }
        },
        ObjectRef::File(path) => {
            std::fs::read(path).map_err(|source| Error::ReadObject { path: path.clone(), source })
        }
    }
}

/// A chain outlives the folder that it was made from, and one file has one name wherever it is seen from.
pub(crate) fn absolute(object: &ObjectRef) -> Result<ObjectRef> {
    Ok(match object {
        ObjectRef::Builtin(_) => object.clone(),
        ObjectRef::File(path) => {
            let failed = |source| Error::ReadObject { path: path.clone(), source };
            ObjectRef::File(absolute_path(path).map_err(failed)?)
        }
    })
}

/// The path from the root, and without `..` when its folder is there.
pub(crate) fn absolute_path(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let up = absolute.components().any(|part| part == std::path::Component::ParentDir);
    Ok(match (absolute.parent(), absolute.file_name()) {
        (Some(folder), Some(name)) if up => match folder.canonicalize() {
            Ok(folder) => folder.join(name),
            Err(_) => absolute,
        },
        _ => absolute,
    })
}

/// A module's name from its object's: the file's name without its extension, in letters that a name may have.
pub(crate) fn module_name(object: &ObjectRef) -> Option<String> {
    let stem = match object {
        ObjectRef::Builtin(name) => name.clone(),
        ObjectRef::File(path) => path.file_stem()?.to_string_lossy().into_owned(),
    };
    let mut name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .collect();
    name.truncate(63);
    xdpchain_spec::is_name(&name).then_some(name)
}

pub(crate) fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_after_its_object() {
        let name = |text: &str| module_name(&text.parse().unwrap());
        assert_eq!(name("builtin:acl").as_deref(), Some("acl"));
        assert_eq!(name("/opt/vendor/rate limit.v2.bpf.o").as_deref(), Some("rate-limit-v2-bpf"));
        assert_eq!(name("./_x.o").as_deref(), Some("x"));
        assert_eq!(name("/.o").as_deref(), Some("o"));
        assert_eq!(name("/"), None);
    }
}
