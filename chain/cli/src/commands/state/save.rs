//! `state save`: the entries of maps written to a file while packets flow.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use xdpchain_abi::CONTEXT_MAP;
use xdpchain_abi::acl_tables::COMPILED;
use xdpchain_compose::MapOwner;
use xdpchain_compose::btf::Btf;
use xdpchain_host::{Entries, Host, Map};
use xdpchain_spec::MapRef;
use xdpchain_state::{Contents, LeftOut, SavedMap, StateWriter, is_kept, not_saved};

use crate::commands::status::map_name;
use crate::error::{Error, Result, exit};
use crate::output::{Output, grouped, octets};

/// `BPF_F_WRONLY`: user space may not look.
const WRITE_ONLY: u32 = 1 << 4;
/// By this name a map is known that holds what a program knows of the packet at hand.
const SCRATCH: &str = "scratch";

/// What to save.
pub(super) struct What<'a> {
    /// The maps; all of them when none is named.
    pub(super) maps: &'a [MapRef],
    /// Whose chain uses them.
    pub(super) iface: Option<&'a str>,
    /// Whether to read them twice, to know what is of one instant.
    pub(super) twice: bool,
}

/// A map to save.
pub(super) struct Named {
    pub(super) module: String,
    pub(super) name: String,
    pub(super) map: Map,
}

/// What became of a map.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    map: String,
    entries: u64,
    /// Whether its entries are as they were at one instant, with those of every other map of which it is said.
    instant: bool,
    /// Whether the kernel gave its entries one by one, for want of batches.
    single: bool,
}

pub(super) fn run(host: &Host, out: Output, file: &Path, what: &What<'_>) -> Result<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        file: &'a Path,
        octets: u64,
        seconds: f64,
        maps: Vec<Saved>,
        left_out: Vec<LeftOut>,
    }
    let start = Instant::now();
    // A change of the chain meanwhile could give a map another one's place.
    let _alone = host.hold()?;
    let (maps, left_out) = find(host, what)?;
    let saved = write_file(file, &maps, &left_out, what.twice)?;
    let failed = |source| Error::WriteRows { file: file.to_owned(), source };
    let size = fs::metadata(file).map_err(failed)?.len();
    let document =
        Document { file, octets: size, seconds: start.elapsed().as_secs_f64(), maps: saved, left_out };
    let entries: u64 = document.maps.iter().map(|map| map.entries).sum();
    eprintln!(
        "saved {} entries of {} maps to `{}`, {}, in {:.2} s",
        grouped(entries),
        document.maps.len(),
        file.display(),
        octets(size),
        document.seconds,
    );
    let names = |of: fn(&Saved) -> bool| {
        let names: Vec<_> = document.maps.iter().filter(|map| of(map)).map(|map| &*map.map).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if what.twice
        && let Some(names) = names(|map| !map.instant)
    {
        eprintln!(
            "note: written while they were read, so that each entry is as the second reading found it: {names}"
        );
    }
    if let Some(names) = names(|map| map.single) {
        eprintln!(
            "note: this kernel has no batches for such maps, and gave their entries one by one: {names}"
        );
    }
    if !document.left_out.is_empty() && !out.wide() {
        eprintln!("note: {} maps are left out; `-o wide` says which, and why", document.left_out.len());
    }
    out.print("Saved", &document, |page| {
        if out.wide() {
            let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
            page.table(
                &["MAP", ">ENTRIES", "ONE INSTANT", "BATCHES"],
                document.maps.iter().map(|map| {
                    vec![map.map.clone(), grouped(map.entries), yes(map.instant), yes(!map.single)]
                }),
            );
            page.line("");
            page.table(
                &["LEFT OUT", "BECAUSE"],
                document.left_out.iter().map(|left| vec![left.map.clone(), left.reason.clone()]),
            );
        }
    })?;
    Ok(exit::DONE)
}

/// The maps that are to be saved, and those that cannot be.
pub(super) fn find(host: &Host, what: &What<'_>) -> Result<(Vec<Named>, Vec<LeftOut>)> {
    if let Some(iface) = what.iface {
        host.manifest(iface)?;
    }
    let all = host.maps()?;
    let names: BTreeSet<(MapOwner, String)> =
        all.iter().map(|map| (map.owner.clone(), map.name.clone())).collect();
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for used in all {
        if what.iface.is_some_and(|iface| used.interfaces.iter().all(|used| used != iface)) {
            continue;
        }
        let named = map_name(&used.owner, &used.name);
        if !what.maps.is_empty() && !what.maps.iter().any(|name| name.to_string() == named) {
            continue;
        }
        let refuse = |reason: &str| LeftOut { map: named.clone(), reason: reason.to_owned() };
        let MapOwner::Module(module) = &used.owner else {
            left_out.push(refuse("it is the chain's own, and every chain makes its own anew"));
            continue;
        };
        let map = host.module_map(module, &used.name)?;
        let compiled = used.name.strip_suffix(COMPILED);
        let compiled = compiled.is_some_and(|rows| names.contains(&(used.owner.clone(), rows.to_owned())));
        match reason(&used.name, &map, compiled) {
            Some(reason) => left_out.push(refuse(&reason)),
            None => found.push(Named { module: module.clone(), name: used.name, map }),
        }
    }
    for name in what.maps {
        let named = name.to_string();
        if let Some(left) = left_out.iter().find(|left| left.map == named) {
            return Err(Error::NotSaved { map: named, reason: left.reason.clone() });
        }
        if !found.iter().any(|map| map.module == name.module && map.name == name.map) {
            let owner = MapOwner::Module(name.module.clone());
            return Err(xdpchain_host::Error::NoMap { owner, name: name.map.clone() }.into());
        }
    }
    Ok((found, left_out))
}

/// Why a map cannot be saved.
fn reason(name: &str, map: &Map, compiled: bool) -> Option<String> {
    let said = if name.starts_with('.') {
        "it holds constants or variables of one build of the module"
    } else if name == CONTEXT_MAP || name.eq_ignore_ascii_case(SCRATCH) {
        "it holds what is known of a packet under way"
    } else if is_kept(name) {
        "it holds what was found out a moment ago"
    } else if compiled {
        "it is what another map is compiled to, which is done anew where that one is restored"
    } else if map.info().flags & WRITE_ONLY != 0 {
        "its module lets nobody look at its entries"
    } else if let Some(said) = not_saved(map.info().map_type) {
        said
    } else {
        return saved_map("m", "m", map, None).problem().map(|problem| format!("it {problem}"));
    };
    Some(said.to_owned())
}

fn saved_map(module: &str, name: &str, map: &Map, btf: Option<u32>) -> SavedMap {
    let info = map.info();
    let typed = |id| if btf.is_some() { id } else { 0 };
    SavedMap {
        module: module.to_owned(),
        map: name.to_owned(),
        map_type: info.map_type,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.flags,
        btf,
        key_type: typed(info.btf_key),
        value_type: typed(info.btf_value),
        cpus: map.per_cpu().map(|cpus| cpus as u32),
    }
}

/// Writes a state file, whole or not at all. Nobody but its owner may read it: it tells who has which address.
pub(super) fn write_file(
    file: &Path,
    maps: &[Named],
    left_out: &[LeftOut],
    twice: bool,
) -> Result<Vec<Saved>> {
    let failed = |source| Error::WriteRows { file: file.to_owned(), source };
    let mut name = file.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(".unfinished");
    let unfinished = file.with_file_name(name);
    let written = (|| {
        let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let out = BufWriter::with_capacity(1 << 18, out.map_err(failed)?);
        let (out, saved) = write(out, maps, left_out, twice, &failed)?;
        let out: File = out.into_inner().map_err(|error| failed(error.into_error()))?;
        out.sync_all().map_err(failed)?;
        fs::rename(&unfinished, file).map_err(failed)?;
        Ok(saved)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write<W: Write>(
    out: W,
    maps: &[Named],
    left_out: &[LeftOut],
    twice: bool,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<(W, Vec<Saved>)> {
    let mut types = Vec::new();
    let mut known: HashMap<u32, Option<u32>> = HashMap::new();
    let mut entries = Vec::with_capacity(maps.len());
    for Named { module, name, map } in maps {
        let btf = match known.get(&map.info().btf_id) {
            Some(btf) => *btf,
            None => {
                // What cannot be read back is of no use.
                let bytes = map.btf()?.filter(|bytes| Btf::parse(bytes).is_ok());
                let btf = bytes.map(|bytes| {
                    types.push(bytes);
                    types.len() as u32 - 1
                });
                known.insert(map.info().btf_id, btf);
                btf
            }
        };
        entries.push(saved_map(module, name, map, btf));
    }
    let contents = Contents {
        program: concat!("xdpchain ", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        maps: entries,
        left_out: left_out.to_vec(),
    };
    // Whatever is the same in both readings of all was so at the instant between them.
    let before = match twice {
        false => Vec::new(),
        true => maps
            .iter()
            .map(|map| read(&map.map, |_| Ok(())).map(|read| read.digest))
            .collect::<Result<_>>()?,
    };
    let mut writer = StateWriter::new(out, &contents, &types).map_err(failed)?;
    let mut saved = Vec::with_capacity(maps.len());
    for (at, Named { module, name, map }) in maps.iter().enumerate() {
        let now = read(map, |batch| writer.rows(&batch.keys, &batch.values).map_err(failed))?;
        let instant = before.get(at) == Some(&now.digest);
        writer.end(instant).map_err(failed)?;
        saved.push(Saved {
            map: format!("{module}/{name}"),
            entries: now.entries,
            instant,
            single: now.single,
        });
    }
    Ok((writer.finish().map_err(failed)?, saved))
}

/// What one reading of a map found.
struct Reading {
    entries: u64,
    /// Of its entries in the order in which they came, which stays as long as nothing is written.
    digest: u64,
    single: bool,
}

fn read(map: &Map, mut each: impl FnMut(&Entries) -> Result<()>) -> Result<Reading> {
    let (key_size, value_len) = (map.info().key_size as usize, map.value_len());
    let mut digest = DefaultHasher::new();
    let mut entries = 0;
    let mut batches = map.entries();
    let mut seen = HashSet::new();
    while let Some(batch) = batches.next() {
        let mut batch = batch?;
        if batches.are_single() {
            let mut first = Entries::default();
            for (key, value) in batch.keys.chunks_exact(key_size).zip(batch.values.chunks_exact(value_len)) {
                if seen.insert(key.to_vec()) {
                    first.keys.extend_from_slice(key);
                    first.values.extend_from_slice(value);
                }
            }
            batch = first;
        }
        digest.write(&batch.keys);
        digest.write(&batch.values);
        entries += (batch.keys.len() / key_size) as u64;
        each(&batch)?;
    }
    Ok(Reading { entries, digest: digest.finish(), single: batches.are_single() })
}
