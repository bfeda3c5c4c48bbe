//! Entries of a saved map made to fit a map that is there: another layout, other sizes, another number of CPUs.
//!
//! Fields go by their names, as in a migration. Nothing is lost that nobody gave up: a field that is gone is told, a value
//! that does not fit is refused, and counts of CPUs that are not there are added to those of others.

use std::io::BufRead;

use crate::map::PER_CPU_ALIGN;
use crate::saved::{SavedMap, StateReader};
use crate::{FieldChange, Half, MapCodec, MapConverter, Misfit, StateError, What};

/// The map that entries are to go into.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Its keys.
    pub key: Half<'a>,
    /// Its values, of one CPU.
    pub value: Half<'a>,
    /// For a per-CPU map, the CPUs that it has values for.
    pub cpus: Option<usize>,
}

/// How entries of a saved map become those of a map that is there.
#[derive(Debug)]
pub struct Refit {
    converter: MapConverter,
    /// Of what the values become.
    codec: MapCodec,
    key_size: usize,
    value_len: usize,
    /// For a per-CPU map: in the file, and here.
    cpus: Option<(usize, usize)>,
    same: bool,
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A value that its new field cannot hold.
    #[error(transparent)]
    Misfit(Box<Misfit>),
    /// The values of all CPUs cannot be here.
    #[error(transparent)]
    Cpus(Box<StateError>),
}

impl Refit {
    /// From `map` of `file` to `target`; `renames` are paths of fields, before and after.
    ///
    /// # Errors
    /// As [`MapConverter::new`] and [`MapCodec::new`].
    pub fn new<R: BufRead>(
        file: &StateReader<R>,
        map: &SavedMap,
        target: &Target<'_>,
        renames: &[(String, String)],
    ) -> Result<Self, StateError> {
        let new = (target.key, target.value);
        let types = file.types(map)?;
        let old = map.halves(types.as_deref());
        let converter = MapConverter::new(target.map_type, old, new, renames, &[])?;
        let (btf, ids) = match (target.key.ty, target.value.ty) {
            (Some((btf, key)), Some((_, value))) => (Some(btf), (Some(key), Some(value))),
            (Some((btf, key)), None) => (Some(btf), (Some(key), None)),
            (None, Some((btf, value))) => (Some(btf), (None, Some(value))),
            (None, None) => (None, (None, None)),
        };
        let codec =
            MapCodec::new(btf, target.map_type, (ids.0, target.key.size), (ids.1, target.value.size))?;
        let cpus = map.cpus.map(|cpus| cpus as usize).zip(target.cpus);
        let same = converter.is_same() && cpus.is_none_or(|(saved, here)| saved == here);
        Ok(Self { converter, codec, key_size: map.key_size as usize, value_len: map.value_len(), cpus, same })
    }

    /// Whether every entry stays as it is, octet for octet.
    pub fn is_same(&self) -> bool {
        self.same
    }

    /// What the target's keys and values mean.
    pub fn codec(&self) -> &MapCodec {
        &self.codec
    }

    /// Whether two entries may become one, because their keys lose what told them apart.
    pub fn merges_keys(&self) -> bool {
        self.converter.merges_keys()
    }

    /// What becomes of the fields.
    pub fn changes(&self) -> impl Iterator<Item = &FieldChange> {
        self.converter.changes()
    }

    /// Fields whose values are dropped.
    pub fn losses(&self) -> impl Iterator<Item = &str> {
        self.changes().filter(|change| change.what == What::Removed).map(|change| change.path.as_str())
    }

    /// Adds entries in the target's layout behind what `keys` and `values` have. With the first that is refused it stops,
    /// with those before it added; the result is its key.
    ///
    /// # Errors
    /// [`Refused`], with the entry's old key.
    pub fn entries(
        &self,
        (old_keys, old_values): (&[u8], &[u8]),
        keys: &mut Vec<u8>,
        values: &mut Vec<u8>,
    ) -> Result<(), (Vec<u8>, Refused)> {
        if self.same {
            keys.extend_from_slice(old_keys);
            values.extend_from_slice(old_values);
            return Ok(());
        }
        let pairs =
            old_keys.chunks_exact(self.key_size.max(1)).zip(old_values.chunks_exact(self.value_len.max(1)));
        for (key, value) in pairs {
            let start = values.len();
            let done = match self.converter.key(key) {
                Ok(new) => self.value(value, values).map(|()| keys.extend(new)),
                Err(misfit) => Err(Refused::Misfit(misfit)),
            };
            if let Err(refused) = done {
                values.truncate(start);
                return Err((key.to_vec(), refused));
            }
        }
        Ok(())
    }

    fn value(&self, old: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let start = out.len();
        self.converter.value_into(old, out).map_err(Refused::Misfit)?;
        let Some((saved, here)) = self.cpus else { return Ok(()) };
        let stride = self.codec.value.size().next_multiple_of(PER_CPU_ALIGN);
        if saved <= here {
            out.resize(start + here * stride, 0);
            return Ok(());
        }
        let more = out.split_off(start + here * stride);
        let size = self.codec.value.size();
        for value in more.chunks_exact(stride.max(1)).filter(|value| value.iter().any(|octet| *octet != 0)) {
            let first = &mut out[start..start + size];
            let Some(sum) = self.codec.value.sum([&*first, &value[..size]]) else {
                return Err(Refused::Cpus(Box::new(StateError::Cpus { saved, here })));
            };
            first.copy_from_slice(&sum);
        }
        Ok(())
    }
}
