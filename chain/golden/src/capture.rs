//! Captures: the packets of a pcap or pcapng file.

use crate::GoldenError;

/// The number of Ethernet among the link types.
const ETHERNET: u32 = 1;

/// The packets of a capture, in order.
///
/// # Errors
/// [`GoldenError`] when it is no capture, is damaged, is not of Ethernet, or has not all of each packet.
pub fn packets(file: &[u8]) -> Result<Vec<Vec<u8>>, GoldenError> {
    match file.first_chunk() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => pcap(Reader { file, swapped: false }),
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => pcap(Reader { file, swapped: true }),
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => pcapng(file),
        _ => {
            let found: Vec<_> = file.iter().take(4).map(|octet| format!("{octet:02x}")).collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(" ") };
            Err(GoldenError::Magic { found })
        }
    }
}

/// Numbers of a file, little-endian unless swapped.
#[derive(Clone, Copy)]
struct Reader<'a> {
    file: &'a [u8],
    swapped: bool,
}

impl<'a> Reader<'a> {
    fn octets(&self, at: usize, count: usize) -> Result<&'a [u8], GoldenError> {
        let end = at.checked_add(count);
        let octets = end.and_then(|end| self.file.get(at..end));
        octets.ok_or(GoldenError::Damaged { at, problem: "it ends here" })
    }

    fn u32(&self, at: usize) -> Result<u32, GoldenError> {
        let mut octets = [0; 4];
        octets.copy_from_slice(self.octets(at, 4)?);
        Ok(if self.swapped { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) })
    }

    fn u16(&self, at: usize) -> Result<u16, GoldenError> {
        let mut octets = [0; 2];
        octets.copy_from_slice(self.octets(at, 2)?);
        Ok(if self.swapped { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) })
    }
}

fn ethernet(found: u32) -> Result<(), GoldenError> {
    if found == ETHERNET { Ok(()) } else { Err(GoldenError::LinkType { found }) }
}

fn whole(number: usize, captured: u32, original: u32) -> Result<(), GoldenError> {
    if captured < original { Err(GoldenError::Cut { number, captured, original }) } else { Ok(()) }
}

fn pcap(reader: Reader<'_>) -> Result<Vec<Vec<u8>>, GoldenError> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    // The upper half has flags.
    ethernet(reader.u32(20)? & 0xffff)?;
    let mut packets = Vec::new();
    let mut at = HEADER;
    while at < reader.file.len() {
        let (captured, original) = (reader.u32(at + 8)?, reader.u32(at + 12)?);
        whole(packets.len() + 1, captured, original)?;
        packets.push(reader.octets(at + RECORD, captured as usize)?.to_vec());
        at += RECORD + captured as usize;
    }
    Ok(packets)
}

fn pcapng(file: &[u8]) -> Result<Vec<Vec<u8>>, GoldenError> {
    const SECTION: u32 = 0x0a0d_0d0a;
    const INTERFACE: u32 = 1;
    const SIMPLE: u32 = 3;
    const ENHANCED: u32 = 6;
    let mut packets = Vec::new();
    let mut reader = Reader { file, swapped: false };
    // Link type and the most octets of a packet, for each interface of the section.
    let mut interfaces: Vec<(u32, u32)> = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let mut kind = reader.u32(at)?;
        if kind == SECTION {
            reader.swapped = match reader.octets(at + 8, 4)? {
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                _ => return Err(GoldenError::Damaged { at: at + 8, problem: "no byte-order magic" }),
            };
            interfaces.clear();
            kind = SECTION;
        }
        let length = reader.u32(at + 4)? as usize;
        if length < 12 || !length.is_multiple_of(4) {
            return Err(GoldenError::Damaged { at: at + 4, problem: "a block of an impossible length" });
        }
        let block = Reader { file: reader.octets(at, length)?, ..reader };
        let inside = |error| match error {
            GoldenError::Damaged { at: within, problem } => GoldenError::Damaged { at: at + within, problem },
            other => other,
        };
        let number = packets.len() + 1;
        let packet = match kind {
            INTERFACE => {
                interfaces.push((block.u16(8).map_err(inside)?.into(), block.u32(12).map_err(inside)?));
                None
            }
            SIMPLE => {
                let original = block.u32(8).map_err(inside)?;
                let (_, most) =
                    *interfaces.first().ok_or(GoldenError::Damaged { at, problem: "no interface" })?;
                let captured = if most == 0 { original } else { original.min(most) };
                Some((0, 12, captured, original))
            }
            ENHANCED => {
                let number = |offset| block.u32(offset).map_err(inside);
                Some((number(8)? as usize, 28, number(20)?, number(24)?))
            }
            _ => None,
        };
        if let Some((interface, start, captured, original)) = packet {
            let known = interfaces.get(interface);
            ethernet(known.ok_or(GoldenError::Damaged { at, problem: "no such interface" })?.0)?;
            whole(number, captured, original)?;
            packets.push(block.octets(start, captured as usize).map_err(inside)?.to_vec());
        }
        at += length;
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classic(packets: &[&[u8]], big: bool) -> Vec<u8> {
        let number = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut file = Vec::new();
        for n in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(number(n));
        }
        for packet in packets {
            let length = packet.len() as u32;
            for n in [1, 2, length, length] {
                file.extend(number(n));
            }
            file.extend(*packet);
        }
        file
    }

    fn block(kind: u32, body: &[u8], big: bool) -> Vec<u8> {
        let number = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let padded = body.len().next_multiple_of(4);
        let mut file = number(kind).to_vec();
        let length = padded as u32 + 12;
        file.extend(number(length));
        file.extend(body);
        file.resize(8 + padded, 0);
        file.extend(number(length));
        file
    }

    fn section(packets: &[&[u8]], big: bool) -> Vec<u8> {
        let number = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut file = block(0x0a0d_0d0a, &[number(0x1a2b_3c4d), [0; 4], [0xff; 4], [0xff; 4]].concat(), big);
        let link = if big { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
        file.extend(block(1, &[link, number(0)].concat(), big));
        file.extend(block(5, &[0; 12], big));
        for (i, packet) in packets.iter().enumerate() {
            let length = number(packet.len() as u32);
            let head = [[0; 4], [0; 4], [0; 4], length, length].concat();
            match i % 2 {
                0 => file.extend(block(6, &[&head[..], packet].concat(), big)),
                _ => file.extend(block(3, &[&length[..], packet].concat(), big)),
            }
        }
        file
    }

    #[test]
    fn every_form_gives_the_same_packets() {
        let wanted: [&[u8]; 3] = [&[1, 2, 3], &[], &[4; 61]];
        let both = [section(&wanted, false), section(&wanted, true)].concat();
        assert_eq!(packets(&both).unwrap(), [wanted, wanted].concat());
        for big in [false, true] {
            assert_eq!(packets(&classic(&wanted, big)).unwrap(), wanted);
        }
        assert_eq!(packets(&classic(&[], false)).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_is_no_capture_is_told() {
        let said = |file: &[u8]| packets(file).unwrap_err().to_string();
        assert!(said(b"").starts_with("this is neither pcap nor pcapng: it begins with nothing\nhelp: "));
        assert!(said(b"\x7fELF").contains("7f 45 4c 46"));
        let good = classic(&[&[1, 2, 3]], false);
        assert!(said(&good[..good.len() - 1]).starts_with("the capture is damaged at octet 40"));
        let mut cut = good.clone();
        cut[36] = 9;
        assert!(said(&cut).starts_with("packet 1 has 3 of its 9 octets"));
        let mut other = good;
        other[20] = 101;
        assert!(said(&other).contains("link type 101"));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_are_answered(start in 0..3_usize, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let magic: [&[u8]; 3] = [&[0x0a, 0x0d, 0x0d, 0x0a], &[0xd4, 0xc3, 0xb2, 0xa1], &[]];
            let _ = packets(&[magic[start], &rest].concat());
        }

        #[test]
        fn a_damaged_capture_is_answered(at in 0..220_usize, octet in any::<u8>(), big in any::<bool>()) {
            let mut file = section(&[&[1; 20], &[2; 30], &[3; 7]], big);
            if let Some(place) = file.get_mut(at) {
                *place = octet;
            }
            let _ = packets(&file);
        }
    }
}
