//! Maps by the host crate: many entries, values of each CPU, constants.

use std::os::fd::AsFd;

use xdpchain_compose::{MapOwner, MapUse, Relocation, Target};
use xdpchain_host::load::load;
use xdpchain_host::sys::{self, TestRun};
use xdpchain_host::{Entries, Map};

use crate::made::*;

#[test]
fn many_entries_are_written_read_and_removed() {
    for map_type in [1, 9, 11] {
        let (key_size, flags) = if map_type == 11 { (8, 1) } else { (4, 0) };
        let mut def = array("entries", 8, 200_000);
        (def.map_type, def.key_size, def.flags) = (map_type, key_size, flags);
        let used = MapUse { owner: MapOwner::Chain, def };
        let loaded =
            load(&image("maps", returning(PASS), vec![used], vec![]), &mut |_| Ok(None)).expect("loads");
        let map = loaded.maps.into_iter().next().expect("one");
        let map = Map::from_fd(map.fd, "entries").expect("a map");
        let count = 100_000u32;
        let key = |n: u32| {
            let mut key = if map_type == 11 { 32u32.to_ne_bytes().to_vec() } else { Vec::new() };
            key.extend(n.to_be_bytes());
            key
        };
        let mut entries = Entries::default();
        for n in 0..count {
            entries.keys.extend(key(n));
            entries.values.extend(u64::from(n).to_ne_bytes());
        }
        map.update_all(&entries).expect("written");
        let mut sum = 0;
        let mut seen = 0;
        for batch in map.entries() {
            let batch = batch.expect("readable");
            seen += batch.keys.len() / key_size as usize;
            sum += batch.values.chunks(8).map(|v| u64::from_ne_bytes(v.try_into().expect("8"))).sum::<u64>();
        }
        assert_eq!(
            (seen, sum),
            (count as usize, u64::from(count) * u64::from(count - 1) / 2),
            "type {map_type}"
        );
        // One that is there, one that is not, one that is there.
        let some: Vec<u8> = [key(5), key(count + 5), key(7)].concat();
        map.delete_all(&some).expect("removed");
        assert_eq!(map.lookup(&key(5)).expect("readable"), None);
        assert_eq!(map.lookup(&key(7)).expect("readable"), None);
        assert!(map.lookup(&key(6)).expect("readable").is_some());
        assert!(map.lookup(&[0; 3]).is_err(), "a key of the wrong size");
        assert!(map.memory().expect("readable") > 0);
    }
}

#[test]
fn values_of_all_cpus_are_carried() {
    let mut def = array("percpu", 4, 3);
    def.map_type = 6;
    let used = MapUse { owner: MapOwner::Chain, def };
    let loaded = load(&image("maps", returning(PASS), vec![used], vec![]), &mut |_| Ok(None)).expect("loads");
    let map = Map::from_fd(loaded.maps.into_iter().next().expect("one").fd, "percpu").expect("a map");
    let cpus = map.per_cpu().expect("a per-CPU map");
    assert_eq!(map.value_len(), 8 * cpus);
    let value: Vec<u8> = (0..cpus as u64).flat_map(|cpu| (cpu + 1).to_ne_bytes()).collect();
    map.update(&1u32.to_ne_bytes(), &value).expect("written");
    assert_eq!(map.lookup(&1u32.to_ne_bytes()).expect("readable"), Some(value));
    let all: Vec<Entries> = map.entries().collect::<Result<_, _>>().expect("readable");
    assert_eq!(all.iter().map(|e| e.keys.len()).sum::<usize>(), 3 * 4);
    assert_eq!(all.iter().map(|e| e.values.len()).sum::<usize>(), 3 * 8 * cpus);
}

#[test]
fn constants_are_filled_frozen_and_read_by_the_program() {
    // r1 = &rodata[4]; r0 = *(u32 *)r1; exit
    let insns =
        vec![insn(0x18, 1, 0, 0, 0), insn(0, 0, 0, 0, 0), insn(0x61, 0, 1, 0, 0), insn(0x95, 0, 0, 0, 0)];
    let mut def = array(".rodata.1", 8, 1);
    def.flags = 0x80;
    def.initial = Some(xdpchain_compose::InitialData { bytes: vec![9, 0, 0, 0, 1], frozen: true });
    let used = MapUse { owner: MapOwner::Module("counter".into()), def };
    let relocation = Relocation { insn: 0, target: Target::Value { map: 0, offset: 4 } };
    let loaded =
        load(&image("constants", insns, vec![used], vec![relocation]), &mut |_| Ok(None)).expect("loads");
    let run = TestRun { packet: &[0; 64], ..TestRun::default() };
    let result = sys::prog_test_run(loaded.program.as_fd(), &run).expect("runs");
    assert_eq!((result.verdict, result.packet.len()), (1, 64));
    let map = Map::from_fd(loaded.maps.into_iter().next().expect("one").fd, "rodata").expect("a map");
    assert!(map.update(&[0; 4], &[0; 8]).is_err(), "frozen");
}
