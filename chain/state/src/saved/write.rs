//! The writing end of state files.

use std::io::{self, Write};

use sha2::{Digest, Sha256};
use zstd::stream::write::Encoder;

use super::{
    CONTENTS, Contents, DONE, END, MOST, MOST_CONTENTS, NAME, ROWS, SKIPPABLE, STATE_VERSION, SavedMap, TYPES,
};

/// The fastest of the usual ones: a table of sessions shrinks to a fifth all the same.
const LEVEL: i32 = 1;
/// Octets of keys and values in one record.
const STEP: usize = 1 << 20;

/// Writes a state file. Its maps come one after the other, in the order of [`Contents::maps`].
pub struct StateWriter<W: Write> {
    out: Encoder<'static, Hashed<W>>,
    maps: Vec<SavedMap>,
    /// The map that is being written.
    at: usize,
    entries: u64,
}

impl<W: Write> StateWriter<W> {
    /// Begins a file; `types` are the BTF objects that [`SavedMap::btf`] counts.
    ///
    /// # Errors
    /// The writer's; `InvalidInput` for contents that could not be read again.
    pub fn new(out: W, contents: &Contents, types: &[Vec<u8>]) -> io::Result<Self> {
        let known = |map: &SavedMap| map.btf.is_none_or(|at| (at as usize) < types.len());
        if let Some(map) = contents.maps.iter().find(|map| map.problem().is_some() || !known(map)) {
            let problem = map.problem().unwrap_or("has types that are not in the file");
            return Err(invalid(format!("map `{}` {problem}", map.name())));
        }
        let mut out = Hashed { out, hash: Sha256::new() };
        let name = [&NAME[..], &STATE_VERSION.to_le_bytes()].concat();
        out.write_all(&skippable(&name))?;
        let mut out = Encoder::new(out, LEVEL)?;
        out.include_checksum(true)?;
        // Compresses on another CPU while this one reads maps.
        out.multithread(1)?;
        let text = serde_json::to_vec(contents).map_err(io::Error::other)?;
        if text.len() > MOST_CONTENTS as usize {
            return Err(invalid("there are too many maps for one file".to_owned()));
        }
        let mut writer = Self { out, maps: contents.maps.clone(), at: 0, entries: 0 };
        writer.record(CONTENTS, &[&text])?;
        for types in types {
            writer.record(TYPES, &[types])?;
        }
        Ok(writer)
    }

    /// Writes entries of the map that it is at: keys and values one after the other, each as long as the map says.
    ///
    /// # Errors
    /// The writer's; `InvalidInput` when there are not as many values as keys, or no map is left.
    pub fn rows(&mut self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let map = self.maps.get(self.at).ok_or_else(|| invalid("every map is written".to_owned()))?;
        let (key_size, value_len) = (map.key_size as usize, map.value_len());
        let count = keys.len() / key_size;
        if keys.len() != count * key_size || values.len() != count * value_len {
            return Err(invalid(format!(
                "keys and values of `{}` of other lengths than its own",
                map.name()
            )));
        }
        let step = (STEP / (key_size + value_len)).max(1);
        let map = (self.at as u32).to_le_bytes();
        for (keys, values) in keys.chunks(step * key_size).zip(values.chunks(step * value_len)) {
            self.record(ROWS, &[&map, keys, values])?;
        }
        self.entries += count as u64;
        Ok(())
    }

    /// Ends a map. `instant` is whether its entries, and those of every other map of which it is said, are as they were at
    /// one instant.
    ///
    /// # Errors
    /// The writer's.
    pub fn end(&mut self, instant: bool) -> io::Result<()> {
        let (map, entries) = ((self.at as u32).to_le_bytes(), self.entries.to_le_bytes());
        self.record(END, &[&map, &entries, &[u8::from(instant)]])?;
        (self.at, self.entries) = (self.at + 1, 0);
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The writer's; `InvalidInput` when a map is left.
    pub fn finish(mut self) -> io::Result<W> {
        if self.at != self.maps.len() {
            return Err(invalid("not every map is written".to_owned()));
        }
        self.record(DONE, &[])?;
        let Hashed { mut out, hash } = self.out.finish()?;
        out.write_all(&skippable(&hash.finalize()))?;
        out.flush()?;
        Ok(out)
    }

    fn record(&mut self, kind: [u8; 4], parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MOST as usize {
            return Err(invalid(format!("a record of {len} octets")));
        }
        self.out.write_all(&kind)?;
        self.out.write_all(&(len as u32).to_le_bytes())?;
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// A frame that decoders skip.
fn skippable(octets: &[u8]) -> Vec<u8> {
    [&SKIPPABLE, &(octets.len() as u32).to_le_bytes()[..], octets].concat()
}

/// A writer that takes the digest of what goes through.
struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.out.write(octets)?;
        self.hash.update(&octets[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
