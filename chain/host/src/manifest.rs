//! A generation of a chain on an interface, as it is kept: enough to compose and load it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xdpchain_compose::MapOwner;
use xdpchain_spec::{ChainSpec, Engine, ModuleSpec, plan};

use crate::adopt::Adopted;
use crate::exits::Carried;
use crate::libxdp::ComponentRecord;

/// The version of the manifest's format.
pub(crate) const VERSION: u32 = 1;

/// The SHA-256 of an object's octets, its name in the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The id of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits, for people and for names.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no object id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256 in hexadecimal")]
pub struct BadObjectId(String);

impl FromStr for ObjectId {
    type Err = BadObjectId;

    fn from_str(text: &str) -> Result<Self, BadObjectId> {
        let bad = || BadObjectId(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut id = [0; 32];
        for (octet, at) in id.iter_mut().zip((0..64).step_by(2)) {
            *octet = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(id))
    }
}

impl Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Objects by their id.
#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<ObjectId, Arc<[u8]>>);

impl Objects {
    /// Adds an object; its id.
    pub fn insert(&mut self, bytes: impl Into<Arc<[u8]>>) -> ObjectId {
        let bytes = bytes.into();
        let id = ObjectId::of(&bytes);
        self.0.insert(id, bytes);
        id
    }

    /// The octets of an object.
    pub fn bytes(&self, id: ObjectId) -> Option<&[u8]> {
        self.0.get(&id).map(AsRef::as_ref)
    }

    /// Every object.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &[u8])> {
        self.0.iter().map(|(id, bytes)| (*id, bytes.as_ref()))
    }
}

/// A module as a chain uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleState {
    /// What chains.yaml, or the command, says of it.
    pub spec: ModuleSpec,
    /// The object that it is made of, whatever its path has become since.
    pub object: ObjectId,
}

/// What a chain is to be: everything that composition reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainState {
    /// The chain, with its slots in order.
    pub chain: ChainSpec,
    /// The modules that the slots name, and those that their imports lead to, by name.
    pub modules: BTreeMap<String, ModuleState>,
    /// Row of the exit counters for each slot, by the slot's name. Given out by [`Host`](crate::Host): as long as the
    /// slots and their order stay, so do the rows.
    #[serde(default)]
    pub rows: BTreeMap<String, u32>,
}

impl ChainState {
    /// What a plan is made between.
    pub fn planned(&self) -> plan::State {
        let build = |module: &ModuleState| plan::ModuleBuild {
            spec: module.spec.clone(),
            sha256: module.object.to_string(),
        };
        let modules = self.modules.iter().map(|(name, module)| (name.clone(), build(module))).collect();
        plan::State::new(&self.chain, modules)
    }

    /// Gives each slot a row: those of `before` when the slots and their order are the same, else the lowest that
    /// `before` does not count in. Whether they are other rows than before.
    pub(crate) fn assign_rows(&mut self, before: Option<&Self>) -> bool {
        let order = |state: &Self| -> Vec<_> {
            state.chain.slots.iter().map(|slot| (slot.name.clone(), slot.at)).collect()
        };
        if let Some(before) = before.filter(|before| order(before) == order(self)) {
            self.rows.clone_from(&before.rows);
            return false;
        }
        let taken: BTreeSet<u32> =
            before.map(|before| before.rows.values().copied().collect()).unwrap_or_default();
        let free = (0..).filter(|row| !taken.contains(row));
        self.rows = self.chain.slots.iter().map(|slot| slot.name.clone()).zip(free).collect();
        true
    }
}

/// Where in the receive path a chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has made an skb.
    Generic,
}

impl AttachMode {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A program of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The kernel's digest of its instructions, hexadecimal.
    pub tag: String,
    /// Digest of all that makes it, the maps by name, so that a change that leaves it as it is can leave it alone.
    #[serde(default)]
    pub code: String,
    /// The entry of the chain's program array that holds it; none for the program that the link runs, and for those
    /// that a module calls itself.
    #[serde(default)]
    pub entry: Option<u32>,
}

/// A map that a generation uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRecord {
    /// The module that owns it; none for the chain itself.
    pub module: Option<String>,
    /// Its name in the object.
    pub name: String,
    /// The kernel's number of it.
    pub id: u32,
    /// For a map that each generation has of its own, the generation that it was made for.
    #[serde(default)]
    pub generation: Option<u64>,
}

impl MapRecord {
    /// The name of its pin: no two generations have the same map of this kind.
    pub(crate) fn pin(&self) -> String {
        match self.generation {
            Some(generation) => format!("{}.{generation}", self.name),
            None => self.name.clone(),
        }
    }

    /// The map's owner.
    pub fn owner(&self) -> MapOwner {
        self.module.clone().map_or(MapOwner::Chain, MapOwner::Module)
    }
}

/// One committed state of a chain on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format, 1.
    pub version: u32,
    /// Its number, from 1.
    pub generation: u64,
    /// When it was made, seconds since 1970.
    pub time: u64,
    /// Name of the interface.
    pub ifname: String,
    /// Number of the interface.
    pub ifindex: u32,
    /// Inode number of the network namespace.
    pub netns: u64,
    /// The network namespace's cookie, see [`Netns`](crate::Netns).
    pub netns_cookie: Option<u64>,
    /// Where it runs.
    pub mode: AttachMode,
    /// Why not in native mode.
    pub mode_reason: Option<String>,
    /// How the chain became a program.
    pub engine: Engine,
    /// Why not by the engine before it.
    pub engine_reason: Option<String>,
    /// The program that the link runs.
    pub program: ProgramRecord,
    /// The other programs, when the chain is made of several.
    #[serde(default)]
    pub others: Vec<ProgramRecord>,
    /// For a chain of libxdp's: its programs as the dispatcher knows them, which may have been taken from [`program`] to
    /// another dispatcher since.
    ///
    /// [`program`]: Self::program
    #[serde(default)]
    pub components: Vec<ComponentRecord>,
    /// The maps.
    pub maps: Vec<MapRecord>,
    /// What was asked for.
    pub state: ChainState,
    /// What was counted before the slots were as they are.
    #[serde(default)]
    pub carried: Carried,
    /// The program of somebody else that was on the interface, and is put back when the chain goes.
    #[serde(default)]
    pub adopted: Option<Adopted>,
    /// What was asked for when it was made, in words.
    #[serde(default)]
    pub cause: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use xdpchain_spec::{ObjectRef, SlotSpec, Verdict, VerdictSet};

    use super::*;

    pub(crate) fn state(slots: &[&str]) -> ChainState {
        let mut modules = BTreeMap::new();
        for slot in slots {
            let spec = ModuleSpec::new(ObjectRef::Builtin((*slot).to_owned()));
            modules.insert((*slot).to_owned(), ModuleState { spec, object: ObjectId::of(slot.as_bytes()) });
        }
        ChainState {
            chain: ChainSpec {
                interfaces: vec!["eth1".into()],
                ..ChainSpec::new("edge", slots.iter().map(|name| SlotSpec::new(*name)).collect())
            },
            modules,
            rows: BTreeMap::new(),
        }
    }

    pub(crate) fn manifest(generation: u64, slots: &[&str]) -> Manifest {
        Manifest {
            version: VERSION,
            generation,
            time: 1_700_000_000,
            ifname: "eth1".into(),
            ifindex: 3,
            netns: 4_026_531_840,
            netns_cookie: Some(1),
            mode: AttachMode::Generic,
            mode_reason: Some("no native XDP".into()),
            engine: Engine::Fused,
            engine_reason: None,
            program: ProgramRecord {
                id: 7,
                name: "edge".into(),
                tag: "00".into(),
                code: "01".into(),
                entry: None,
            },
            others: Vec::new(),
            components: Vec::new(),
            maps: vec![MapRecord {
                module: Some("acl".into()),
                name: ".bss.1".into(),
                id: 9,
                generation: None,
            }],
            state: state(slots),
            carried: Carried::default(),
            adopted: None,
            cause: "attach".into(),
        }
    }

    #[test]
    fn a_manifest_survives_json() {
        let mut wanted = manifest(4, &["acl", "stats"]);
        wanted.state.assign_rows(None);
        wanted.state.chain.slots[0].proceed_on = Some(VerdictSet::only(Verdict::Tx));
        wanted.state.modules.get_mut("acl").expect("made above").spec.object =
            ObjectRef::File("./acl.o".into());
        let text = serde_json::to_string_pretty(&wanted).expect("a manifest is JSON");
        let read: Manifest = serde_json::from_str(&text).expect("what was written is read");
        assert_eq!(read, wanted);
    }

    #[test]
    fn an_order_of_slots_has_rows_of_its_own() {
        let mut first = state(&["a", "b", "c"]);
        assert!(first.assign_rows(None));
        assert_eq!(first.rows.values().copied().collect::<Vec<_>>(), [0, 1, 2]);

        let mut same = state(&["a", "b", "c"]);
        same.chain.slots[1].observer = true;
        assert!(!same.assign_rows(Some(&first)));
        assert_eq!(same.rows, first.rows);

        let mut second = state(&["c", "d", "a"]);
        assert!(second.assign_rows(Some(&first)));
        let rows = |state: &ChainState| ["c", "d", "a"].map(|slot| state.rows[slot]);
        assert_eq!(rows(&second), [3, 4, 5], "the first rows are in use until the swap");

        let mut third = state(&["a", "c", "d"]);
        assert!(third.assign_rows(Some(&second)), "what came to a slot depends on the order");
        assert_eq!(rows(&third), [1, 2, 0]);
    }

    #[test]
    fn an_object_id_is_the_hexadecimal_digest() {
        let id = ObjectId::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        for bad in ["", "e3", &text.to_uppercase(), &format!("{}é", &text[..62])] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }
}
