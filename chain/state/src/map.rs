//! The codec of a map: its key and its value.

use serde_json::Value as Json;
use xdpchain_compose::btf::{Btf, TypeId};

use crate::codec::Codec;
use crate::columns::{Column, Columns};
use crate::{StateError, Value};

/// The kernel rounds each CPU's value of a per-CPU map up to this many octets.
pub const PER_CPU_ALIGN: usize = 8;

/// `enum bpf_map_type` of maps whose key is an index of 32 bits, whatever BTF says of it.
const ARRAYS: [u32; 11] = [2, 3, 4, 6, 8, 12, 14, 15, 16, 17, 20];
/// `enum bpf_map_type` of maps with a value for each CPU.
const PER_CPU: [u32; 4] = [5, 6, 10, 21];

/// Whether a map of this type (`enum bpf_map_type`) has a value for each CPU.
pub(crate) fn is_per_cpu(map_type: u32) -> bool {
    PER_CPU.contains(&map_type)
}

/// What the keys and values of one map mean.
#[derive(Clone, Debug, PartialEq)]
pub struct MapCodec {
    /// Of keys.
    pub key: Codec,
    /// Of values; of one CPU's value for per-CPU maps.
    pub value: Codec,
    /// Whether there is a value for each CPU.
    pub per_cpu: bool,
}

/// The entries of a map as rows of text. [`Importer`](crate::Importer) takes them again as CSV.
#[derive(Debug)]
pub struct Table<'a> {
    map: &'a MapCodec,
    columns: MapColumns,
}

/// Which half of an entry a name is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

/// The columns of key and value together.
#[derive(Debug)]
pub(crate) struct MapColumns {
    pub(crate) key: Columns,
    pub(crate) value: Columns,
}

impl MapCodec {
    /// The codec of a map of type `map_type` (`enum bpf_map_type`). Without BTF, or without a type for one half, its
    /// octets are hexadecimal, but for the index of an array, which is a number.
    ///
    /// # Errors
    /// When a type cannot be in a map, or has another size than the map.
    pub fn new(
        btf: Option<&Btf>,
        map_type: u32,
        key: (Option<TypeId>, u32),
        value: (Option<TypeId>, u32),
    ) -> Result<Self, StateError> {
        let half = |what, (id, size): (Option<TypeId>, u32)| {
            let size = size as usize;
            let Some((btf, id)) = btf.zip(id.filter(|id| *id != 0)) else {
                return Ok(Codec::opaque(size));
            };
            let codec = Codec::new(btf, id)?;
            if codec.size() != size {
                let name = codec.name().to_owned();
                return Err(StateError::Size { what, name, expected: codec.size(), found: size });
            }
            Ok(codec)
        };
        let key_is_index = ARRAYS.contains(&map_type) && key.0.unwrap_or(0) == 0 && key.1 == 4;
        Ok(Self {
            key: if key_is_index { Codec::index() } else { half("key", key)? },
            value: half("value", value)?,
            per_cpu: is_per_cpu(map_type),
        })
    }

    /// Octets that one CPU's value takes in what the kernel gives and takes: [`Codec::size`], rounded up.
    pub fn stride(&self) -> usize {
        self.value.size().next_multiple_of(PER_CPU_ALIGN)
    }

    /// Each CPU's value, in what the kernel gave for a key of a per-CPU map.
    ///
    /// # Errors
    /// When the length is no multiple of [`MapCodec::stride`].
    pub fn cpus<'a>(&self, octets: &'a [u8]) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, StateError> {
        let (stride, size) = (self.stride(), self.value.size());
        if stride == 0 || !octets.len().is_multiple_of(stride) {
            return Err(StateError::Length {
                expected: octets.len().next_multiple_of(stride.max(1)),
                found: octets.len(),
            });
        }
        Ok(octets.chunks_exact(stride).map(move |cpu| &cpu[..size]))
    }

    /// What the kernel takes for a key of a per-CPU map: each CPU's value, at its stride.
    pub fn join<'a>(&self, cpus: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        for octets in cpus {
            out.extend_from_slice(octets);
            out.resize(out.len().next_multiple_of(PER_CPU_ALIGN), 0);
        }
        out
    }

    /// A value as the kernel gave it: for per-CPU maps, the sum over the CPUs when every field can be added
    /// up, else a list with each CPU's value.
    ///
    /// # Errors
    /// When the octets are not as many as the type has.
    pub fn decode_value(&self, octets: &[u8]) -> Result<Value, StateError> {
        if !self.per_cpu {
            return self.value.decode(octets);
        }
        match self.value.sum(self.cpus(octets)?) {
            Some(sum) => self.value.decode(&sum),
            None => self.decode_cpus(octets),
        }
    }

    /// Each CPU's value as a list.
    ///
    /// # Errors
    /// When the octets are not as many as the type has.
    pub fn decode_cpus(&self, octets: &[u8]) -> Result<Value, StateError> {
        Ok(Value::List(self.cpus(octets)?.map(|octets| self.value.decode(octets)).collect::<Result<_, _>>()?))
    }

    /// The octets of a value as system calls take it. For a per-CPU map of `cpus` CPUs it is a list with each CPU's value, as
    /// [`MapCodec::decode_cpus`] gives it, or one value, which the first CPU gets and the others zeros, so that it is their sum.
    ///
    /// # Errors
    /// As [`Codec::encode_json`].
    pub fn encode_value(&self, json: &Json, cpus: usize) -> Result<Vec<u8>, StateError> {
        if !self.per_cpu {
            return self.value.encode_json(json);
        }
        if let Json::Array(list) = json
            && list.len() == cpus
        {
            let each: Result<Vec<_>, _> = list.iter().map(|json| self.value.encode_json(json)).collect();
            match each {
                Ok(each) => return Ok(self.join(each.iter().map(Vec::as_slice))),
                // A value that is a list itself.
                Err(_) if !self.value.is_scalar() && self.value.encode_json(json).is_ok() => {}
                Err(error) => return Err(error),
            }
        }
        let mut octets = self.value.encode_json(json)?;
        octets.resize(self.stride() * cpus, 0);
        Ok(octets)
    }

    /// An entry as one object with `key` and `value`, a line of JSON lines. A per-CPU value is as in
    /// [`MapCodec::decode_value`].
    ///
    /// # Errors
    /// When the octets are not as many as the types have.
    pub fn entry(&self, key: &[u8], value: &[u8]) -> Result<Json, StateError> {
        let mut object = serde_json::Map::new();
        object.insert("key".to_owned(), self.key.decode(key)?.into());
        object.insert("value".to_owned(), self.decode_value(value)?.into());
        Ok(Json::Object(object))
    }

    /// The entries as rows of a table.
    ///
    /// # Errors
    /// When there are more fields than a table can have.
    pub fn table(&self) -> Result<Table<'_>, StateError> {
        Ok(Table { map: self, columns: self.columns()? })
    }

    pub(crate) fn columns(&self) -> Result<MapColumns, StateError> {
        Ok(MapColumns { key: Columns::new(self.key.node())?, value: Columns::new(self.value.node())? })
    }
}

impl Table<'_> {
    /// Names of the columns: dotted paths of the fields, with `key.` or `value.` in front where it is needed.
    pub fn header(&self) -> Vec<String> {
        self.columns.names()
    }

    /// The cells of an entry, in the order of [`Table::header`]. A per-CPU value has to be summed up, or one CPU's.
    ///
    /// # Errors
    /// When the octets are not as many as the types have.
    pub fn cells(&self, key: &[u8], value: &[u8]) -> Result<Vec<String>, StateError> {
        for (codec, octets) in [(&self.map.key, key), (&self.map.value, value)] {
            if codec.size() != octets.len() {
                return Err(StateError::Length { expected: codec.size(), found: octets.len() });
            }
        }
        let key = self.columns.key.shown().map(|c| c.print(key));
        let value = self.columns.value.shown().map(|c| c.print(value));
        Ok(key.chain(value).collect())
    }
}

impl MapColumns {
    fn of(&self, side: Side) -> &Columns {
        match side {
            Side::Key => &self.key,
            Side::Value => &self.value,
        }
    }

    /// The columns that `name` can mean, best first: with a prefix one of that half, `key`, `index` and `value` a
    /// half that is one scalar, else whatever has that path.
    pub(crate) fn find(&self, name: &str) -> Result<(Side, &Column), StateError> {
        let (key, value) = (self.key.find(name), self.value.find(name));
        let (key, value) = match name {
            // A key or value that is a scalar is called so before any field is.
            "key" if self.key.find("").is_some() => (self.key.find(""), None),
            "value" if self.value.find("").is_some() => (None, self.value.find("")),
            "index" if key.is_none() && value.is_none() => (self.key.find(""), None),
            "" => (None, None),
            _ => (key, value),
        };
        match (key, value) {
            (Some(column), None) => return Ok((Side::Key, column)),
            (None, Some(column)) => return Ok((Side::Value, column)),
            (Some(_), Some(_)) => return Err(StateError::Ambiguous { field: name.to_owned() }),
            (None, None) => {}
        }
        let prefixed = |prefix: &str, side| {
            let path = name.strip_prefix(prefix)?.strip_prefix('.').filter(|path| !path.is_empty())?;
            Some((side, self.of(side).find(path)?))
        };
        prefixed("key", Side::Key)
            .or_else(|| prefixed("value", Side::Value))
            .ok_or_else(|| StateError::Unknown { field: name.to_owned(), known: self.names() })
    }

    /// Every name that a header may have, in its shortest form.
    pub(crate) fn names(&self) -> Vec<String> {
        let key = self.key.shown().map(|c| self.shortest(Side::Key, c));
        key.chain(self.value.shown().map(|c| self.shortest(Side::Value, c))).collect()
    }

    /// The name of a column: its path alone where that says which half is meant.
    pub(crate) fn shortest(&self, side: Side, column: &Column) -> String {
        let prefix = match side {
            Side::Key => "key",
            Side::Value => "value",
        };
        if column.path.is_empty() {
            return prefix.to_owned();
        }
        match self.find(&column.path) {
            Ok((found, same)) if found == side && same == column => column.path.clone(),
            _ => format!("{prefix}.{}", column.path),
        }
    }
}
