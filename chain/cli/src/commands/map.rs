//! `map`: the modules' maps, read and written while they are in use, typed by their BTF.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use xdpchain_compose::MapOwner;
use xdpchain_compose::btf::Btf;
use xdpchain_host::{self as host, Entries, Host, Map};
use xdpchain_state::{Format, ImportOptions, Importer, MapCodec};

use super::compiled;
use super::status::map_name;
use crate::args::{MapCommand, MapName, RowFormat};
use crate::error::{Error, Result, exit};
use crate::output::{Output, grouped, octets};

/// What stands for the chain itself in the place of a module's name.
const CHAIN: &str = "chain";

/// Rows that are read at a time.
const ROWS: usize = 1 << 16;

/// An open map, with what its octets mean.
pub(super) struct Open {
    pub(super) name: String,
    pub(super) map: Map,
    pub(super) codec: MapCodec,
}

pub(crate) fn run(out: Output, command: &MapCommand) -> Result<u8> {
    let host = Host::open()?;
    match command {
        MapCommand::List { iface } => list(&host, out, iface.as_deref())?,
        MapCommand::Show { map, limit } => show(&host, out, map, *limit)?,
        MapCommand::Get { map, key } => get(out, &open(&host, map)?, key)?,
        MapCommand::Set { map, key, value } => {
            let (map, compiled) = open_to_change(&host, map)?;
            let (key, value) = (map.key(key)?, map.value(value)?);
            if let Some(compiled) = compiled {
                let entries = Entries { keys: key, values: value };
                compiled::change(&host, &map, &compiled, &entries, &[])?;
                return Ok(exit::DONE);
            }
            map.map.update(&key, &value).map_err(|error| map.failed(error))?;
        }
        MapCommand::Del { map, key } => {
            let (map, compiled) = open_to_change(&host, map)?;
            let octets = map.key(key)?;
            if let Some(compiled) = compiled {
                map.map.lookup(&octets)?.ok_or_else(|| map.no_entry(key))?;
                compiled::change(&host, &map, &compiled, &Entries::default(), &[octets])?;
            } else if !map.map.delete(&octets)? {
                return Err(map.no_entry(key));
            }
        }
        MapCommand::Import { map, file, format, defaults, dry_run } => {
            let format = row_format(file, *format)?;
            let options = ImportOptions { defaults: *defaults };
            let (map, compiled) = open_to_change(&host, map)?;
            import(out, &map, file, format, options, dry_run.set, |entries| match &compiled {
                Some(compiled) => compiled::change(&host, &map, compiled, entries, &[]),
                None => map.map.update_all(entries).map_err(|error| map.failed(error)),
            })?;
        }
        MapCommand::Export { map, file, format } => {
            let format = match (file, format) {
                (Some(file), None) => row_format(file, None)?,
                (_, format) => format.unwrap_or(RowFormat::Jsonl),
            };
            export(&open(&host, map)?, file.as_deref(), format)?;
        }
    }
    Ok(exit::DONE)
}

fn open(host: &Host, name: &MapName) -> Result<Open> {
    let MapName { map: named, iface } = name;
    let map = match iface {
        Some(iface) if named.module == CHAIN => host.chain_map(iface, &named.map),
        Some(iface) => {
            let used = host.manifest(iface)?.maps.into_iter();
            let mut used = used.filter(|map| map.module.as_ref() == Some(&named.module));
            match used.any(|map| map.name == named.map) {
                true => host.module_map(&named.module, &named.map),
                false => Err(xdpchain_host::Error::NoMap {
                    owner: MapOwner::Module(named.module.clone()),
                    name: named.map.clone(),
                }),
            }
        }
        None => match host.module_map(&named.module, &named.map) {
            Err(xdpchain_host::Error::NoMap { .. }) if named.module == CHAIN => {
                return Err(Error::WhichChain { map: named.to_string() });
            }
            other => other,
        },
    }?;
    Open::new(named.to_string(), map)
}

/// Opens a map with what it is compiled to, if it is.
fn open_to_change(host: &Host, name: &MapName) -> Result<(Open, Option<Map>)> {
    let map = open(host, name)?;
    let compiled = compiled::of(host, &name.map, &map)?;
    Ok((map, compiled))
}

impl Open {
    pub(super) fn new(name: String, map: Map) -> Result<Self> {
        let info = map.info();
        let failed = |problem: String| Error::MapTypes { map: name.clone(), problem };
        let btf = match map.btf()? {
            Some(bytes) => Some(Btf::parse(&bytes).map_err(|error| failed(error.to_string()))?),
            None => None,
        };
        let half = |id: u32, size: u32| ((id != 0).then_some(id), size);
        let codec = MapCodec::new(
            btf.as_ref(),
            info.map_type,
            half(info.btf_key, info.key_size),
            half(info.btf_value, info.value_size),
        )
        .map_err(|error| failed(error.to_string()))?;
        Ok(Self { name, map, codec })
    }

    fn key(&self, text: &str) -> Result<Vec<u8>> {
        self.codec.key.parse(text).map_err(|source| Error::Value {
            map: self.name.clone(),
            what: "key",
            source: source.into(),
        })
    }

    /// A value as system calls take it; in a per-CPU map that is one value, or a JSON list with each CPU's.
    fn value(&self, text: &str) -> Result<Vec<u8>> {
        let failed = |source: xdpchain_state::StateError| Error::Value {
            map: self.name.clone(),
            what: "value",
            source: source.into(),
        };
        if let Some(cpus) = self.map.per_cpu()
            && let Ok(json @ serde_json::Value::Array(_)) = serde_json::from_str(text)
        {
            return self.codec.encode_value(&json, cpus).map_err(failed);
        }
        self.codec.value.parse(text).map(|value| self.for_kernel(&value)).map_err(failed)
    }

    /// A value as system calls take it. In a per-CPU map the first CPU gets it and the others zeros, so that the sum
    /// is what was written.
    fn for_kernel(&self, value: &[u8]) -> Vec<u8> {
        match self.map.per_cpu() {
            None => value.to_vec(),
            Some(_) => {
                let mut octets = value.to_vec();
                octets.resize(self.map.value_len(), 0);
                octets
            }
        }
    }

    /// One value out of what system calls give: the sum over the CPUs in a per-CPU map; none when there is no sum.
    fn one_value(&self, octets: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.codec.per_cpu {
            return Ok(Some(octets.to_vec()));
        }
        let cpus = self.codec.cpus(octets).map_err(|source| self.undecodable(source))?;
        Ok(self.codec.value.sum(cpus))
    }

    fn undecodable(&self, source: xdpchain_state::StateError) -> Error {
        Error::Value { map: self.name.clone(), what: "entry", source: source.into() }
    }

    fn no_entry(&self, key: &str) -> Error {
        Error::NoEntry { map: self.name.clone(), key: key.to_owned() }
    }

    /// A failed write, which for a full map is not the kernel's fault.
    pub(super) fn failed(&self, error: xdpchain_host::Error) -> Error {
        const E2BIG: i32 = 7;
        match &error {
            xdpchain_host::Error::Map { source, .. } if source.raw_os_error() == Some(E2BIG) => {
                Error::MapFull { map: self.name.clone(), max_entries: self.map.info().max_entries }
            }
            _ => error.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    map: String,
    #[serde(rename = "type")]
    map_type: String,
    key: String,
    key_size: u32,
    value: String,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    memory: u64,
    id: u32,
    interfaces: Vec<String>,
    /// The generations that run and use it; it lives as long as there is one.
    used_by: Vec<User>,
    /// Earlier generations that had such a map.
    kept_by: Vec<Kept>,
}

#[derive(Serialize)]
struct User {
    interface: String,
    generation: u64,
    /// The modules in its slots that have the map, as their own or imported.
    modules: Vec<String>,
}

#[derive(Serialize)]
struct Kept {
    interface: String,
    generations: Vec<u64>,
}

impl Listed {
    fn new(open: &Open, name: Option<host::MapName>) -> Result<Self> {
        let (interfaces, users, kept) =
            name.map(|name| (name.interfaces, name.users, name.kept)).unwrap_or_default();
        let user = |user: host::MapUser| User {
            interface: user.interface,
            generation: user.generation,
            modules: user.modules,
        };
        let info = open.map.info();
        Ok(Self {
            map: open.name.clone(),
            map_type: xdpchain_host::load::map_type_name(info.map_type),
            key: open.codec.key.name().to_owned(),
            key_size: info.key_size,
            value: open.codec.value.name().to_owned(),
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags: info.flags,
            memory: open.map.memory()?,
            id: info.id,
            interfaces,
            used_by: users.into_iter().map(user).collect(),
            kept_by: kept
                .into_iter()
                .map(|(interface, generations)| Kept { interface, generations })
                .collect(),
        })
    }
}

fn list(host: &Host, out: Output, iface: Option<&str>) -> Result<()> {
    #[derive(Serialize)]
    struct Maps {
        maps: Vec<Listed>,
    }
    if let Some(iface) = iface {
        host.manifest(iface)?;
    }
    let mut maps = Vec::new();
    for name in host.maps()? {
        if iface.is_some_and(|iface| name.interfaces.iter().all(|i| i != iface)) {
            continue;
        }
        let map = match &name.owner {
            MapOwner::Module(module) => host.module_map(module, &name.name)?,
            MapOwner::Chain => {
                let Some(iface) = name.interfaces.first() else { continue };
                host.chain_map(iface, &name.name)?
            }
        };
        maps.push(Listed::new(&Open::new(map_name(&name.owner, &name.name), map)?, Some(name))?);
    }
    let maps = Maps { maps };
    out.print("MapList", &maps, |page| {
        let mut headings = vec!["MAP", "TYPE", "KEY", "VALUE", ">ENTRIES MAX", ">MEMORY", "INTERFACES"];
        if out.wide() {
            headings.extend([">ID", ">KEY OCTETS", ">VALUE OCTETS", "FLAGS", "USED BY", "ALSO IN"]);
        }
        page.table(
            &headings,
            maps.maps.iter().map(|map| {
                let mut row = vec![
                    map.map.clone(),
                    map.map_type.clone(),
                    map.key.clone(),
                    map.value.clone(),
                    grouped(map.max_entries.into()),
                    octets(map.memory),
                    map.interfaces.join(", "),
                ];
                if out.wide() {
                    row.extend([map.id.to_string(), map.key_size.to_string()]);
                    row.extend([map.value_size.to_string(), format!("{:#x}", map.flags)]);
                    row.extend([used_by(map), also_in(map)]);
                }
                row
            }),
        );
    })
}

/// Which generations use a map, and which of their modules.
fn used_by(map: &Listed) -> String {
    let user = |user: &User| {
        let modules =
            if user.modules.is_empty() { String::new() } else { format!(": {}", user.modules.join(", ")) };
        format!("{}#{}{modules}", user.interface, user.generation)
    };
    map.used_by.iter().map(user).collect::<Vec<_>>().join("; ")
}

/// Which earlier generations had a map.
fn also_in(map: &Listed) -> String {
    let kept = |kept: &Kept| {
        let numbers: Vec<String> = kept.generations.iter().map(|number| format!("#{number}")).collect();
        format!("{}{}", kept.interface, numbers.concat())
    };
    map.kept_by.iter().map(kept).collect::<Vec<_>>().join("; ")
}

fn show(host: &Host, out: Output, name: &MapName, limit: usize) -> Result<()> {
    #[derive(Serialize)]
    struct Shown {
        #[serde(flatten)]
        map: Listed,
        /// The first entries.
        entries: Vec<serde_json::Value>,
        /// Whether there are more.
        more: bool,
    }
    let (open, compiled) = open_to_change(host, name)?;
    if let Some(compiled) = &compiled
        && compiled::is_stale(&open, compiled)?
    {
        tracing::warn!(
            "`{0}` was changed by somebody else, and packets are judged by what it held before; any change by \
             `xdpchain map` puts it in force, e.g. `xdpchain map export {0} rules.jsonl`, then `map import`",
            open.name
        );
    }
    let used = host.maps()?.into_iter().find(|map| match &map.owner {
        MapOwner::Chain => name.map.module == CHAIN && map.interfaces.first() == name.iface.as_ref(),
        MapOwner::Module(module) => *module == name.map.module && map.name == name.map.map,
    });
    let mut entries = Vec::new();
    let walked = match limit {
        0 => Ok(false),
        _ => each_entry(&open, |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            Ok(entries.len() < limit)
        }),
    };
    // Ring buffers and the like have no entries to walk through; what else there is to show is shown.
    let more = walked.unwrap_or_else(|error| {
        tracing::warn!("the entries of `{}` cannot be read: {error}", open.name);
        false
    });
    let decoded = entries.iter().map(|(key, value)| open.codec.entry(key, value));
    let shown = Shown {
        map: Listed::new(&open, used)?,
        entries: decoded.collect::<Result<_, _>>().map_err(|source| open.undecodable(source))?,
        more,
    };
    let rows = entries.iter().map(|(key, value)| printed(&open, key, value)).collect::<Result<Vec<_>>>()?;
    out.print("Map", &shown, |page| {
        let map = &shown.map;
        page.line(format!(
            "{}: {}, {} entries at most, {}",
            map.map,
            map.map_type,
            grouped(map.max_entries.into()),
            octets(map.memory)
        ));
        page.line(format!("  key    {} ({} B)", map.key, map.key_size));
        page.line(format!("  value  {} ({} B)", map.value, map.value_size));
        if !rows.is_empty() {
            page.line("");
            page.table(&["KEY", "VALUE"], rows);
        }
        if shown.more {
            page.line("… and more: `xdpchain map export` prints them all");
        }
    })
}

/// Key and value on one line each.
fn printed(open: &Open, key: &[u8], value: &[u8]) -> Result<Vec<String>> {
    let undecodable = |source| open.undecodable(source);
    let key = open.codec.key.print(key).map_err(undecodable)?;
    let value = match open.one_value(value)? {
        Some(one) => open.codec.value.print(&one).map_err(undecodable)?,
        None => open.codec.decode_cpus(value).map_err(undecodable)?.to_string(),
    };
    Ok(vec![key, value])
}

/// Calls `each` for every entry until it says no; whether it did.
pub(super) fn each_entry(open: &Open, mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>) -> Result<bool> {
    let (key_size, value_len) = (open.map.info().key_size as usize, open.map.value_len());
    let mut stop = false;
    for batch in open.map.entries() {
        let batch = batch?;
        for (key, value) in
            batch.keys.chunks_exact(key_size.max(1)).zip(batch.values.chunks_exact(value_len.max(1)))
        {
            if stop {
                return Ok(true);
            }
            stop = !each(key, value)?;
        }
    }
    Ok(false)
}

fn get(out: Output, open: &Open, text: &str) -> Result<()> {
    #[derive(Serialize)]
    struct Entry<'a> {
        map: &'a str,
        key: serde_json::Value,
        value: serde_json::Value,
        /// Each CPU's value, for per-CPU maps.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpus: Option<serde_json::Value>,
    }
    let undecodable = |source| open.undecodable(source);
    let key = open.key(text)?;
    let value = open.map.lookup(&key)?.ok_or_else(|| open.no_entry(text))?;
    let cpus = match open.codec.per_cpu {
        true => Some(open.codec.decode_cpus(&value).map_err(undecodable)?.into()),
        false => None,
    };
    let entry = Entry {
        map: &open.name,
        key: open.codec.key.decode(&key).map_err(undecodable)?.into(),
        value: open.codec.decode_value(&value).map_err(undecodable)?.into(),
        cpus,
    };
    let line = printed(open, &key, &value)?.swap_remove(1);
    out.print("MapEntry", &entry, |page| page.line(line))
}

fn row_format(file: &Path, format: Option<RowFormat>) -> Result<RowFormat> {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (format, extension) {
        (Some(format), _) => Ok(format),
        (None, "csv") => Ok(RowFormat::Csv),
        (None, "jsonl" | "ndjson") => Ok(RowFormat::Jsonl),
        (None, _) => Err(Error::RowFormat { file: file.to_owned() }),
    }
}

fn import(
    out: Output,
    open: &Open,
    file: &Path,
    format: RowFormat,
    options: ImportOptions,
    dry_run: bool,
    write: impl FnOnce(&Entries) -> Result<()>,
) -> Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Imported<'a> {
        map: &'a str,
        rows: usize,
        seconds: f64,
        dry_run: bool,
    }
    let start = Instant::now();
    let mut entries = read_rows(open, file, format, options)?;
    let rows = entries.keys.len() / open.codec.key.size().max(1);
    let read = start.elapsed();
    if !dry_run {
        if open.map.per_cpu().is_some() {
            let size = open.codec.value.size().max(1);
            entries.values =
                entries.values.chunks_exact(size).flat_map(|value| open.for_kernel(value)).collect();
        }
        write(&entries)?;
    }
    let took = start.elapsed();
    tracing::info!(read = ?read, written = ?(took - read), "rows");
    let imported = Imported { map: &open.name, rows, seconds: took.as_secs_f64(), dry_run };
    eprintln!(
        "{} {} rows into {} in {:.2} s",
        if dry_run { "dry run: would import" } else { "imported" },
        grouped(rows as u64),
        open.name,
        imported.seconds,
    );
    out.print("Imported", &imported, |_| ())
}

/// Reads every row, so that nothing is written when one is wrong.
fn read_rows(open: &Open, file: &Path, format: RowFormat, options: ImportOptions) -> Result<Entries> {
    let unreadable = |source| Error::ReadRows { file: file.to_owned(), source };
    let wrong = |source| Error::Rows { file: file.to_owned(), source: Box::new(source) };
    let input: Box<dyn BufRead> = match file.as_os_str() == "-" {
        true => Box::new(BufReader::with_capacity(1 << 20, io::stdin())),
        false => Box::new(BufReader::with_capacity(1 << 20, File::open(file).map_err(unreadable)?)),
    };
    let format = match format {
        RowFormat::Csv => Format::Csv,
        RowFormat::Jsonl => Format::JsonLines,
    };
    let mut importer = Importer::new(&open.codec, input, format, options).map_err(wrong)?;
    let mut entries = Entries::default();
    while importer.fill(&mut entries.keys, &mut entries.values, ROWS).map_err(wrong)? == ROWS {}
    Ok(entries)
}

fn export(open: &Open, file: Option<&Path>, format: RowFormat) -> Result<()> {
    match file {
        Some(file) => {
            let failed = |source| Error::WriteRows { file: file.to_owned(), source };
            let out = File::create(file).map_err(failed)?;
            write_rows(open, &mut BufWriter::with_capacity(1 << 20, out), format)?.map_err(failed)
        }
        None => {
            let out = io::stdout().lock();
            // Whoever looks at a terminal wants to see something at once.
            let capacity = if out.is_terminal() { 1 << 12 } else { 1 << 20 };
            match write_rows(open, &mut BufWriter::with_capacity(capacity, out), format)? {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
                _ => Ok(()),
            }
        }
    }
}

/// Writes every entry; the inner result is the writer's.
fn write_rows(open: &Open, out: &mut impl Write, format: RowFormat) -> Result<io::Result<()>> {
    let undecodable = |source| open.undecodable(source);
    let mut result = Ok(());
    match format {
        RowFormat::Jsonl => {
            each_entry(open, |key, value| {
                let entry = open.codec.entry(key, value).map_err(undecodable)?;
                result = serde_json::to_writer(&mut *out, &entry).map_err(io::Error::from);
                result = std::mem::replace(&mut result, Ok(())).and_then(|()| out.write_all(b"\n"));
                Ok(result.is_ok())
            })?;
        }
        RowFormat::Csv => {
            let table = open.codec.table().map_err(undecodable)?;
            let mut csv = csv::Writer::from_writer(&mut *out);
            result = csv.write_record(table.header()).map_err(io::Error::from);
            if result.is_ok() {
                each_entry(open, |key, value| {
                    let value =
                        open.one_value(value)?.ok_or_else(|| Error::NoSum { map: open.name.clone() })?;
                    let cells = table.cells(key, &value).map_err(undecodable)?;
                    result = csv.write_record(cells).map_err(io::Error::from);
                    Ok(result.is_ok())
                })?;
            }
            result = result.and_then(|()| csv.flush());
        }
    }
    Ok(result.and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_is_by_its_extension() {
        let format = |file: &str, given| row_format(Path::new(file), given).ok();
        assert_eq!(format("a.csv", None), Some(RowFormat::Csv));
        assert_eq!(format("/x/a.jsonl", None), Some(RowFormat::Jsonl));
        assert_eq!(format("a.csv", Some(RowFormat::Jsonl)), Some(RowFormat::Jsonl));
        assert_eq!(format("-", Some(RowFormat::Csv)), Some(RowFormat::Csv));
        assert_eq!(format("-", None), None);
    }
}
