//! The third-party examples, each alone: they do what they say, so that a chain with one in it can be judged.
#![forbid(unsafe_code)]

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use xdpchain_tests::cli::objects;
use xdpchain_wire::{checksum::Sum, ipv4};

/// Verdicts, as the kernel numbers them.
const DROP: u32 = 1;
const PASS: u32 = 2;

const UDP: u8 = 17;
const TCP: u8 = 6;

fn load(loader: &mut EbpfLoader<'_>, example: &str, program: &str) -> Ebpf {
    let object = objects().join(format!("{example}.o"));
    let mut ebpf = loader
        .load_file(&object)
        .unwrap_or_else(|e| panic!("`{}`: {e}\nhelp: cargo xtask build", object.display()));
    let program: &mut Xdp = ebpf.program_mut(program).unwrap().try_into().unwrap();
    program.load().unwrap();
    ebpf
}

fn send(ebpf: &mut Ebpf, program: &str, frame: &[u8]) -> (u32, Vec<u8>) {
    let program: &mut Xdp = ebpf.program_mut(program).unwrap().try_into().unwrap();
    let mut output = vec![0; 4096];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap();
    output.truncate(result.data_size_out as usize);
    (result.return_value, output)
}

/// An IPv4 packet of `protocol` from 192.0.2.`host` to destination port `port`.
fn frame(host: u8, protocol: u8, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0x03, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, host, 198, 51, 100, 1]);
    let sum = Sum::new().slice(&frame[14..]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x9c, 0x40]);
    frame.extend(port.to_be_bytes());
    frame.extend([0; 16]);
    frame
}

#[test]
fn pktcount_counts_by_protocol_and_lets_everything_pass() {
    let mut ebpf = load(&mut EbpfLoader::new(), "pktcount", "pktcount");
    for protocol in [UDP, TCP, UDP] {
        assert_eq!(send(&mut ebpf, "pktcount", &frame(1, protocol, 7)).0, PASS);
    }
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(send(&mut ebpf, "pktcount", &arp), (PASS, arp));
    let counts: PerCpuArray<_, [u64; 2]> = ebpf.map("counts").unwrap().try_into().unwrap();
    let count = |index| {
        let values = counts.get(&index, 0).unwrap();
        values.iter().fold([0, 0], |sum, value| [sum[0] + value[0], sum[1] + value[1]])
    };
    assert_eq!(count(UDP as u32), [2, 2 * 54]);
    assert_eq!(count(TCP as u32), [1, 54]);
    assert_eq!(count(256), [1, 60]);
}

#[test]
fn ratelimit_drops_what_a_source_sends_beyond_its_burst() {
    let mut loader = EbpfLoader::new();
    // So slow that the time that the test takes earns nothing.
    loader.override_global("rate", &1u64, true).override_global("burst", &5u64, true);
    let mut ebpf = load(&mut loader, "ratelimit", "xdp_ratelimit");
    let verdicts: Vec<u32> = (0..8).map(|_| send(&mut ebpf, "xdp_ratelimit", &frame(1, UDP, 7)).0).collect();
    assert_eq!(verdicts, [PASS, PASS, PASS, PASS, PASS, DROP, DROP, DROP]);
    assert_eq!(send(&mut ebpf, "xdp_ratelimit", &frame(2, UDP, 7)).0, PASS);
}

#[test]
fn portfilter_drops_listed_ports_only_and_only_of_udp() {
    let mut ebpf = load(&mut EbpfLoader::new(), "portfilter", "portfilter");
    let mut blocked: HashMap<_, u16, u64> = ebpf.map_mut("blocked").unwrap().try_into().unwrap();
    blocked.insert(53, 0, 0).unwrap();
    assert_eq!(send(&mut ebpf, "portfilter", &frame(1, UDP, 53)).0, DROP);
    assert_eq!(send(&mut ebpf, "portfilter", &frame(1, UDP, 54)).0, PASS);
    assert_eq!(send(&mut ebpf, "portfilter", &frame(1, TCP, 53)).0, PASS);
    let mut later_fragment = frame(1, UDP, 53);
    later_fragment[21] = 8;
    assert_eq!(send(&mut ebpf, "portfilter", &later_fragment).0, PASS);
    let blocked: HashMap<_, u16, u64> = ebpf.map("blocked").unwrap().try_into().unwrap();
    assert_eq!(blocked.get(&53, 0).unwrap(), 1);
}

#[test]
fn dscp_marks_by_protocol_and_keeps_ecn_and_a_right_checksum() {
    let mut ebpf = load(&mut EbpfLoader::new(), "rust-dscp", "dscp");
    let mut marks: HashMap<_, u8, u8> = ebpf.map_mut("DSCP").unwrap().try_into().unwrap();
    marks.insert(UDP, 46, 0).unwrap();
    let (verdict, marked) = send(&mut ebpf, "dscp", &frame(1, UDP, 7));
    let header = ipv4::View(marked[14..34].try_into().unwrap());
    assert_eq!((verdict, header.tos(), header.checksum_is_right()), (PASS, 46 << 2 | 3, true));
    assert_eq!(send(&mut ebpf, "dscp", &frame(1, TCP, 7)), (PASS, frame(1, TCP, 7)));
}
