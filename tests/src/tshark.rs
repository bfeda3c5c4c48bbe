//! tshark, a judge of frames that nobody here wrote.

use std::io::Write as _;
use std::process::Command;

use tempfile::NamedTempFile;

/// The fields by which tshark says that something is wrong with a frame: malformed, and how each checksum is.
pub const FAULTS: [&str; 6] = [
    "_ws.malformed",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];

/// Frames as a capture file.
fn pcap(frames: &[Vec<u8>]) -> NamedTempFile {
    // Magic, version 2.4, no time zone, no accuracy, longest frame, Ethernet.
    let mut octets: Vec<u8> =
        [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1].into_iter().flat_map(u32::to_le_bytes).collect();
    for frame in frames {
        let len = frame.len() as u32;
        octets.extend([0, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        octets.extend(frame);
    }
    let mut file = tempfile::Builder::new().suffix(".pcap").tempfile().expect("a file can be made");
    file.write_all(&octets).expect("a file can be written");
    file
}

/// What stands in each of `fields`, of each frame. A field that is there several times has its values with commas between, in
/// the order of the layers.
///
/// # Panics
/// When tshark is missing or fails.
pub fn dissected(frames: &[Vec<u8>], fields: &[&str]) -> Vec<Vec<String>> {
    let file = pcap(frames);
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file.path());
    // Checksums are off by default; here they are the point.
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().expect("tshark runs\nhelp: cargo xtask setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("tshark prints UTF-8");
    let rows: Vec<Vec<String>> =
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    assert_eq!(rows.len(), frames.len());
    rows
}

/// How many checksums tshark finds bad, by what stands in a field of [`FAULTS`]: 0 is bad, 1 good, 2 not checked, 3 not there.
pub fn bad(statuses: &str) -> usize {
    statuses.split(',').filter(|status| *status == "0").count()
}

/// As [`dissected`], of frames that tshark finds nothing wrong with: none is malformed, and no checksum bad.
///
/// # Panics
/// When one is, with all that are.
#[track_caller]
pub fn sound(frames: &[Vec<u8>], fields: &[&str]) -> Vec<Vec<String>> {
    let asked = [&["frame.protocols"][..], &FAULTS, fields].concat();
    let mut rows = dissected(frames, &asked);
    let mut found = Vec::new();
    for (number, row) in rows.iter_mut().enumerate() {
        let rest = row.split_off(1 + FAULTS.len());
        if !row[1].is_empty() {
            found.push(format!("frame {number} is malformed: {}", row[0]));
        }
        // What ICMP quotes is cut short, and the checksum of what it carried is over the whole of it.
        let quotes = [":icmp:ip:", ":icmpv6:ipv6:"].iter().any(|layers| row[0].contains(layers));
        for (name, statuses) in asked.iter().zip(&*row).skip(2).filter(|(_, statuses)| bad(statuses) > 0) {
            if quotes && *name == "tcp.checksum.status" {
                continue;
            }
            found.push(format!("frame {number}: {name} of {}: {statuses}", row[0]));
        }
        *row = rest;
    }
    assert!(found.is_empty(), "{} of {} frames:\n{}", found.len(), frames.len(), found.join("\n"));
    rows
}
