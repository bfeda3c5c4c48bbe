//! Edits of a running chain written back into chains.yaml.
//!
//! What cannot be saved is told before anything is changed; the file is written after the change, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use xdpchain_host::Host;
use xdpchain_spec::Config;
use xdpchain_spec::save::{FileEdit, save};

use crate::args::{Common, Editing};
use crate::config;
use crate::error::{Error, Result};

/// An edit that is to be saved, when it is.
pub(crate) struct Saving(Option<Open>);

struct Open {
    file: PathBuf,
    before: String,
    after: String,
    config: Config,
    /// The chain that runs on the interface.
    chain: String,
    iface: String,
    dry_run: bool,
}

impl Saving {
    /// Reads the file, when something is to be saved.
    pub(crate) fn open(common: &Common, iface: &str, how: Editing) -> Result<Self> {
        if !how.save {
            return Ok(Self(None));
        }
        let (before, file) = config::read_text(common.file.as_deref())?;
        let config = Config::parse(&before, &file)?;
        let chain = Host::open()?.manifest(iface)?.state.chain.name;
        let (after, iface, dry_run) = (before.clone(), iface.to_owned(), how.dry_run.set);
        Ok(Self(Some(Open { file, before, after, config, chain, iface, dry_run })))
    }

    /// The XDP program that the file names for the module in a slot.
    pub(crate) fn program_of(&self, slot: &str) -> Option<String> {
        let open = self.0.as_ref()?;
        let module = &open.config.chains.get(&open.chain)?.slot(slot)?.module;
        open.config.modules.get(module)?.program.clone()
    }

    /// Makes the edit in the file's text.
    pub(crate) fn prepare(self, edit: &FileEdit<'_>) -> Result<Self> {
        let Some(mut open) = self.0 else { return Ok(Self(None)) };
        open.after = save(&open.before, &open.file, &open.chain, edit)
            .map_err(|error| Error::Save(Box::new(error)))?;
        Ok(Self(Some(open)))
    }

    /// Writes the file, unless it is only tried.
    pub(crate) fn finish(self) -> Result<()> {
        let Some(open) = self.0 else { return Ok(()) };
        let file = open.file.display();
        if open.before == open.after {
            eprintln!("{file} says so already");
        } else if open.dry_run {
            eprintln!("dry run: would save it to {file}");
        } else {
            let failed = |source| Error::WriteConfig { file: open.file.clone(), source };
            if !replace(&open.file, &open.before, &open.after).map_err(failed)? {
                return Err(Error::ConfigChanged { file: open.file });
            }
            eprintln!("saved it to {file}");
        }
        let interfaces = open.config.chains.get(&open.chain).map(|chain| &chain.interfaces);
        let others: Vec<_> = interfaces.into_iter().flatten().filter(|name| **name != open.iface).collect();
        if !others.is_empty() {
            eprintln!(
                "note: chain `{}` is for {} as well; `xdpchain plan` shows what they lack",
                open.chain,
                config::listed(others)
            );
        }
        Ok(())
    }
}

/// Puts `after` in place of `before`, in one step, with the same owner and mode. Not done, and false, when the file holds
/// something else by now.
fn replace(file: &Path, before: &str, after: &str) -> io::Result<bool> {
    // A symbolic link stays one.
    let file = file.canonicalize()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = write(&new, &file, after).and_then(|()| {
        if fs::read(&file)? != before.as_bytes() {
            return Ok(false);
        }
        fs::rename(&new, &file)?;
        File::open(folder)?.sync_all()?;
        Ok(true)
    });
    if !matches!(written, Ok(true)) {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(new: &Path, like: &Path, text: &str) -> io::Result<()> {
    let like = fs::metadata(like)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(text.as_bytes())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_stays_its_owners() {
        let folder = std::env::temp_dir().join(format!("xdpchain-save-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, link) = (folder.join("real.yaml"), folder.join("chains.yaml"));
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        assert!(replace(&link, "before", "after").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(!replace(&link, "before", "lost").unwrap(), "somebody wrote it meanwhile");
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert!(replace(&folder.join("none.yaml"), "", "x").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing else is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
