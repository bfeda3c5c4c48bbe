//! Maps inside an array of maps that are filled before any program sees them, and replaced in one step.
//!
//! A program that has looked the old map up goes on with it to its end; the exchange comes back when none does any more.

use std::os::fd::AsRawFd;

use aya_obj::generated::BPF_F_MMAPABLE;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::load::Shape;
use crate::maps::Map;
use crate::sys::{self, MapCreate};

impl Host {
    /// Keeps every other changing operation of this network namespace waiting until what comes back is dropped.
    ///
    /// # Errors
    /// [`Error::Permission`], [`Error::Io`], [`Error::Locked`].
    pub fn hold(&self) -> Result<impl Drop + '_> {
        self.lock()
    }
}

impl Map {
    /// The map that entry `index` of this array of maps holds, if any.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Query`], [`Error::Permission`].
    pub fn inner(&self, index: u32) -> Result<Option<Self>> {
        let Some(id) = self.lookup(&index.to_ne_bytes())? else { return Ok(None) };
        let id = id.try_into().map_or(0, u32::from_ne_bytes);
        let fd = sys::map_by_id(id).map_err(Error::query(format!("map {id}, in `{}`", self.name())))?;
        Self::from_fd(fd, self.name()).map(Some)
    }

    /// Makes a map of `shape`, which must be an array with `BPF_F_MMAPABLE`, lets `fill` write its octets, which are zero,
    /// makes it read-only for user space, and puts it into entry `index` of this array of maps. `fill` gets the values one
    /// behind the other, each rounded up to 8 octets.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` when the array of maps wants another shape.
    pub fn replace_inner(&self, index: u32, shape: &Shape, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let failed = |action| move |source| Error::Map { action, name: self.name().to_owned(), source };
        let create = MapCreate {
            name: self.name(),
            map_type: shape.map_type,
            key_size: shape.key_size,
            value_size: shape.value_size,
            max_entries: shape.max_entries,
            flags: shape.flags,
            extra: 0,
            numa_node: 0,
            inner: None,
            btf: None,
        };
        let inner = sys::map_create(&create).and_then(sys::MapFd::new).map_err(failed("create a map for"))?;
        inner.write_octets(fill).map_err(failed("fill a map for"))?;
        sys::map_freeze(inner.fd()).map_err(failed("freeze a map for"))?;
        self.update(&index.to_ne_bytes(), &inner.fd().as_raw_fd().to_ne_bytes())
    }

    /// Lets `look` read the octets of this array, which must have been made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` when it was not.
    pub fn read_octets<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.octets(look).map_err(|source| Error::Map {
            action: "read",
            name: self.name().to_owned(),
            source,
        })
    }
}

/// The shape of an array that programs and user space see the same memory of.
pub fn shared_array(value_size: u32, max_entries: u32) -> Shape {
    Shape {
        map_type: aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size,
        max_entries,
        flags: BPF_F_MMAPABLE,
    }
}
