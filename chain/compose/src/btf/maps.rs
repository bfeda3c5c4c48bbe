//! Map definitions in the variables of section `.maps`.
//!
//! A definition is a struct that no program ever reads: `type`, `max_entries` and the like are pointers to
//! arrays with as many elements as the number, `key` and `value` are pointers to the types
//! (libbpf's `__uint` and `__type`). aya-ebpf's `btf_maps` write the same.

use super::types::{Composite, Name, Type};
use super::{Btf, BtfError, MAX_DEPTH, TypeId};

/// Name of the section with map definitions.
pub const MAPS_SECTION: &str = ".maps";

/// A map as BTF defines it. Numbers that the definition leaves out are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BtfMapDef {
    /// Name of the variable, which is also that of the symbol that instructions refer to.
    pub name: Name,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Octets.
    pub key_size: u32,
    /// Octets.
    pub value_size: u32,
    /// Entries, or octets for a ring buffer.
    pub max_entries: u32,
    /// `BPF_F_*` creation flags.
    pub flags: u32,
    /// Meaning depends on the map type.
    pub map_extra: u64,
    /// `LIBBPF_PIN_*`: 0 none, 1 by name.
    pub pinning: u32,
    /// NUMA node, when `flags` has `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// Type of the key, when it is given as a type rather than a size.
    pub key_type: Option<TypeId>,
    /// Type of the value, when it is given as a type rather than a size.
    pub value_type: Option<TypeId>,
    /// For maps of maps: the definition of the maps inside.
    pub inner: Option<Box<BtfMapDef>>,
    /// Octets from the start of the definition to member `values`, pointers to what the map holds from the start.
    pub values_offset: Option<u32>,
}

/// Whether the kernel takes types of keys and values for a map of this type (`map_check_btf` refuses
/// them for maps of kernel objects).
pub fn kernel_takes_types(map_type: u32) -> bool {
    // prog, perf event, stack trace and cgroup arrays; maps of maps; devmap, sockmap, cpumap, xskmap, sockhash,
    // reuseport array, queue, stack, devmap hash, ring buffers, bloom filter, arena.
    !matches!(map_type, 3 | 4 | 7 | 8 | 12..=18 | 20 | 22 | 23 | 25 | 27 | 30 | 31 | 33)
}

/// A map type's name, as bpftool has it.
pub fn map_type_name(map_type: u32) -> String {
    const NAMES: [&str; 34] = [
        "unspec",
        "hash",
        "array",
        "prog_array",
        "perf_event_array",
        "percpu_hash",
        "percpu_array",
        "stack_trace",
        "cgroup_array",
        "lru_hash",
        "lru_percpu_hash",
        "lpm_trie",
        "array_of_maps",
        "hash_of_maps",
        "devmap",
        "sockmap",
        "cpumap",
        "xskmap",
        "sockhash",
        "cgroup_storage",
        "reuseport_sockarray",
        "percpu_cgroup_storage",
        "queue",
        "stack",
        "sk_storage",
        "devmap_hash",
        "struct_ops",
        "ringbuf",
        "inode_storage",
        "task_storage",
        "bloom_filter",
        "user_ringbuf",
        "cgrp_storage",
        "arena",
    ];
    NAMES.get(map_type as usize).map_or_else(|| format!("type {map_type}"), |name| (*name).to_owned())
}

impl Btf {
    /// Every map that section `.maps` defines, in the order of the section.
    ///
    /// # Errors
    /// [`BtfError::Map`], with the map and the member that cannot be understood.
    pub fn map_defs(&self) -> Result<Vec<BtfMapDef>, BtfError> {
        let mut defs = Vec::new();
        for (_, ty) in self.iter() {
            let Type::DataSec { name, vars, .. } = ty else { continue };
            if &**name != MAPS_SECTION {
                continue;
            }
            for var in vars {
                let Some(Type::Var { name, ty, .. }) = self.get(var.ty) else {
                    return Err(BtfError::Map {
                        map: format!("type {}", var.ty),
                        member: String::new(),
                        problem: "an entry of `.maps` is no variable".to_owned(),
                    });
                };
                defs.push(MapReader { btf: self, map: name }.read(*ty, false)?);
            }
        }
        Ok(defs)
    }
}

struct MapReader<'a> {
    btf: &'a Btf,
    map: &'a Name,
}

impl<'a> MapReader<'a> {
    fn error<T>(&self, member: &str, problem: impl Into<String>) -> Result<T, BtfError> {
        Err(BtfError::Map { map: self.map.to_string(), member: member.to_owned(), problem: problem.into() })
    }

    /// The struct with the definition. Wrappers with one field, as a Rust cell is one, are looked through.
    fn definition(&self, mut id: TypeId) -> Result<&'a Composite, BtfError> {
        for _ in 0..MAX_DEPTH {
            let Some(Type::Struct(c)) = self.btf.resolved(id) else { break };
            match &*c.members {
                [only] if &*only.name != "type" => id = only.ty,
                _ => return Ok(c),
            }
        }
        let found = self.btf.resolved(id).map_or("void", |ty| ty.kind().name());
        self.error("", format!("the variable must be a struct, found {found}"))
    }

    fn read(&self, id: TypeId, inner: bool) -> Result<BtfMapDef, BtfError> {
        let definition = self.definition(id)?;
        let mut def = BtfMapDef { name: self.map.clone(), ..BtfMapDef::default() };
        for member in &definition.members {
            let name = &*member.name;
            match name {
                "type" => def.map_type = self.number(name, member.ty)?,
                "max_entries" => def.max_entries = self.number(name, member.ty)?,
                "map_flags" => def.flags = self.number(name, member.ty)?,
                "numa_node" => def.numa_node = self.number(name, member.ty)?,
                "map_extra" => def.map_extra = self.wide_number(name, member.ty)?,
                "pinning" => {
                    if inner {
                        return self.error(name, "a map inside a map cannot be pinned");
                    }
                    def.pinning = self.number(name, member.ty)?;
                    if def.pinning > 1 {
                        return self.error(name, format!("expected 0 or 1, found {}", def.pinning));
                    }
                }
                "key_size" => self.size(name, &mut def.key_size, self.number(name, member.ty)?)?,
                "value_size" => self.size(name, &mut def.value_size, self.number(name, member.ty)?)?,
                "key" => {
                    let (ty, size) = self.pointee(name, member.ty)?;
                    self.size(name, &mut def.key_size, size)?;
                    def.key_type = Some(ty);
                }
                "value" => {
                    let (ty, size) = self.pointee(name, member.ty)?;
                    self.size(name, &mut def.value_size, size)?;
                    def.value_type = Some(ty);
                }
                "values" => {
                    if inner {
                        return self.error(name, "maps can be nested once only");
                    }
                    self.size(name, &mut def.value_size, 4)?;
                    def.inner = self.values(name, member.ty)?;
                    def.values_offset = Some(member.bit_offset / 8);
                }
                other => return self.error(other, "no loader knows this member"),
            }
        }
        if def.map_type == 0 {
            return self.error("type", "missing");
        }
        Ok(def)
    }

    /// Sets a size that may be given twice, as a number and by a type, when both agree.
    fn size(&self, member: &str, slot: &mut u32, size: u32) -> Result<(), BtfError> {
        if *slot != 0 && *slot != size {
            return self.error(member, format!("{size} octets, but {slot} were given before"));
        }
        *slot = size;
        Ok(())
    }

    fn number(&self, member: &str, id: TypeId) -> Result<u32, BtfError> {
        let wide = self.wide_number(member, id)?;
        u32::try_from(wide)
            .or_else(|_| self.error(member, format!("expected at most {}, found {wide}", u32::MAX)))
    }

    /// The number of elements of the array pointed to (`__uint`), or the only value of an enumeration (`__ulong`).
    fn wide_number(&self, member: &str, id: TypeId) -> Result<u64, BtfError> {
        match self.btf.resolved(id) {
            Some(Type::Ptr { to }) => match self.btf.resolved(*to) {
                Some(Type::Array { count, .. }) => Ok(u64::from(*count)),
                other => self.unexpected(member, "a pointer to an array", other),
            },
            Some(Type::Enum(e) | Type::Enum64(e)) if e.values.len() == 1 => Ok(e.values[0].value as u64),
            other => self.unexpected(member, "a pointer to an array", other),
        }
    }

    fn pointee(&self, member: &str, id: TypeId) -> Result<(TypeId, u32), BtfError> {
        let Some(Type::Ptr { to }) = self.btf.resolved(id) else {
            return self.unexpected(member, "a pointer", self.btf.resolved(id));
        };
        match self.btf.size_of(*to) {
            Some(size) => Ok((*to, size)),
            None => self.error(member, "the type pointed to has no size"),
        }
    }

    /// `values`: an array of pointers, to a map definition, or to functions for a program array.
    fn values(&self, member: &str, id: TypeId) -> Result<Option<Box<BtfMapDef>>, BtfError> {
        let Some(Type::Array { element, .. }) = self.btf.resolved(id) else {
            return self.unexpected(member, "an array of pointers", self.btf.resolved(id));
        };
        let Some(Type::Ptr { to }) = self.btf.resolved(*element) else {
            return self.unexpected(member, "an array of pointers", self.btf.resolved(*element));
        };
        match self.btf.resolved(*to) {
            Some(Type::FuncProto { .. }) => Ok(None),
            Some(Type::Struct(_)) => self.read(*to, true).map(|def| Some(Box::new(def))),
            other => self.unexpected(member, "pointers to a map definition or to functions", other),
        }
    }

    fn unexpected<T>(&self, member: &str, expected: &str, found: Option<&Type>) -> Result<T, BtfError> {
        let found = found.map_or("void", |ty| ty.kind().name());
        self.error(member, format!("expected {expected}, found {found}"))
    }
}
