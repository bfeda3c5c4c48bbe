//! Maps.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_info, bpf_map_type};

use crate::cpus;

use super::{address, address_mut, attr, bpf, bpf_fd, by_id, name_text, object_info, object_name};

/// What `BPF_MAP_CREATE` is told.
#[derive(Clone, Copy, Debug)]
pub struct MapCreate<'a> {
    /// Name; the kernel gets the first 15 octets.
    pub name: &'a str,
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
    /// What else the type has to be told.
    pub extra: u64,
    /// NUMA node, when `flags` has `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// The inner map's template, for maps of maps.
    pub inner: Option<BorrowedFd<'a>>,
    /// BTF object with the type ids of key and value.
    pub btf: Option<(BorrowedFd<'a>, u32, u32)>,
}

/// Creates a map.
///
/// # Errors
/// `EPERM` without `CAP_BPF`, or for the memory limit of kernels before 5.11; `EINVAL` for an impossible definition; `ENOMEM`.
pub fn map_create(create: &MapCreate<'_>) -> io::Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: writing fields of a zeroed union of integers.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = create.map_type;
    map.key_size = create.key_size;
    map.value_size = create.value_size;
    map.max_entries = create.max_entries;
    map.map_flags = create.flags;
    map.map_extra = create.extra;
    map.numa_node = create.numa_node;
    map.map_name = object_name(create.name);
    if let Some(inner) = create.inner {
        map.inner_map_fd = inner.as_raw_fd() as u32;
    }
    if let Some((btf, key, value)) = create.btf {
        map.btf_fd = btf.as_raw_fd() as u32;
        map.btf_key_type_id = key;
        map.btf_value_type_id = value;
    }
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

/// Makes a map read-only for user space, for good.
///
/// # Errors
/// `EBUSY` while it is mapped for writing.
pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// What the kernel says about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// The kernel's number of the map.
    pub id: u32,
    /// Octets.
    pub key_size: u32,
    /// Octets; of one CPU's value for per-CPU maps.
    pub value_size: u32,
    /// Entries, or octets for a ring buffer.
    pub max_entries: u32,
    /// Creation flags.
    pub flags: u32,
    /// Name, at most 15 octets.
    pub name: String,
    /// The kernel's number of the BTF object that describes key and value, 0 when there is none.
    pub btf_id: u32,
    /// Type id of the key, 0 when there is none.
    pub btf_key: u32,
    /// Type id of the value, 0 when there is none.
    pub btf_value: u32,
}

/// Opens the map number `id`.
///
/// # Errors
/// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(bpf_cmd::BPF_MAP_GET_FD_BY_ID, id)
}

/// What the kernel says about the map behind `map`.
///
/// # Errors
/// `EINVAL` when the descriptor is no map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // SAFETY: `bpf_map_info` is a struct of integers, for which all zeros is a value.
    let mut info: bpf_map_info = unsafe { mem::zeroed() };
    object_info(map, &mut info)?;
    Ok(MapInfo {
        map_type: info.type_,
        id: info.id,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        name: name_text(&info.name),
        btf_id: info.btf_id,
        btf_key: info.btf_key_type_id,
        btf_value: info.btf_value_type_id,
    })
}

/// A map with the sizes that user space sees, asked of the kernel, so that no call can be given a buffer that is too small.
#[derive(Debug)]
pub struct MapFd {
    fd: OwnedFd,
    info: MapInfo,
    value_len: usize,
}

impl MapFd {
    /// Asks the kernel about the map behind `fd`.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is no map; what reading the number of CPUs fails with.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let size = info.value_size as usize;
        let value_len =
            if is_per_cpu(info.map_type) { size.next_multiple_of(8) * cpus::possible()? } else { size };
        Ok(Self { fd, info, value_len })
    }

    /// The map.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the kernel says about it.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Octets of a key.
    pub fn key_size(&self) -> usize {
        self.info.key_size as usize
    }

    /// Octets of a value as system calls carry it: for per-CPU maps every CPU's, each rounded up to 8.
    pub fn value_len(&self) -> usize {
        self.value_len
    }

    /// Lets `write` change all values of an array with `BPF_F_MMAPABLE`, one behind the other, each rounded up to 8 octets.
    ///
    /// # Errors
    /// `EINVAL` for other maps, `EPERM` for one that is frozen.
    pub fn write_octets<T>(&self, write: impl FnOnce(&mut [u8]) -> T) -> io::Result<T> {
        let memory = Memory::of(self, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: `memory` is mapped for `len` octets, readable and writable, until it is dropped at the end of this
        // function; nobody else in this process has it. Programs and others that change it meanwhile change octets only.
        Ok(write(unsafe { std::slice::from_raw_parts_mut(memory.start.cast(), memory.len) }))
    }

    /// Lets `read` look at all values of such an array.
    ///
    /// # Errors
    /// `EINVAL` for other maps.
    pub fn read_octets<T>(&self, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let memory = Memory::of(self, libc::PROT_READ)?;
        // SAFETY: as above, only to be read.
        Ok(read(unsafe { std::slice::from_raw_parts(memory.start.cast(), memory.len) }))
    }

    fn element(&self, key: &[u8]) -> io::Result<bpf_attr> {
        if key.len() != self.key_size() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = attr();
        // SAFETY: writing fields of a zeroed union of integers.
        let element = unsafe { &mut attr.__bindgen_anon_2 };
        element.map_fd = self.fd.as_raw_fd() as u32;
        element.key = address(key);
        Ok(attr)
    }
}

/// An array's memory in this process; unmapped when it is dropped.
struct Memory {
    start: *mut libc::c_void,
    len: usize,
}

impl Memory {
    fn of(map: &MapFd, protection: libc::c_int) -> io::Result<Self> {
        let len = map.value_len().next_multiple_of(8) * map.info().max_entries as usize;
        // SAFETY: a new mapping at an address that the kernel chooses, of a valid descriptor.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, map.fd.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, with this length, and no reference to it is left.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Whether a map type has a value for each CPU.
pub fn is_per_cpu(map_type: u32) -> bool {
    [
        bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32,
        bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32,
        bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH as u32,
        bpf_map_type::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED as u32,
    ]
    .contains(&map_type)
}

/// Looks `key` up; the value, or nothing when there is no such entry.
///
/// # Errors
/// `EINVAL` for a key of the wrong size, [`ENOTSUPP`](super::ENOTSUPP) or `EOPNOTSUPP` for types without look-ups.
pub fn map_lookup(map: &MapFd, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; map.value_len()];
    let mut attr = map.element(key)?;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = address_mut(&mut value);
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes an entry; `flags` is `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
///
/// # Errors
/// `EINVAL` for a key or value of the wrong size, `E2BIG` when the map is full, `EEXIST`, `ENOENT`, `EPERM` when frozen.
pub fn map_update(map: &MapFd, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    if value.len() != map.value_len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut attr = map.element(key)?;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = address(value);
    attr.__bindgen_anon_2.flags = flags;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Removes an entry; whether it was there.
///
/// # Errors
/// `EINVAL` for arrays, whose entries cannot be removed.
pub fn map_delete(map: &MapFd, key: &[u8]) -> io::Result<bool> {
    let mut attr = map.element(key)?;
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The key after `key`, the first one when `key` is none or gone, nothing after the last.
///
/// # Errors
/// [`ENOTSUPP`](super::ENOTSUPP) for types that cannot be walked.
pub fn map_next_key(map: &MapFd, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
    let mut next = vec![0u8; map.key_size()];
    let mut attr = match key {
        Some(key) => map.element(key)?,
        None => {
            let mut attr = attr();
            attr.__bindgen_anon_2.map_fd = map.fd.as_raw_fd() as u32;
            attr
        }
    };
    attr.__bindgen_anon_2.__bindgen_anon_1.next_key = address_mut(&mut next);
    match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(next)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A failed batch: how many entries were done before, and why it stopped.
#[derive(Debug)]
pub struct BatchError {
    /// Entries done.
    pub done: usize,
    /// The kernel's answer.
    pub error: io::Error,
}

/// What [`map_batch`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOp {
    /// Write entries.
    Update,
    /// Remove entries; values are not looked at.
    Delete,
}

/// Writes or removes as many entries as `keys` has, in one call.
///
/// # Errors
/// The kernel stops at the first entry that fails; [`ENOTSUPP`](super::ENOTSUPP) or `EINVAL` with `done` 0 when the type
/// or the kernel has no batches.
pub fn map_batch(op: BatchOp, map: &MapFd, keys: &[u8], values: &[u8], flags: u64) -> Result<(), BatchError> {
    let count = keys.len().checked_div(map.key_size()).unwrap_or(0);
    let sized = keys.len() == count * map.key_size()
        && (op == BatchOp::Delete || values.len() == count * map.value_len());
    if !sized {
        return Err(BatchError { done: 0, error: io::Error::from_raw_os_error(libc::EINVAL) });
    }
    let mut attr = attr();
    attr.batch.map_fd = map.fd.as_raw_fd() as u32;
    attr.batch.keys = address(keys);
    attr.batch.count = count as u32;
    attr.batch.elem_flags = flags;
    let cmd = match op {
        BatchOp::Update => {
            attr.batch.values = address(values);
            bpf_cmd::BPF_MAP_UPDATE_BATCH
        }
        BatchOp::Delete => bpf_cmd::BPF_MAP_DELETE_BATCH,
    };
    bpf(cmd, &mut attr).map(drop).map_err(|error| {
        // SAFETY: the kernel wrote this field of the union back, and every value is one of `u32`.
        let done = unsafe { attr.batch.count } as usize;
        // Without batches for the type, the kernel leaves the count as it was.
        BatchError { done: if done >= count { 0 } else { done }, error }
    })
}

/// Reads up to `count` entries from `cursor` on: (keys, values, whether more may follow). `cursor` starts empty.
///
/// # Errors
/// `ENOSPC` when one hash bucket has more than `count` entries: ask again for more; [`ENOTSUPP`](super::ENOTSUPP) or
/// `EINVAL` when the type or the kernel has no batches.
pub fn map_lookup_batch(
    map: &MapFd,
    cursor: &mut Vec<u8>,
    count: usize,
) -> io::Result<(Vec<u8>, Vec<u8>, bool)> {
    let mut keys = vec![0u8; count * map.key_size()];
    let mut values = vec![0u8; count * map.value_len()];
    // Opaque to us: a bucket number for hashes, a key for the others.
    let mut next = vec![0u8; map.key_size().max(8)];
    let mut attr = attr();
    attr.batch.map_fd = map.fd.as_raw_fd() as u32;
    attr.batch.keys = address_mut(&mut keys);
    attr.batch.values = address_mut(&mut values);
    attr.batch.count = count as u32;
    attr.batch.in_batch = address(cursor);
    attr.batch.out_batch = address_mut(&mut next);
    let more = match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => true,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => false,
        Err(e) => return Err(e),
    };
    // SAFETY: the kernel wrote this field of the union back, and every value is one of `u32`.
    let found = (unsafe { attr.batch.count } as usize).min(count);
    keys.truncate(found * map.key_size());
    values.truncate(found * map.value_len());
    *cursor = next;
    Ok((keys, values, more))
}
