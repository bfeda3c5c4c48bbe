//! The reading end of state files, which believes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use xdpchain_compose::btf::Btf;
use zstd::stream::read::Decoder;

use super::{
    CONTENTS, Contents, DIGEST, DONE, END, MOST, MOST_CONTENTS, NAME, ROWS, SKIPPABLE, STATE_VERSION,
    SavedMap, TYPES, WINDOW, damaged,
};
use crate::{MapCodec, StateError};

/// Octets of all BTF objects of a file at most. A chain's has some hundred thousand, the kernel's own has six million.
const MOST_TYPES: usize = 1 << 24;

/// Reads a state file. What it has given is worth something only once [`StateReader::next`] has given the end: a file that
/// is cut short or altered is refused there at the latest.
pub struct StateReader<R: BufRead> {
    /// None once the last record was read.
    input: Option<Decoder<'static, Hashed<R>>>,
    contents: Contents,
    /// As they stand in the file: parsed, all of them at once could be as large as whoever made the file likes.
    types: Vec<Vec<u8>>,
    /// The one that was asked for last.
    parsed: RefCell<Option<(u32, Arc<Btf>)>>,
    /// The map that comes next or is being read.
    at: usize,
    entries: u64,
    buffer: Vec<u8>,
}

/// A part of a state file.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Entries of a map.
    Rows {
        /// Its place in [`Contents::maps`].
        map: usize,
        /// The keys, one after the other.
        keys: &'a [u8],
        /// Their values.
        values: &'a [u8],
    },
    /// A map was read to its end.
    End {
        /// Its place in [`Contents::maps`].
        map: usize,
        /// How many entries it had.
        entries: u64,
        /// Whether they are as they were at one instant, with those of every other map of which it is said.
        instant: bool,
    },
}

impl<R: BufRead> StateReader<R> {
    /// Reads what the file holds, up to the first map's entries.
    ///
    /// # Errors
    /// [`StateError::NotState`], [`StateError::Version`], [`StateError::Damaged`], [`StateError::Unreadable`].
    pub fn new(input: R) -> Result<Self, StateError> {
        let mut input = Hashed { input, hash: Sha256::new() };
        preamble(&mut input)?;
        let mut decoder = Decoder::with_buffer(input).map_err(failed)?.single_frame();
        decoder.window_log_max(WINDOW).map_err(failed)?;
        let mut buffer = Vec::new();
        let kind = record(&mut decoder, &mut buffer, MOST_CONTENTS)?;
        if kind != CONTENTS {
            return Err(damaged("it does not begin with its contents"));
        }
        let contents: Contents = serde_json::from_slice(&buffer)
            .map_err(|e| damaged(format!("its contents cannot be understood: {e}")))?;
        let mut names = BTreeSet::new();
        let mut objects = 0;
        for map in &contents.maps {
            if let Some(problem) = map.problem() {
                return Err(damaged(format!("map `{}` {problem}", map.name())));
            }
            if !names.insert((&map.module, &map.map)) {
                return Err(damaged(format!("map `{}` is there twice", map.name())));
            }
            objects = objects.max(map.btf.map_or(0, |at| at as usize + 1));
        }
        let mut types = Vec::new();
        let mut octets = 0;
        while types.len() < objects {
            if record(&mut decoder, &mut buffer, MOST)? != TYPES {
                return Err(damaged("a BTF object is missing"));
            }
            octets += buffer.len();
            if octets > MOST_TYPES {
                return Err(damaged("its types are too many"));
            }
            parse(&buffer)?;
            types.push(buffer.clone());
        }
        let parsed = RefCell::new(None);
        Ok(Self { input: Some(decoder), contents, types, parsed, at: 0, entries: 0, buffer })
    }

    /// What the file holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What the keys and values of a map mean.
    ///
    /// # Errors
    /// As [`MapCodec::new`].
    pub fn codec(&self, map: &SavedMap) -> Result<MapCodec, StateError> {
        let types = self.types(map)?;
        let half = |id: u32, size| ((id != 0).then_some(id), size);
        let (key, value) = (half(map.key_type, map.key_size), half(map.value_type, map.value_size));
        MapCodec::new(types.as_deref(), map.map_type, key, value)
    }

    /// The types that a map's keys and values are of; none when it has none.
    ///
    /// # Errors
    /// [`StateError::Damaged`].
    pub fn types(&self, map: &SavedMap) -> Result<Option<Arc<Btf>>, StateError> {
        let found = map.btf.and_then(|at| Some((at, self.types.get(at as usize)?)));
        let Some((at, octets)) = found else { return Ok(None) };
        let mut parsed = self.parsed.borrow_mut();
        if let Some((_, btf)) = parsed.as_ref().filter(|parsed| parsed.0 == at) {
            return Ok(Some(btf.clone()));
        }
        // The one before goes first.
        *parsed = None;
        let btf = Arc::new(parse(octets)?);
        *parsed = Some((at, btf.clone()));
        Ok(Some(btf))
    }

    /// The next part; nothing at the end of a file that is whole.
    ///
    /// # Errors
    /// [`StateError::Damaged`], [`StateError::Unreadable`].
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend what it gives")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, StateError> {
        let Some(input) = &mut self.input else { return Ok(None) };
        let kind = record(input, &mut self.buffer, MOST)?;
        let number = |octets: &[u8]| octets.first_chunk().map(|octets| u32::from_le_bytes(*octets));
        let is_current = number(&self.buffer).is_some_and(|at| at as usize == self.at);
        let map = self.contents.maps.get(self.at);
        match (kind, map) {
            (ROWS, Some(map)) if is_current => {
                let rows = &self.buffer[4..];
                let (key_size, value_len) = (map.key_size as usize, map.value_len());
                let count = rows.len() / (key_size + value_len);
                if count == 0 || rows.len() != count * (key_size + value_len) {
                    return Err(damaged(format!("rows of `{}` of a wrong length", map.name())));
                }
                self.entries += count as u64;
                // One that was removed where reading had been, while another was added where it was not yet.
                if self.entries > 2 * u64::from(map.max_entries) {
                    return Err(damaged(format!("`{}` has more entries than it has room for", map.name())));
                }
                let (keys, values) = rows.split_at(count * key_size);
                Ok(Some(Record::Rows { map: self.at, keys, values }))
            }
            (END, Some(map)) if is_current => {
                let found = self.buffer[4..].split_first_chunk().and_then(|(count, instant)| match instant {
                    [instant @ 0..=1] => Some((u64::from_le_bytes(*count), *instant == 1)),
                    _ => None,
                });
                let Some((entries, instant)) = found.filter(|found| found.0 == self.entries) else {
                    return Err(damaged(format!("entries of `{}` are missing", map.name())));
                };
                let map = self.at;
                (self.at, self.entries) = (self.at + 1, 0);
                Ok(Some(Record::End { map, entries, instant }))
            }
            (DONE, None) if self.buffer.is_empty() => {
                let Some(input) = self.input.take() else { return Ok(None) };
                end(input).map(|()| None)
            }
            _ => Err(damaged("a record is not where it belongs")),
        }
    }
}

fn parse(types: &[u8]) -> Result<Btf, StateError> {
    Btf::parse(types).map_err(|e| damaged(format!("its types: {e}")))
}

/// The first frame: the format's name and version.
fn preamble(input: &mut impl Read) -> Result<(), StateError> {
    const LEN: usize = 8 + NAME.len() + 4;
    let mut first = [0; LEN];
    let mut have = 0;
    while have < LEN {
        match input.read(&mut first[have..]).map_err(failed)? {
            0 => break,
            more => have += more,
        }
    }
    let start = [&SKIPPABLE, &(NAME.len() as u32 + 4).to_le_bytes()[..], &NAME[..]].concat();
    match first.strip_prefix(&start[..]).and_then(|version| version.first_chunk()) {
        Some(version) if have == LEN => match u32::from_le_bytes(*version) {
            STATE_VERSION => Ok(()),
            found => Err(StateError::Version { found, known: STATE_VERSION }),
        },
        // One that is cut within the first frame has lost its meaning all the same.
        _ => Err(StateError::NotState),
    }
}

/// Reads a record into `buffer`, which grows no further than octets follow; what it is about.
fn record(input: &mut impl Read, buffer: &mut Vec<u8>, most: u32) -> Result<[u8; 4], StateError> {
    let mut head = [0; 8];
    input.read_exact(&mut head).map_err(failed)?;
    let (kind, len) = head.split_first_chunk().ok_or_else(|| damaged("a record without a head"))?;
    let len = len.first_chunk().map_or(u32::MAX, |len| u32::from_le_bytes(*len));
    if len > most {
        return Err(damaged(format!("a record of {len} octets")));
    }
    buffer.clear();
    input.take(len.into()).read_to_end(buffer).map_err(failed)?;
    match buffer.len() == len as usize {
        true => Ok(*kind),
        false => Err(damaged("it ends too early")),
    }
}

/// Behind the last record: the end of the frame, the digest, and nothing more.
fn end<R: BufRead>(mut input: Decoder<'static, Hashed<R>>) -> Result<(), StateError> {
    if input.read(&mut [0]).map_err(failed)? != 0 {
        return Err(damaged("there is more behind its last record"));
    }
    let Hashed { mut input, hash } = input.finish();
    let mut last = Vec::new();
    input.by_ref().take(8 + DIGEST as u64 + 1).read_to_end(&mut last).map_err(failed)?;
    let wanted = [&SKIPPABLE, &(DIGEST as u32).to_le_bytes()[..], &hash.finalize()].concat();
    if last.len() < wanted.len() {
        return Err(damaged("it ends too early"));
    }
    match last == wanted {
        true => Ok(()),
        false => Err(damaged("its digest is not that of its octets")),
    }
}

fn failed(error: io::Error) -> StateError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        // What zstd says of its frames.
        io::ErrorKind::Other | io::ErrorKind::InvalidData => damaged(error.to_string()),
        _ => StateError::Unreadable { problem: error.to_string() },
    }
}

/// A reader that takes the digest of what goes through.
struct Hashed<R> {
    input: R,
    hash: Sha256,
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(to)?;
        self.hash.update(&to[..read]);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // Gives what the last call gave, without reading on.
        if let Ok(octets) = self.input.fill_buf() {
            self.hash.update(&octets[..amount.min(octets.len())]);
        }
        self.input.consume(amount);
    }
}
