//! chains.yaml: an error has a place in the text, and what is saved means what was asked for. The first octet chooses an
//! edit, the rest is the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use xdpchain_spec::save::{FileEdit, save};
use xdpchain_spec::{Config, Position};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let file = Path::new("/etc/xdpchain/chains.yaml");
    let config = match Config::parse(text, file) {
        Ok(config) => config,
        Err(error) => {
            // To YAML a carriage return alone ends a line as well.
            let lines = text.replace("\r\n", "\n").replace('\r', "\n").lines().count().max(1);
            assert!((1..=lines + 1).contains(&error.line()) && error.column() >= 1, "{error}");
            assert!(
                error.to_string().lines().last().is_some_and(|line| line.starts_with("help: ")),
                "{error}"
            );
            return;
        }
    };
    for (name, chain) in &config.chains {
        let slot = &chain.slots[usize::from(*choice) % chain.slots.len()].name;
        let position = if choice & 0x80 == 0 { Position::First } else { Position::Last };
        let edit = match choice & 0x40 {
            0 => FileEdit::Move { slot, position: &position },
            _ => FileEdit::Remove { slot },
        };
        if let Ok(saved) = save(text, file, name, &edit) {
            let saved = Config::parse(&saved, file).expect("what is saved is valid");
            let mut wanted = chain.clone();
            match &edit {
                FileEdit::Move { slot, position } => drop(wanted.reposition(slot, position)),
                _ => drop(wanted.remove(slot)),
            }
            assert_eq!(saved.chains[name], wanted);
        }
    }
});
