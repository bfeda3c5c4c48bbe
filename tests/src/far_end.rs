//! The far ends of the links: XDP programs (`bpf/far_end.c`) that check and count numbered packets.

use std::cell::RefCell;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::Netns;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/far_end.o"));

/// What is wrong with a packet, in the order of the program's counters.
const WRONG: [&str; 8] = [
    "outer header",
    "tunnel",
    "inner header",
    "inner address",
    "TTL",
    "inner checksum",
    "number beyond the count",
    "customer",
];
const FIRST_WRONG: u32 = 3;

/// Which end a program plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes GRE, and answers each packet through the tunnel that it came from.
    Cloud,
    /// Takes GTP-U.
    Ran,
}

/// A counting program on one interface; dropping it takes it off.
pub struct FarEnd {
    ebpf: Ebpf,
    samples: RefCell<RingBuf<MapData>>,
}

impl FarEnd {
    /// Attaches the program for `role`, for packets numbered below `numbers`.
    pub fn attach(ns: &Netns, interface: &str, role: Role, numbers: u32) -> Self {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("seen", numbers)
            .load(OBJECT)
            .expect("the kernel takes the far end's maps");
        let name = match role {
            Role::Cloud => "cloud",
            Role::Ran => "ran",
        };
        let program: &mut Xdp =
            ebpf.program_mut(name).expect("it is in the object").try_into().expect("it is an XDP program");
        program.load().expect("the kernel takes the far end's program");
        ns.run(|| program.attach(interface, XdpMode::Driver)).expect("a veth takes native programs");
        let samples = ebpf.take_map("samples").expect("it is in the object");
        let samples = RefCell::new(RingBuf::try_from(samples).expect("it is a ring buffer"));
        Self { ebpf, samples }
    }

    fn counters(&self) -> Array<&MapData, u64> {
        Array::try_from(self.ebpf.map("counters").expect("it is in the object")).expect("it is an array")
    }

    fn counter(&self, index: u32) -> u64 {
        self.counters().get(&index, 0).expect("the index is within the array")
    }

    /// Packets that arrived and are as they should be.
    pub fn right(&self) -> u64 {
        self.counter(0)
    }

    /// Packets that the cloud sent back.
    pub fn answered(&self) -> u64 {
        self.counter(1)
    }

    /// Packets of ours that are not as they should be: how many, by what is wrong.
    pub fn wrong(&self) -> Vec<(&'static str, u64)> {
        let counts = WRONG.iter().enumerate().map(|(i, what)| (*what, self.counter(FIRST_WRONG + i as u32)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Goes through numbers 0 to `sent - 1`: how many never arrived, and how many arrived more than once.
    pub fn account(&self, sent: u32) -> Account {
        let map = self.ebpf.map("seen").expect("it is in the object");
        let seen: Array<&MapData, u32> = Array::try_from(map).expect("it is an array");
        let mut account = Account::default();
        for number in 0..sent {
            match seen.get(&number, 0).expect("the number is within the array") {
                0 => {
                    account.lost += 1;
                    account.first_lost.get_or_insert(number);
                }
                1 => {}
                _ => account.duplicated += 1,
            }
        }
        account
    }

    /// Copies of some of the packets that arrived since the last call, whole frames.
    pub fn samples(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut samples = self.samples.borrow_mut();
        while let Some(item) = samples.next() {
            let (length, octets) = item.split_first_chunk::<4>().expect("a sample begins with its length");
            frames.push(octets[..u32::from_ne_bytes(*length) as usize].to_vec());
        }
        frames
    }
}

/// What became of the packets that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Numbers that never arrived.
    pub lost: u32,
    /// Numbers that arrived more than once.
    pub duplicated: u32,
    /// The lowest number that never arrived.
    pub first_lost: Option<u32>,
}
