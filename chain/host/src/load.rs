//! An [`Image`] made into maps and programs of the kernel.
//!
//! Nothing here is pinned or attached: dropping what [`load`] returns leaves no trace.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya_obj::generated::{
    BPF_F_RDONLY_PROG, BPF_F_XDP_HAS_FRAGS, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_attach_type,
    bpf_map_type,
};
use xdpchain_compose::btf::TypeId;
pub use xdpchain_compose::btf::map_type_name;
use xdpchain_compose::{DebugInfo, Image, Initial, MapDef, MapUse, ProgramDebugInfo, ProgramImage, Target};

use crate::cpus;
use crate::error::{Error, Result};
use crate::features;
use crate::sys::{self, MapCreate, MapFd, MapInfo, ProgInfo, ProgLoad};
use crate::verifier::Refusal;

/// What must agree for one map to serve as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Octets.
    pub key_size: u32,
    /// Octets, of one CPU's value.
    pub value_size: u32,
    /// Entries, or octets for a ring buffer.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, key of {} octets, value of {} octets, {} entries, flags {:#x}",
            map_type_name(self.map_type),
            self.key_size,
            self.value_size,
            self.max_entries,
            self.flags
        )
    }
}

impl Shape {
    /// What a map that exists has.
    pub fn of(info: &MapInfo) -> Self {
        let mut flags = info.flags;
        // The kernel adds this one to device maps by itself.
        if [bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32, bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH as u32]
            .contains(&info.map_type)
        {
            flags &= !BPF_F_RDONLY_PROG;
        }
        Self {
            map_type: info.map_type,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags,
        }
    }

    /// What the kernel will make of a definition.
    pub fn wanted(def: &MapDef) -> io::Result<Self> {
        let max_entries =
            if def.map_type == bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY as u32 && def.max_entries == 0 {
                cpus::possible()? as u32
            } else if [bpf_map_type::BPF_MAP_TYPE_RINGBUF, bpf_map_type::BPF_MAP_TYPE_USER_RINGBUF]
                .iter()
                .any(|ring| *ring as u32 == def.map_type)
            {
                // A power of two, and whole pages.
                def.max_entries.max(4096).checked_next_power_of_two().unwrap_or(def.max_entries)
            } else {
                def.max_entries
            };
        Ok(Self {
            map_type: def.map_type,
            key_size: def.key_size,
            value_size: def.value_size,
            max_entries,
            flags: def.flags,
        })
    }
}

/// A map of a loaded image.
#[derive(Debug)]
pub struct LoadedMap {
    /// The map.
    pub fd: OwnedFd,
    /// What the kernel says about it.
    pub info: MapInfo,
    /// Whether it is new.
    pub created: bool,
}

/// A loaded image. Closing these descriptors unloads what nothing else holds.
#[derive(Debug)]
pub struct Loaded {
    /// The program that the interface is to run.
    pub program: OwnedFd,
    /// What the kernel says about it.
    pub info: ProgInfo,
    /// The image's other programs, in order.
    pub others: Vec<OwnedFd>,
    /// For each program of the image, whether it is new.
    pub fresh: Vec<bool>,
    /// The maps, in the order of [`Image::maps`].
    pub maps: Vec<LoadedMap>,
}

/// What programs are loaded for unless something else is asked for.
pub(crate) const ATTACH_TYPE: u32 = bpf_attach_type::BPF_XDP as u32;

/// Loads `image`. `existing` answers for each map whether it exists already; a map that does is used when it has the shape
/// that the image wants.
///
/// # Errors
/// [`Error::MapDiffers`], [`Error::MapCreate`], [`Error::Verifier`], [`Error::Permission`], [`Error::Unsupported`], and
/// what `existing` fails with.
pub fn load(image: &Image, existing: &mut dyn FnMut(&MapUse) -> Result<Option<OwnedFd>>) -> Result<Loaded> {
    let loaded = load_new(image, existing, &Programs::default())?;
    fill(image, &loaded, None)?;
    Ok(loaded)
}

/// What an image's programs are loaded from, and for.
#[derive(Clone, Copy)]
pub(crate) struct Programs<'a> {
    /// For each program, the number of the one that is there already.
    pub(crate) kept: &'a [Option<u32>],
    /// `enum bpf_attach_type` of those for an interface.
    pub(crate) attach_type: u32,
    /// For each program, the function that it replaces; none when they are for an interface.
    pub(crate) replaces: &'a [(BorrowedFd<'a>, TypeId)],
}

impl Default for Programs<'_> {
    fn default() -> Self {
        Self { kept: &[], attach_type: ATTACH_TYPE, replaces: &[] }
    }
}

/// Loads `image` but for the programs that are there: those that are kept, and those that a module's program array holds
/// that existed before. The new ones are not put into program arrays yet.
pub(crate) fn load_new(
    image: &Image,
    existing: &mut dyn FnMut(&MapUse) -> Result<Option<OwnedFd>>,
    wanted: &Programs<'_>,
) -> Result<Loaded> {
    sys::raise_memlock();
    let debug = image.debug_info(features::btf());
    let (btf, btf_note) = load_btf(image, &debug)?;
    let btf = btf.as_ref().map(AsFd::as_fd);
    let mut maps = Vec::with_capacity(image.maps.len());
    for map in &image.maps {
        maps.push(match existing(map)? {
            Some(fd) => reuse_map(map, fd)?,
            None => create_map(map, btf)?,
        });
    }
    fill_values(image, &maps)?;
    let mut programs = Vec::with_capacity(image.programs.len());
    let mut fresh = Vec::with_capacity(image.programs.len());
    for (i, (program, debug)) in image.programs.iter().zip(&debug.programs).enumerate() {
        let there = match wanted.kept.get(i).copied().flatten() {
            Some(id) => Some(id),
            None => held(image, &maps, i)?,
        };
        fresh.push(there.is_none());
        programs.push(match there {
            Some(id) => sys::prog_by_id(id).map_err(Error::query(format!("program {id}")))?,
            None => {
                let debug = btf.map(|fd| (fd, debug));
                let purpose = (wanted.attach_type, wanted.replaces.get(i).copied());
                load_program(program, &maps, debug, btf_note.clone(), purpose)?
            }
        });
    }
    if programs.is_empty() {
        return Err(Error::Compose("the composition has no program".to_owned().into()));
    }
    let program = programs.remove(0);
    let info = sys::prog_info(program.as_fd()).map_err(Error::query("the program just loaded"))?;
    Ok(Loaded { program, info, others: programs, fresh, maps })
}

impl Loaded {
    /// The program at `index` of the image.
    pub(crate) fn program(&self, index: usize) -> BorrowedFd<'_> {
        match index.checked_sub(1) {
            None => self.program.as_fd(),
            Some(other) => self.others[other].as_fd(),
        }
    }

    /// Instructions that the verifier looked at in the new programs, 0 before kernel 5.16.
    pub fn verified_insns(&self) -> u32 {
        let fresh = self.fresh.iter().enumerate().filter(|(_, fresh)| **fresh);
        fresh.filter_map(|(i, _)| sys::prog_info(self.program(i)).ok()).map(|info| info.verified_insns).sum()
    }
}

/// Puts the new programs into the program arrays that hold them, but for the array `but`.
pub(crate) fn fill(image: &Image, loaded: &Loaded, but: Option<usize>) -> Result<()> {
    for fill in image.fills.iter().filter(|fill| loaded.fresh[fill.program] && Some(fill.map) != but) {
        let name = &image.maps[fill.map].def.name;
        let program = loaded.program(fill.program).as_raw_fd();
        program_array(&loaded.maps[fill.map])
            .and_then(|map| sys::map_update(&map, &fill.index.to_ne_bytes(), &program.to_ne_bytes(), 0))
            .map_err(|source| Error::Map { action: "fill", name: name.clone(), source })?;
    }
    Ok(())
}

pub(crate) fn program_array(map: &LoadedMap) -> io::Result<MapFd> {
    map.fd.try_clone().and_then(MapFd::new)
}

/// Number of the program that entry `index` of a program array holds, 0 when it holds none.
pub(crate) fn entry(array: &MapFd, index: u32) -> io::Result<u32> {
    let id = sys::map_lookup(array, &index.to_ne_bytes())?.unwrap_or_default();
    Ok(id.try_into().map_or(0, u32::from_ne_bytes))
}

/// The program that stands for `program` in the arrays of a module that were there before. What such an array holds goes
/// by its name, so that it need not be loaded again.
fn held(image: &Image, maps: &[LoadedMap], program: usize) -> Result<Option<u32>> {
    let mut held = None;
    for fill in image.fills.iter().filter(|fill| fill.program == program) {
        if maps[fill.map].created || image.maps[fill.map].renewed() {
            return Ok(None);
        }
        let failed = Error::query(format!("map `{}`", image.maps[fill.map].def.name));
        held = Some(program_array(&maps[fill.map]).and_then(|map| entry(&map, fill.index)).map_err(failed)?)
            .filter(|id| *id != 0);
        if held.is_none() {
            return Ok(None);
        }
    }
    Ok(held)
}

/// Loads the image's BTF. A kernel that does not know some kind of type refuses it: that is told only when the program
/// turns out to need it.
pub(crate) fn load_btf(image: &Image, debug: &DebugInfo) -> Result<(Option<OwnedFd>, Option<String>)> {
    if image.btf.is_empty() {
        return Ok((None, None));
    }
    match sys::btf_load(&debug.btf) {
        Ok(fd) => Ok((Some(fd), None)),
        Err((error, _)) if error.raw_os_error() == Some(libc::EPERM) => {
            Err(Error::Permission { action: "load BTF".to_owned(), source: error })
        }
        Err((error, _)) if error.raw_os_error() == Some(libc::ENOSYS) => {
            Err(Error::Unsupported { action: "run BPF programs".to_owned(), source: error })
        }
        Err((error, log)) => {
            let said = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let note = if said.is_empty() { error.to_string() } else { format!("{said} ({error})") };
            tracing::warn!("the kernel did not take the chain's BTF, so that it is loaded without: {note}");
            Ok((None, Some(note)))
        }
    }
}

fn reuse_map(map: &MapUse, fd: OwnedFd) -> Result<LoadedMap> {
    let describe = |e: io::Error| Error::query(format!("map `{}`", map.def.name))(e);
    let info = sys::map_info(fd.as_fd()).map_err(describe)?;
    let (wanted, found) = (Shape::wanted(&map.def).map_err(describe)?, Shape::of(&info));
    if wanted != found {
        return Err(Error::MapDiffers {
            owner: map.owner.clone(),
            name: map.def.name.clone(),
            wanted,
            found,
        });
    }
    Ok(LoadedMap { fd, info, created: false })
}

pub(crate) fn create_map(map: &MapUse, btf: Option<BorrowedFd<'_>>) -> Result<LoadedMap> {
    let def = &map.def;
    let describe = |e: io::Error| Error::query(format!("map `{}`", def.name))(e);
    let shape = Shape::wanted(def).map_err(describe)?;
    let fd = create(def, shape, btf).map_err(|source| map_error(map, shape, source))?;
    let info = sys::map_info(fd.as_fd()).map_err(describe)?;
    if let Some(initial) = &def.initial {
        let failed = |source| Error::Map { action: "fill", name: def.name.clone(), source };
        let filled = sys::MapFd::new(fd.try_clone().map_err(failed)?).map_err(failed)?;
        let mut value = initial.bytes.clone();
        value.resize(filled.value_len(), 0);
        sys::map_update(&filled, &vec![0; filled.key_size()], &value, 0).map_err(failed)?;
        if initial.frozen {
            sys::map_freeze(filled.fd()).map_err(failed)?;
        }
    }
    Ok(LoadedMap { fd, info, created: true })
}

/// Creates a map, without BTF where its type does not take any.
fn create(def: &MapDef, shape: Shape, btf: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let inner = def.inner.as_ref().map(|inner| create(inner, Shape::wanted(inner)?, btf)).transpose()?;
    let mut wanted = MapCreate {
        name: &def.name,
        map_type: shape.map_type,
        key_size: shape.key_size,
        value_size: shape.value_size,
        max_entries: shape.max_entries,
        flags: shape.flags,
        extra: def.extra,
        numa_node: def.numa_node,
        inner: inner.as_ref().map(AsFd::as_fd),
        btf: btf
            .filter(|_| def.btf_key != 0 || def.btf_value != 0)
            .map(|btf| (btf, def.btf_key, def.btf_value)),
    };
    match sys::map_create(&wanted) {
        Err(e) if wanted.btf.is_some() && !matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOMEM)) => {
            wanted.btf = None;
            // The first answer is about a kind of map that the kernel gives no types; the second is about the map.
            sys::map_create(&wanted)
        }
        other => other,
    }
}

fn map_error(map: &MapUse, shape: Shape, source: io::Error) -> Error {
    let help = match source.raw_os_error() {
        Some(libc::EPERM) => {
            return Error::Permission { action: format!("create map `{}`", map.def.name), source };
        }
        Some(libc::ENOSYS) => {
            return Error::Unsupported { action: "create maps".to_owned(), source };
        }
        Some(libc::ENOMEM | libc::E2BIG) => {
            let octets =
                u64::from(shape.max_entries) * (u64::from(shape.key_size) + u64::from(shape.value_size));
            format!("its keys and values alone are {} MiB; lower `max_entries` in chains.yaml", octets >> 20)
        }
        _ => "this kernel may not have this type of map, or not with these flags".to_owned(),
    };
    Error::MapCreate { owner: map.owner.clone(), name: map.def.name.clone(), shape, source, help }
}

/// Puts maps into maps of maps, as their definitions say. What has existed before keeps what it holds.
fn fill_values(image: &Image, maps: &[LoadedMap]) -> Result<()> {
    for (map, outer) in image.maps.iter().zip(maps).filter(|(_, loaded)| loaded.created) {
        let failed = |source| Error::Map { action: "fill", name: map.def.name.clone(), source };
        for (index, value) in &map.def.values {
            let Initial::Map(inner) = value else { continue };
            let outer = outer.fd.try_clone().and_then(sys::MapFd::new).map_err(failed)?;
            let inner = maps[*inner].fd.as_raw_fd();
            sys::map_update(&outer, &index.to_ne_bytes(), &inner.to_ne_bytes(), 0).map_err(failed)?;
        }
    }
    Ok(())
}

/// BTF objects of the kernel modules whose functions and variables a program refers to.
#[derive(Default)]
pub(crate) struct ModuleBtfs {
    fds: Vec<OwnedFd>,
    ids: Vec<u32>,
}

impl ModuleBtfs {
    /// Index in [`ModuleBtfs::array`] of the object number `id`.
    fn index(&mut self, id: u32) -> Result<usize> {
        if let Some(known) = self.ids.iter().position(|known| *known == id) {
            return Ok(known + 1);
        }
        let failed = Error::query("the types of a kernel module");
        self.fds.push(sys::btf_by_id(id).map_err(failed)?);
        self.ids.push(id);
        Ok(self.ids.len())
    }

    /// The descriptors as the kernel wants them: those of modules from index 1 on.
    pub(crate) fn array(&self) -> Vec<RawFd> {
        if self.fds.is_empty() {
            return Vec::new();
        }
        std::iter::once(-1).chain(self.fds.iter().map(AsRawFd::as_raw_fd)).collect()
    }
}

/// The program's instructions with descriptors in their places.
pub(crate) fn linked(
    program: &ProgramImage,
    maps: &[LoadedMap],
    modules: &mut ModuleBtfs,
) -> Result<Vec<xdpchain_compose::Insn>> {
    let mut insns = program.insns.clone();
    for relocation in &program.relocations {
        let (map, pseudo, offset) = match relocation.target {
            Target::Map { map } => (map, BPF_PSEUDO_MAP_FD, 0),
            Target::Value { map, offset } => (map, BPF_PSEUDO_MAP_VALUE, offset),
            Target::ModuleBtf { id } => {
                let index = modules.index(id)?;
                if insns[relocation.insn].is_wide() {
                    insns[relocation.insn + 1].imm = modules.fds[index - 1].as_raw_fd();
                } else {
                    insns[relocation.insn].off = index as i16;
                }
                continue;
            }
        };
        let first = &mut insns[relocation.insn];
        first.regs = (first.regs & 0x0f) | ((pseudo as u8) << 4);
        first.imm = maps[map].fd.as_raw_fd();
        insns[relocation.insn + 1].imm = offset as i32;
    }
    Ok(insns)
}

fn load_program(
    program: &ProgramImage,
    maps: &[LoadedMap],
    btf: Option<(BorrowedFd<'_>, &ProgramDebugInfo)>,
    btf_note: Option<String>,
    (attach_type, replaces): (u32, Option<(BorrowedFd<'_>, TypeId)>),
) -> Result<OwnedFd> {
    let mut modules = ModuleBtfs::default();
    let insns = linked(program, maps, &mut modules)?;
    let modules = modules.array();
    let frags = if program.frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
    let typed = btf.filter(|_| !program.functions.is_empty());
    // From what is wanted to what any kernel takes. A refusal by the verifier proper ends it: less would not help.
    let mut attempts = vec![(typed, frags)];
    if replaces.is_some() {
        // The kernel compares types, and frags are a matter of the program whose function it is.
        attempts = vec![(typed, 0)];
    } else if frags != 0 {
        attempts.push((typed, 0));
    }
    if typed.is_some() && replaces.is_none() {
        attempts.push((None, frags));
        if frags != 0 {
            attempts.push((None, 0));
        }
    }
    let mut refusal: Option<(io::Error, String)> = None;
    for (btf, flags) in attempts {
        let attempt = ProgLoad {
            name: &program.name,
            insns: &insns,
            license: &program.license,
            flags,
            attach_type,
            btf: btf.map(|(btf, debug)| (btf, debug.functions.as_slice(), debug.lines.as_slice())),
            modules: &modules,
            replaces,
        };
        match sys::prog_load(&attempt) {
            Ok(fd) => {
                if let Some((error, log)) = &refusal {
                    let (with_btf, with_frags) = (btf.is_some(), flags != 0);
                    tracing::warn!(
                        with_btf,
                        with_frags,
                        "program loaded at second try; at first: {error}: {log}"
                    );
                }
                return Ok(fd);
            }
            Err((error, _)) if error.raw_os_error() == Some(libc::EPERM) && replaces.is_some() => {
                return Err(Error::NoExtensions { source: error });
            }
            Err((error, _)) if error.raw_os_error() == Some(libc::EPERM) => {
                return Err(Error::Permission { action: "load the program".to_owned(), source: error });
            }
            Err((error, _)) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return Err(Error::Unsupported { action: "load programs".to_owned(), source: error });
            }
            Err((error, log)) => {
                let verified = was_verified(&log);
                // Of several refusals the verifier's own tells most, and else the first one.
                if verified || refusal.is_none() {
                    refusal = Some((error, log));
                }
                if verified {
                    break;
                }
            }
        }
    }
    let (error, log) = refusal.unwrap_or_else(|| (io::Error::other("not tried"), String::new()));
    Err(Error::Verifier(Box::new(Refusal::new(program, error, &log, btf_note))))
}

/// Whether the verifier followed instructions before it refused, so that neither flags nor BTF are at fault.
fn was_verified(log: &str) -> bool {
    let followed = log.lines().rev().find_map(|line| line.strip_prefix("processed "));
    followed.is_some_and(|rest| !rest.starts_with("0 insns"))
}

#[cfg(test)]
mod tests {
    use xdpchain_compose::MapOwner;

    use super::*;

    #[test]
    fn a_log_without_followed_instructions_is_no_verdict_on_the_program() {
        assert!(was_verified("0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)\n"));
        assert!(!was_verified("func_info not found\nprocessed 0 insns (limit 1000000)\n"));
        assert!(!was_verified(""));
    }

    #[test]
    fn ring_buffers_are_rounded_to_what_the_kernel_takes() {
        let def = MapDef {
            name: "events".into(),
            map_type: bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32,
            key_size: 0,
            value_size: 0,
            max_entries: 5000,
            ..MapDef::default()
        };
        assert_eq!(Shape::wanted(&def).map(|s| s.max_entries).ok(), Some(8192));
    }

    #[test]
    fn a_refused_map_says_what_it_was_to_be() {
        let def = MapDef {
            name: "sessions".into(),
            map_type: 1,
            key_size: 8,
            value_size: 40,
            max_entries: 1 << 30,
            ..MapDef::default()
        };
        let map = MapUse { owner: MapOwner::Module("gtp-decap".into()), def };
        let shape = Shape::wanted(&map.def).expect("nothing to ask the kernel for");
        let error = map_error(&map, shape, io::Error::from_raw_os_error(libc::ENOMEM));
        let text = error.to_string();
        assert!(text.contains("`sessions` of module `gtp-decap` (hash, key of 8 octets"), "{text}");
        assert!(text.contains("49152 MiB"), "{text}");
    }
}
