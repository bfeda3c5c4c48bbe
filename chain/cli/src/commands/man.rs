//! `xdpchain man`: manual pages, from the command line's own description.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::error::{Error, Result, exit};
use crate::output::write;

pub(crate) fn run(dir: Option<&Path>) -> Result<u8> {
    let mut command = Cli::command();
    command.build();
    match dir {
        None => write(&page(&command).map_err(Error::Output)?)?,
        Some(dir) => {
            let failed = |source| Error::WriteMan { path: dir.to_owned(), source };
            fs::create_dir_all(dir).map_err(failed)?;
            for (name, page) in pages(&command, "xdpchain").map_err(Error::Output)? {
                let path = dir.join(name);
                fs::write(&path, page).map_err(|source| Error::WriteMan { path, source })?;
            }
        }
    }
    Ok(exit::DONE)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// The pages of a command called `name` and of all below it, by the names of their files.
fn pages(command: &Command, name: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = vec![(format!("{name}.1"), page(command)?)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        all.extend(pages(below, &format!("{name}-{}", below.get_name()))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut command = Cli::command();
        command.build();
        let pages = pages(&command, "xdpchain").unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["xdpchain.1", "xdpchain-plan.1", "xdpchain-map.1", "xdpchain-map-import.1"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        for (name, page) in pages {
            let page = String::from_utf8(page).unwrap().replace('\\', "");
            let title = name.trim_end_matches(".1");
            assert!(page.contains(&format!(".SH NAME\n{title}")) && page.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
