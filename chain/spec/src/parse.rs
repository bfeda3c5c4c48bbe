//! From text to a [`Config`]: places first, then types, then meaning.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IntoDeserializer as _, MapAccess, Unexpected, Visitor};

use crate::error::{Problem, SpecError};
use crate::model::{ChainDefault, Engine, MapOverride, MapRef, MigrateSpec, Mode, ObjectRef, Place};
use crate::source::SourceSpec;
use crate::tree::{self, Kind, Node, Spot, Step};
use crate::{
    AgentSpec, Config, Database, GateSpec, ModuleSpec, VERSION, Verdict, VerdictSet, WatchSpec, check,
};

/// What runs on which interface, and in what order.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "chains.yaml")]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    /// Version of the format.
    #[serde(rename = "version")]
    #[schemars(range(min = 1, max = 1))]
    _version: u32,
    /// The modules, by name: letters, digits, `-` and `_`, with a letter or digit first.
    #[serde(default)]
    modules: IndexMap<String, RawModule>,
    /// The chains, by name.
    #[serde(default)]
    pub(crate) chains: IndexMap<String, RawChain>,
    /// The database tables that fill maps, by name.
    #[serde(default)]
    sources: IndexMap<String, SourceSpec>,
    /// The agent: where it answers, whom, and when a map counts as nearly full.
    #[serde(default)]
    agent: AgentSpec,
}

/// `module: OBJECT` or `module: { object: OBJECT, … }`.
pub(crate) struct RawModule(ModuleOptions);

/// A module: one ELF object with an XDP program and its maps.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Module")]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleOptions {
    /// Where the object is: `builtin:NAME`, which is part of the xdpchain binary, or the path of a file. Relative paths
    /// are relative to the file's folder.
    object: ObjectRef,
    /// Name of the XDP program in it; needed only when it has several.
    program: Option<String>,
    /// What is changed of the object's map definitions, by the map's name.
    #[serde(default)]
    maps: IndexMap<String, MapOverride>,
    /// Maps that are not the module's own, by the name that the object gives them.
    #[serde(default)]
    imports: IndexMap<String, MapRef>,
    /// What program arrays of the object hold, beside what the object says: by the array's name, by entry, the name of
    /// a program of the same object.
    #[serde(default)]
    programs: IndexMap<String, IndexMap<u32, String>>,
    /// The maps that other modules may import; when not given, every map but those that are the program's inside.
    exports: Option<Vec<String>>,
    /// How entries of a map are carried over when another build of the module lays them out differently, by the map's
    /// name.
    #[serde(default)]
    migrate: IndexMap<String, MigrateSpec>,
}

impl<'de> Deserialize<'de> for RawModule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Module;

        impl<'de> Visitor<'de> for Module {
            type Value = RawModule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object, alone or with options: `builtin:acl` or `{ object: ./acl.o }`")
            }

            fn visit_str<E: serde::de::Error>(self, object: &str) -> Result<RawModule, E> {
                Ok(RawModule(ModuleOptions {
                    object: ObjectRef::deserialize(object.into_deserializer())?,
                    program: None,
                    maps: IndexMap::new(),
                    imports: IndexMap::new(),
                    programs: IndexMap::new(),
                    exports: None,
                    migrate: IndexMap::new(),
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawModule, A::Error> {
                ModuleOptions::deserialize(MapAccessDeserializer::new(map)).map(RawModule)
            }
        }

        deserializer.deserialize_any(Module)
    }
}

/// Text that is there and says something: a key whose value was left out has none, and YAML reads that as empty text, as it
/// reads a number that stands where a name should.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text that is not empty")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                if text.is_empty() {
                    return Err(E::invalid_value(Unexpected::Str(text), &self));
                }
                Ok(Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// [`Text`], for a field.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Text::deserialize(deserializer)?.0)
}

/// A list of [`Text`], for a field.
pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Text>::deserialize(deserializer)?.into_iter().map(|text| text.0).collect())
}

/// A chain: an ordered list of slots, the same on each of its interfaces.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Chain")]
#[serde(deny_unknown_fields)]
pub(crate) struct RawChain {
    /// The interfaces that have this chain. No interface has two.
    #[serde(default, deserialize_with = "texts")]
    pub(crate) interfaces: Vec<String>,
    /// How it becomes what the kernel runs.
    #[serde(default)]
    pub(crate) engine: Engine,
    /// Where in the receive path it is attached.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// Its verdict when every slot in order proceeded.
    #[serde(default)]
    pub(crate) default: ChainDefault,
    /// The slots, in order: a module's name, alone or with options.
    pub(crate) slots: Vec<RawSlot>,
    /// The packets that a new generation must treat as told before it may run.
    pub(crate) gate: Option<GateSpec>,
    /// What the counters of a new generation must not show.
    pub(crate) watch: Option<WatchSpec>,
}

/// `- module` or `- module: { … }`.
pub(crate) struct RawSlot {
    pub(crate) module: String,
    pub(crate) options: SlotOptions,
    /// The module stands in front of a colon, and is a step of the path to its options.
    pub(crate) keyed: bool,
}

/// What is said of a slot beside its module.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotOptions {
    /// The verdicts after which the next slot runs. Default: what the object says in `.xdp_run_config`, else pass alone.
    pub(crate) proceed_on: Option<VerdictSet>,
    /// The chain's verdict when the module returns a number that is none. Default: aborted.
    pub(crate) on_unknown: Option<Verdict>,
    /// Ignore the module's verdict: the next slot always runs.
    pub(crate) observer: Option<bool>,
    /// When it runs. A slot at exit is always an observer.
    pub(crate) at: Option<Place>,
}

impl<'de> Deserialize<'de> for RawSlot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Slot;

        impl<'de> Visitor<'de> for Slot {
            type Value = RawSlot;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a module's name, alone or with options: `name` or `name: { at: exit }`")
            }

            fn visit_str<E>(self, module: &str) -> Result<RawSlot, E> {
                Ok(RawSlot { module: module.to_owned(), options: SlotOptions::default(), keyed: false })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawSlot, A::Error> {
                let Some(module) = map.next_key::<String>()? else {
                    return Err(A::Error::custom("a slot names a module\nhelp: write `- module`"));
                };
                let options = map.next_value::<Option<SlotOptions>>()?.unwrap_or_default();
                if let Some(second) = map.next_key::<String>()? {
                    return Err(A::Error::custom(format!(
                        "a slot names one module, here are `{module}` and `{second}`\nhelp: write each module as \
                         its own `- item`, and indent options further than the module: `- {module}: {{ … }}`"
                    )));
                }
                Ok(RawSlot { module, options, keyed: true })
            }
        }

        deserializer.deserialize_any(Slot)
    }
}

impl Config {
    /// Reads `text`, which is what `file` holds. `file` is named in errors, and its folder is what relative paths are
    /// relative to; it is not opened.
    pub fn parse(text: &str, file: &Path) -> Result<Self, SpecError> {
        let error = |(problem, spot)| SpecError::new(problem, spot, text, file);
        // A byte order mark is no part of the first key.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = tree::read(text).map_err(error)?.ok_or(error((Problem::Empty, Spot::START)))?;
        supported(&root).map_err(error)?;
        let raw = typed(text, &root).map_err(error)?;
        meaning(raw, &root, file.parent().unwrap_or(Path::new(""))).map_err(error)
    }
}

/// Another version may have other keys, so it is looked at before they are.
fn supported(root: &Node) -> Result<(), (Problem, Spot)> {
    if let Kind::Scalar(text) = &root.kind
        && (text.is_empty() || text == "~" || text == "null")
    {
        return Err((Problem::Empty, Spot::START));
    }
    let Some(node) = root.value("version") else { return Ok(()) };
    match &node.kind {
        Kind::Scalar(found) if found.parse::<f64>().is_ok() && *found != VERSION.to_string() => {
            Err((Problem::UnsupportedVersion { found: found.clone() }, node.spot))
        }
        _ => Ok(()),
    }
}

fn typed(text: &str, root: &Node) -> Result<RawConfig, (Problem, Spot)> {
    let error = match serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(raw) => return Ok(raw),
        Err(error) => error,
    };
    let steps = tree::steps(error.path());
    let message = bare_message(error.inner());
    let path = tree::path_name(&steps);
    let words = quoted(&message);
    let known = || words.iter().skip(1).map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let parent = || match &steps[..] {
        [parents @ .., Step::Key(_)] => tree::path_name(parents),
        _ => path.clone(),
    };
    Err(if message.starts_with("unknown field ") && !words.is_empty() {
        let key = words[0].to_owned();
        (Problem::UnknownKey { key, path: parent(), known: known() }, root.key_spot(&steps))
    } else if message.starts_with("unknown variant ") && !words.is_empty() {
        (Problem::UnknownWord { word: words[0].to_owned(), path, known: known() }, root.value_spot(&steps))
    } else if message.starts_with("missing field ") && !words.is_empty() {
        (Problem::MissingKey { key: words[0].to_owned(), path }, root.key_spot(&steps))
    } else if let Some((found, expected)) = mismatch(&message) {
        (Problem::WrongType { path, found, expected }, root.value_spot(&steps))
    } else {
        let (message, help) = match message.split_once("\nhelp: ") {
            Some((message, help)) => (message.to_owned(), help.to_owned()),
            None => (message, "see the example chains.yaml for what can stand here".to_owned()),
        };
        let place = match error.inner().location() {
            Some(location) if steps.is_empty() => {
                Spot { line: location.line().max(1), column: location.column().max(1), width: 0 }
            }
            _ => root.value_spot(&steps),
        };
        (Problem::BadValue { message, path, help }, place)
    })
}

/// What went wrong without where: the YAML reader puts its own path in front and its own place behind.
fn bare_message(error: &serde_yaml::Error) -> String {
    let mut text = error.to_string();
    if let Some(place) = error.location() {
        let suffix = format!(" at line {} column {}", place.line(), place.column());
        if let Some(bare) = text.strip_suffix(&suffix) {
            text.truncate(bare.len());
        }
    }
    for start in ["unknown field ", "unknown variant ", "missing field ", "invalid type: ", "invalid value: "]
    {
        if let Some(at) = text.find(start)
            && (at == 0 || text[..at].ends_with(": "))
        {
            return text.split_off(at);
        }
    }
    // Only a path has no blank before its colon.
    match text.split_once(": ") {
        Some((path, bare)) if !path.contains([' ', '`']) => bare.to_owned(),
        _ => text,
    }
}

/// The words of `message` between backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Found and expected, in the words that the file's author thinks in.
fn mismatch(message: &str) -> Option<(String, String)> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = found.replacen("unit value", "nothing", 1).replacen("map", "a mapping", 1);
    let found = found.replacen("sequence", "a list", 1);
    let expected = match expected {
        "a map" => "a mapping, `key: value`",
        "a sequence" => "a list, `[a, b]`",
        "a string" => "text",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number, 0 or more",
        "path string" => "the path of a file",
        "a YAML tag starting with '!'" => "one word",
        other if other.starts_with("struct ") => "a mapping, `key: value`",
        other if other.starts_with("enum ") => "one word",
        other => other,
    };
    Some((found, expected.to_owned()))
}

fn meaning(raw: RawConfig, root: &Node, folder: &Path) -> Result<Config, (Problem, Spot)> {
    let RawConfig { modules: raw_modules, chains: raw_chains, mut sources, mut agent, .. } = raw;
    let mut modules = IndexMap::new();
    for (name, RawModule(raw)) in raw_modules {
        let object = match raw.object {
            ObjectRef::File(path) => ObjectRef::File(relative_to(folder, path)),
            builtin => builtin,
        };
        let ModuleOptions { program, maps, imports, programs, exports, migrate, .. } = raw;
        modules.insert(name, ModuleSpec { object, program, maps, imports, programs, exports, migrate });
    }
    check::modules(&modules, root)?;
    check::sources(&sources, &modules, root)?;
    check::agent(&agent, &modules, root)?;
    let mut chains = check::chains(raw_chains, &modules, root)?;
    for gate in chains.values_mut().filter_map(|chain| chain.gate.as_mut()) {
        for path in gate.fixtures.iter_mut().chain(&mut gate.pcap) {
            *path = relative_to(folder, std::mem::take(path));
        }
    }
    for source in sources.values_mut() {
        if let Database::Sqlite(path) = &mut source.from {
            *path = relative_to(folder, std::mem::take(path));
        }
        for path in [&mut source.password_file, &mut source.ca_file].into_iter().flatten() {
            *path = relative_to(folder, std::mem::take(path));
        }
    }
    agent.socket = relative_to(folder, agent.socket);
    Ok(Config { modules, chains, sources, agent })
}

pub(crate) fn relative_to(folder: &Path, path: PathBuf) -> PathBuf {
    // `join` would turn `./a.o` into `folder/./a.o`.
    if path.is_absolute() || folder.as_os_str().is_empty() {
        path
    } else {
        folder.join(path.strip_prefix("./").unwrap_or(&path))
    }
}
