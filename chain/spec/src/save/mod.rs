//! Edits written back into the text of a chains.yaml, its comments and its layout kept.
//!
//! Only the lines that an edit is about are touched. The result is read again, and unless it means exactly what was to
//! be, the edit is refused: a text is never changed into one that means something else.

mod layout;

use std::path::{Path, PathBuf};

use crate::model::{Config, ModuleSpec, ObjectRef};
use crate::{EditError, Place, Position, SlotSpec, SpecError, Verdict, tree};
use layout::Layout;

/// An edit of a chain in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEdit<'a> {
    /// A slot comes. The module is declared when it is not, and gets the object and the program when it has others.
    Add {
        /// The slot.
        slot: &'a SlotSpec,
        /// Where it comes.
        position: &'a Position,
        /// The object of its module.
        object: &'a ObjectRef,
        /// The XDP program of the object; none leaves it to the object.
        program: Option<&'a str>,
    },
    /// A slot goes. Its module stays declared.
    Remove {
        /// The slot's name.
        slot: &'a str,
    },
    /// The module of a slot gets another object.
    Replace {
        /// The slot's name.
        slot: &'a str,
        /// The object.
        object: &'a ObjectRef,
        /// The XDP program of the object; none leaves it to the object.
        program: Option<&'a str>,
    },
    /// A slot gets another place.
    Move {
        /// The slot's name.
        slot: &'a str,
        /// Where it comes.
        position: &'a Position,
    },
}

/// Why an edit is not written back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file is not valid as it is.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no such chain in the file.
    #[error(
        "`{file}` has no chain `{chain}`, so the change cannot be saved there\nhelp: name the file that the chain is from with `-f`, or leave `--save` out"
    )]
    NoChain {
        /// The file.
        file: PathBuf,
        /// The chain.
        chain: String,
    },
    /// The chain of the file cannot be edited so.
    #[error("`{file}`: {error}")]
    Edit {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: EditError,
    },
    /// The file is written in a way that this cannot edit.
    #[error(
        "`{file}` cannot be edited in place: {what}\nhelp: change it by hand, then `xdpchain plan` says whether it is what runs; or leave `--save` out"
    )]
    Layout {
        /// The file.
        file: PathBuf,
        /// What stands in the way.
        what: String,
    },
}

/// `text`, which is what `file` holds, with the edit made to one of its chains.
///
/// # Errors
/// When the text is not valid, when the edit cannot be made to its chain, and when it cannot be made without touching
/// more than it is about.
pub fn save(text: &str, file: &Path, chain: &str, edit: &FileEdit<'_>) -> Result<String, SaveError> {
    let before = Config::parse(text, file)?;
    let wanted = wanted(before.clone(), file, chain, edit)?;
    if wanted == before {
        return Ok(text.to_owned());
    }
    let mark = if text.starts_with('\u{feff}') { "\u{feff}" } else { "" };
    let refused = |what: String| SaveError::Layout { file: file.to_owned(), what };
    let edited = edited(&text[mark.len()..], file, chain, edit, &before, &wanted).map_err(refused)?;
    let edited = format!("{mark}{edited}");
    match Config::parse(&edited, file) {
        Ok(config) if config == wanted && same_order(&config, &wanted, chain) => Ok(edited),
        Ok(_) => Err(refused("the lines around it would come to mean something else".to_owned())),
        Err(error) => {
            Err(refused(format!("line {} would not be valid any more: {}", error.line(), error.problem())))
        }
    }
}

/// Maps compare without order, and the slots of the edited chain are all that has one.
fn same_order(config: &Config, wanted: &Config, chain: &str) -> bool {
    let slots = |config: &Config| config.chains.get(chain).map(|chain| chain.slots.clone());
    slots(config) == slots(wanted)
}

/// What the file is to mean.
fn wanted(mut config: Config, file: &Path, name: &str, edit: &FileEdit<'_>) -> Result<Config, SaveError> {
    let Some(chain) = config.chains.get_mut(name) else {
        return Err(SaveError::NoChain { file: file.to_owned(), chain: name.to_owned() });
    };
    let failed = |error| SaveError::Edit { file: file.to_owned(), error };
    match edit {
        FileEdit::Add { slot, position, object, program } => {
            chain.insert(SlotSpec::clone(slot), position).map_err(failed)?;
            let object = as_parsed(object, file);
            let module = config.modules.entry(slot.module.clone());
            let module = module.or_insert_with(|| ModuleSpec::new(object.clone()));
            module.object = object;
            module.program = program.map(str::to_owned);
        }
        FileEdit::Remove { slot } => drop(chain.remove(slot).map_err(failed)?),
        FileEdit::Replace { slot, object, program } => {
            let module = chain.module_of(slot).map_err(failed)?.to_owned();
            if let Some(module) = config.modules.get_mut(&module) {
                module.object = as_parsed(object, file);
                module.program = program.map(str::to_owned);
            }
        }
        FileEdit::Move { slot, position } => drop(chain.reposition(slot, position).map_err(failed)?),
    }
    Ok(config)
}

/// An object as the file is to name it: relative to its folder when it is below that.
fn as_written(object: &ObjectRef, file: &Path) -> ObjectRef {
    let ObjectRef::File(path) = object else { return object.clone() };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let below = folder.and_then(|folder| path.strip_prefix(std::path::absolute(folder).ok()?).ok());
    let here = || path.strip_prefix(std::env::current_dir().ok()?).ok();
    match below.or_else(|| if folder.is_none() { here() } else { None }) {
        Some(below) => ObjectRef::File(Path::new(".").join(below)),
        None => object.clone(),
    }
}

/// The same as [`Config::parse`] makes of it.
fn as_parsed(object: &ObjectRef, file: &Path) -> ObjectRef {
    match as_written(object, file) {
        ObjectRef::File(path) => {
            ObjectRef::File(crate::parse::relative_to(file.parent().unwrap_or(Path::new("")), path))
        }
        builtin => builtin,
    }
}

type Edited<T = String> = Result<T, String>;

fn edited(
    text: &str,
    file: &Path,
    chain: &str,
    edit: &FileEdit<'_>,
    before: &Config,
    wanted: &Config,
) -> Edited {
    let slots = ["chains", chain, "slots"];
    let place = |config: &Config, slot: &str| {
        let slots = config.chains.get(chain).map(|chain| chain.slots.as_slice()).unwrap_or_default();
        slots.iter().position(|other| other.name == slot).ok_or_else(|| format!("slot `{slot}` is gone"))
    };
    match edit {
        FileEdit::Add { slot, object, program, .. } => {
            let at = place(wanted, &slot.name)?;
            let text = Layout::read(text)?.with_item(&slots, at, &item(slot))?;
            match before.modules.get(&slot.module) {
                Some(module) => with_object(&text, file, &slot.module, module, object, *program),
                None => {
                    let object = as_written(object, file).to_string();
                    let program =
                        program.map_or(String::new(), |program| format!(", program: {}", scalar(program)));
                    let entry =
                        format!("{}: {{ object: {}{program} }}", scalar(&slot.module), quoted(&object));
                    Layout::read(&text)?.with_entry(&["modules"], None, &entry)
                }
            }
        }
        FileEdit::Remove { slot } => {
            Ok(Layout::read(text)?.without_item(&slots, place(before, slot)?, false)?.0)
        }
        FileEdit::Replace { slot, object, program } => {
            let at = place(before, slot)?;
            let module = before.chains.get(chain).map(|chain| chain.slots[at].module.as_str());
            let module = module.ok_or("the chain is gone")?;
            let spec = before.modules.get(module).ok_or("the module is gone")?;
            with_object(text, file, module, spec, object, *program)
        }
        FileEdit::Move { slot, .. } => {
            let (text, item) = Layout::read(text)?.without_item(&slots, place(before, slot)?, true)?;
            Layout::read(&text)?.with_item(&slots, place(wanted, slot)?, &item)
        }
    }
}

/// `text` with another object and program for a module that it declares as `before`.
fn with_object(
    text: &str,
    file: &Path,
    module: &str,
    before: &ModuleSpec,
    object: &ObjectRef,
    program: Option<&str>,
) -> Edited {
    let mut text = text.to_owned();
    let at = ["modules", module];
    let layout = Layout::read(&text)?;
    let name = as_written(object, file).to_string();
    let short = matches!(layout.node(&at)?.kind, tree::Kind::Scalar(_));
    if short && program.is_some() {
        let program = program.map_or(String::new(), |program| format!(", program: {}", scalar(program)));
        let value = format!("{{ object: {}{program} }}", quoted(&name));
        return layout.with_value(&at, &value);
    }
    let object_at: &[&str] = if short { &at } else { &["modules", module, "object"] };
    if before.object != as_parsed(object, file) {
        text = layout.with_scalar(object_at, &name)?;
    }
    let layout = Layout::read(&text)?;
    match (before.program.as_deref(), program) {
        (before, after) if before == after => Ok(text),
        (Some(_), Some(program)) => layout.with_scalar(&["modules", module, "program"], program),
        (Some(_), None) => layout.without_entry(&at, "program"),
        (None, program) => {
            let entry = format!("program: {}", scalar(program.unwrap_or_default()));
            layout.with_entry(&at, Some("object"), &entry)
        }
    }
}

/// A slot as an item of a list.
fn item(slot: &SlotSpec) -> String {
    let mut options = Vec::new();
    if let Some(set) = slot.proceed_on {
        options.push(format!("proceed_on: {set}"));
    }
    if !slot.observer && slot.on_unknown != Verdict::Aborted {
        options.push(format!("on_unknown: {}", slot.on_unknown));
    }
    match slot.at {
        Place::Exit => options.push("at: exit".to_owned()),
        Place::Order if slot.observer => options.push("observer: true".to_owned()),
        Place::Order => {}
    }
    let module = scalar(&slot.module);
    if options.is_empty() { module } else { format!("{module}: {{ {} }}", options.join(", ")) }
}

/// Text without quotes where YAML takes it for text.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:".contains(c))
        && !text.ends_with(':')
        && !text.starts_with(|c: char| c == '.' && text.parse::<f64>().is_ok())
        && !words.contains(&text.to_ascii_lowercase().as_str())
}

/// Text in quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
