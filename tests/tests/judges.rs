//! The packets of `tests/fixtures` before judges that nobody here wrote: tshark dissects what leaves, and scapy builds what
//! comes in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xdpchain_golden::{Fixture, difference, hexadecimal};
use xdpchain_tests::tshark::{FAULTS, bad, dissected};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every fixture, by name.
fn fixtures() -> BTreeMap<String, Fixture> {
    let paths = fs::read_dir(folder()).expect("the folder is part of the crate");
    let paths = paths.map(|entry| entry.expect("a folder can be listed").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a fixture is text");
            let fixture = Fixture::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, fixture)
        })
        .collect()
}

/// What tshark is asked about each frame: its layers, its faults, and its TEID.
fn fields() -> Vec<&'static str> {
    [&["frame.protocols"][..], &FAULTS, &["gtp.teid"]].concat()
}
/// Of `fields`, those that are checksums.
const CHECKSUMS: std::ops::Range<usize> = 2..7;

#[test]
fn tshark_finds_nothing_wrong_in_any_frame_that_leaves() {
    let leaving: Vec<(String, Fixture)> = fixtures()
        .into_iter()
        .filter(|(_, fixture)| {
            let verdict = fixture.expect.verdict.trim_end_matches("+final");
            ["pass", "tx", "redirect"].contains(&verdict)
                && fixture.output().expect("it was read") != fixture.input().expect("it was read")
        })
        .collect();
    assert!(leaving.len() > 200, "{}", leaving.len());
    let frames = |packet: fn(&Fixture) -> Vec<u8>| -> Vec<Vec<u8>> {
        leaving.iter().map(|(_, fixture)| packet(fixture)).collect()
    };
    let before = dissected(&frames(|fixture| fixture.input().expect("it was read")), &fields());
    let after = dissected(&frames(|fixture| fixture.output().expect("it was read")), &fields());
    let mut wrong = Vec::new();
    for (((name, fixture), before), after) in leaving.iter().zip(&before).zip(&after) {
        if !after[1].is_empty() && before[1].is_empty() {
            wrong.push(format!("{name}: malformed: {}", after[0]));
        }
        for field in CHECKSUMS {
            // What was wrong inside when it came is not put right on the way.
            if bad(&after[field]) > bad(&before[field]) {
                wrong.push(format!("{name}: {} of {}: {}", fields()[field], after[0], after[field]));
            }
        }
        // It dissects as what was meant: a tunnel of the right kind around IP.
        let layers = &after[0];
        let meant = match (fixture.program.as_deref(), fixture.expect.verdict.as_str()) {
            (Some("gre-steer"), "tx" | "redirect" | "pass+final") => layers.contains(":gre:ip"),
            (Some("gtp-encap"), "tx" | "redirect" | "pass+final")
                if fixture.row.as_deref() != Some("B02") =>
            {
                layers.contains(":udp:gtp:ip") && !after[7].is_empty()
            }
            (Some("gtp-decap" | "gre-decap"), "pass") => !layers.contains(":gtp") && !layers.contains(":gre"),
            _ => true,
        };
        if !meant {
            wrong.push(format!("{name}: it is {layers}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} frames:\n{}", wrong.len(), leaving.len(), wrong.join("\n"));
}

#[test]
fn scapy_builds_the_packets_that_come_in() {
    let script = folder().join("scapy_inputs.py");
    // Debian's, which has Debian's scapy.
    let output = Command::new("/usr/bin/python3").arg(&script).output().expect("python runs");
    assert!(output.status.success(), "{}\nhelp: cargo xtask setup", String::from_utf8_lossy(&output.stderr));
    let fixtures = fixtures();
    let (mut built, mut wrong) = (0, Vec::new());
    for line in String::from_utf8(output.stdout).expect("hexadecimal").lines() {
        let (name, hex) = line.split_once(' ').expect("a name and octets");
        let fixture = fixtures.get(name).unwrap_or_else(|| panic!("there is no fixture `{name}`"));
        let packet = hexadecimal("packet", hex).expect("hexadecimal");
        built += 1;
        let input = fixture.input().expect("it was read");
        wrong.extend(difference(&packet, &input).map(|difference| format!("{name}: {difference}")));
    }
    assert!(wrong.is_empty(), "{} of {built}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(built > 100, "{built}");
}
