//! An independent judge: tshark dissects a sample of what left the node.

use std::io::Write;
use std::process::Command;

use xdpchain_tests::plan;

/// Writes `frames` as a classic pcap file of Ethernet frames.
fn pcap(frames: &[Vec<u8>]) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".pcap").tempfile()?;
    let mut bytes = Vec::new();
    let words = |bytes: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|w| bytes.extend(w.to_le_bytes()));
    // Magic, version 2.4, no time zone, no accuracy, longest frame, Ethernet.
    words(&mut bytes, &[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for frame in frames {
        let length = frame.len() as u32;
        words(&mut bytes, &[0, 0, length, length]);
        bytes.extend(frame);
    }
    file.write_all(&bytes)?;
    file.flush()?;
    Ok(file)
}

/// What tshark says of `frames`: one line for each, `fields` separated by tabs.
fn dissect(frames: &[Vec<u8>], fields: &[&str]) -> Result<Vec<Vec<String>>, String> {
    let file = pcap(frames).map_err(|e| format!("cannot write a capture file: {e}"))?;
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file.path());
    // Checksums are off by default; here they are the point.
    tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields"]);
    tshark.args(fields.iter().flat_map(|&field| ["-e", field]));
    let output = tshark.output().map_err(|e| format!("cannot run tshark: {e}\nhelp: cargo xtask setup"))?;
    if !output.status.success() {
        return Err(format!("tshark failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// Has tshark dissect what the cloud and the radio side got; says what it saw, or what it does not like.
pub(crate) fn judge(cloud: &[Vec<u8>], ran: &[Vec<u8>]) -> Result<(), String> {
    if cloud.is_empty() || ran.is_empty() {
        return Err("no sample for tshark was taken".to_owned());
    }
    println!("\ntshark on a sample of what left the node:");
    // One field of each layer, and what must not be there.
    let layers = "frame.protocols";
    let problems = ["_ws.malformed", "ip.checksum.status", "udp.checksum.status"];
    let gre = dissect(cloud, &[&[layers, "ip.src", "ip.dst", "ip.ttl", "ipv6.src"], &problems[..]].concat())?;
    check(&gre, cloud.len(), 5, |row| {
        let inner = row[0].strip_prefix("eth:ethertype:ip:gre:");
        inner.is_some_and(|rest| rest.starts_with("ip:udp") || rest.starts_with("ipv6:udp"))
            && row[1].starts_with(&plan::NODE_CLOUD.to_string())
    })?;
    let gtp = dissect(
        ran,
        &[&[layers, "ip.src", "ip.dst", "gtp.teid", "gtp.ext_hdr.pdu_ses_con.qos_flow_id"], &problems[..]]
            .concat(),
    )?;
    check(&gtp, ran.len(), 5, |row| {
        let inner = row[0].strip_prefix("eth:ethertype:ip:udp:gtp:");
        inner.is_some_and(|rest| rest.starts_with("ip:udp") || rest.starts_with("ipv6:udp"))
            && row[2].starts_with(&plan::RAN.to_string())
            && row[3].starts_with("0x8")
    })?;
    let first = &gre[0];
    println!(
        "  {} frames to the cloud, e.g. {}: {} -> {}, TTL {}",
        gre.len(),
        first[0],
        first[1],
        first[2],
        first[3]
    );
    let first = &gtp[0];
    println!(
        "  {} frames to ran, e.g. {}: {} -> {}, TEID {}",
        gtp.len(),
        first[0],
        first[1],
        first[2],
        first[3]
    );
    Ok(())
}

/// Every row passes `right`, and from column `problems` on is malformed nowhere and has no bad checksum.
fn check(
    rows: &[Vec<String>],
    frames: usize,
    problems: usize,
    right: impl Fn(&[String]) -> bool,
) -> Result<(), String> {
    if rows.len() != frames {
        return Err(format!("tshark saw {} frames of {frames}", rows.len()));
    }
    for row in rows {
        // Status 1 is good, 2 was not checked (no checksum), 0 is bad.
        let bad_sum = row[problems + 1..].iter().any(|column| column.split(',').any(|status| status == "0"));
        if !row[problems].is_empty() || bad_sum || !right(row) {
            return Err(format!("tshark does not like a frame: {}", row.join(" ")));
        }
    }
    Ok(())
}
