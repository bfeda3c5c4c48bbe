//! Where entries go: maps of the kernel, or anything that behaves as they do.

use xdpchain_compose::btf::Btf;
use xdpchain_host::{self as host, Entries, Host, Map};
use xdpchain_spec::MapRef;
use xdpchain_state::MapCodec;

use crate::{Error, Result};

/// Why an entry was not written.
#[derive(Debug)]
pub enum Refused {
    /// There is no room for it.
    Full,
    /// Something that no other entry would fare better with.
    Failed(host::Error),
}

/// A map that rows go to.
pub trait Sink {
    /// Writes entries in order up to the first that is refused: how many were written, and why no more.
    fn write(&self, entries: &Entries) -> (usize, Option<Refused>);

    /// Removes entries; those that are not there are no failure.
    fn remove(&self, keys: &[u8]) -> Result<(), host::Error>;

    /// The value of a key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, host::Error>;

    /// Gives `each` the keys and values of every entry, many at a time.
    fn walk(&self, each: &mut dyn FnMut(&Entries)) -> Result<(), host::Error>;
}

/// `E2BIG`: no room, and for an array an index beyond its end.
const NO_ROOM: i32 = 7;

impl Sink for Map {
    fn write(&self, entries: &Entries) -> (usize, Option<Refused>) {
        let (done, result) = self.update_some(entries);
        let refused = result.err().map(|error| match &error {
            host::Error::Map { source, .. } if source.raw_os_error() == Some(NO_ROOM) => Refused::Full,
            _ => Refused::Failed(error),
        });
        (done, refused)
    }

    fn remove(&self, keys: &[u8]) -> Result<(), host::Error> {
        if !self.is_array() {
            return self.delete_all(keys);
        }
        // Entries of an array are always there; without a row they are zeros.
        let count = keys.len() / (self.info().key_size as usize).max(1);
        self.update_all(&Entries { keys: keys.to_vec(), values: vec![0; count * self.value_len()] })
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, host::Error> {
        self.lookup(key)
    }

    fn walk(&self, each: &mut dyn FnMut(&Entries)) -> Result<(), host::Error> {
        let sizes = (self.info().key_size as usize, self.value_len());
        for entries in self.entries() {
            let mut entries = entries?;
            if self.is_array() {
                let keys = entries.keys.chunks_exact(sizes.0.max(1));
                let kept = keys.zip(entries.values.chunks_exact(sizes.1.max(1)));
                let kept = kept.filter(|(_, value)| value.iter().any(|octet| *octet != 0));
                let (keys, values): (Vec<_>, Vec<_>) = kept.unzip();
                entries = Entries { keys: keys.concat(), values: values.concat() };
            }
            each(&entries);
        }
        Ok(())
    }
}

/// An open map, with what its octets mean.
#[derive(Debug)]
pub struct Target {
    /// The map.
    pub map: Map,
    /// What its octets mean.
    pub codec: MapCodec,
}

impl Target {
    /// Opens a map that a source is to fill.
    ///
    /// # Errors
    /// [`Error::Map`] when it is not there, [`Error::NoTarget`] when no table can fill it.
    pub fn open(host: &Host, name: &MapRef) -> Result<Self> {
        let failed = |source| Error::Map { map: name.to_string(), source: Box::new(source) };
        let unfit = |problem: String| Error::NoTarget { map: name.to_string(), problem };
        let map = host.module_map(&name.module, &name.map).map_err(failed)?;
        let codec = codec(&map, name)?;
        if codec.per_cpu {
            return Err(unfit("it has a value for each CPU, which programs count in".to_owned()));
        }
        match host.module_map(&name.module, &format!("{}_compiled", name.map)) {
            Err(host::Error::NoMap { .. }) => Ok(Self { map, codec }),
            Err(error) => Err(failed(error)),
            Ok(_) => {
                Err(unfit("programs look at what it is compiled to, which `map import` does".to_owned()))
            }
        }
    }

    /// Octets of a key.
    pub fn key_size(&self) -> usize {
        self.codec.key.size()
    }
}

/// What the octets of a map mean, by its BTF.
fn codec(map: &Map, name: &MapRef) -> Result<MapCodec> {
    let failed = |source| Error::Map { map: name.to_string(), source: Box::new(source) };
    let unfit = |problem: String| Error::NoTarget { map: name.to_string(), problem };
    let info = map.info();
    let btf = map.btf().map_err(failed)?.map(|bytes| Btf::parse(&bytes)).transpose();
    let btf = btf.map_err(|error| unfit(error.to_string()))?;
    let half = |id: u32, size: u32| ((id != 0).then_some(id), size);
    let (key, value) = (half(info.btf_key, info.key_size), half(info.btf_value, info.value_size));
    MapCodec::new(btf.as_ref(), info.map_type, key, value).map_err(|error| unfit(error.to_string()))
}
