//! Where the headers of a packet are, as far as it lets itself be read.

use super::super::modules::checksum;

/// A number in a header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Where it begins.
    pub(super) at: usize,
    /// Octets of it.
    pub(super) len: usize,
    /// Values that mean something there.
    pub(super) worth: &'static [u64],
}

/// Where things are.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// The outer IP header, behind up to two tags.
    pub(super) network: usize,
    /// What the outer IP header carries.
    upper: Option<(u8, usize)>,
    /// The GTP-U header, and whether it has the optional fields.
    pub(super) gtp: Option<(usize, bool)>,
    /// The GRE header.
    gre: Option<usize>,
    /// The inner IP header.
    pub(super) inner: Option<usize>,
    /// What the inner IP header carries.
    inner_upper: Option<(u8, usize)>,
    /// Where IPv4 addresses stand.
    pub(super) addresses: Vec<usize>,
}

/// What an IP header at `at` carries, and where.
fn upper(packet: &[u8], at: usize) -> Option<(u8, usize)> {
    match packet.get(at)? >> 4 {
        4 => Some((*packet.get(at + 9)?, at + usize::from(packet[at] & 0xf) * 4)),
        6 => Some((*packet.get(at + 6)?, at + 40)),
        _ => None,
    }
}

impl Layout {
    /// Of a packet, as far as it goes.
    pub(super) fn of(packet: &[u8]) -> Self {
        let mut layout = Self { network: 14, ..Self::default() };
        for _ in 0..2 {
            let kind = [12, 13].map(|i| packet.get(layout.network - 14 + i).copied().unwrap_or_default());
            if [[0x81, 0x00], [0x88, 0xa8]].contains(&kind) {
                layout.network += 4;
            }
        }
        layout.upper = upper(packet, layout.network);
        match layout.upper {
            Some((17, at)) => {
                let first = packet.get(at + 8).copied().unwrap_or_default();
                layout.gtp = Some((at + 8, first & 7 != 0));
                layout.inner = Some(inside(packet, at + 8));
            }
            Some((47, at)) => {
                let flags = packet.get(at).copied().unwrap_or_default();
                layout.gre = Some(at);
                layout.inner = Some(at + 4 + 4 * (flags & 0xb0).count_ones() as usize);
            }
            _ => {}
        }
        layout.inner_upper = layout.inner.and_then(|at| upper(packet, at));
        for at in [Some(layout.network), layout.inner].into_iter().flatten() {
            if packet.get(at).is_some_and(|first| first >> 4 == 4) {
                layout.addresses.extend([at + 12, at + 16]);
            }
        }
        layout
    }
}

/// Where the payload of the GTP-U message at `at` begins, as far as its headers can be walked.
fn inside(packet: &[u8], at: usize) -> usize {
    let octet = |at: usize| packet.get(at).copied().unwrap_or_default();
    if octet(at) & 7 == 0 {
        return at + 8;
    }
    let mut next = at + 12;
    if octet(at) & 4 != 0 {
        let mut kind = octet(at + 11);
        for _ in 0..10 {
            let len = usize::from(octet(next)) * 4;
            if kind == 0 || len == 0 {
                break;
            }
            kind = octet(next + len - 1);
            next += len;
        }
    }
    next
}

/// The numbers that can be changed.
pub(super) fn fields(layout: &Layout) -> Vec<Field> {
    let field = |at, len, worth| Field { at, len, worth };
    let mut all = vec![field(layout.network - 2, 2, &[0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806])];
    for at in [Some(layout.network), layout.inner].into_iter().flatten() {
        all.extend([
            field(at, 1, &[0x45, 0x46, 0x44, 0x4f, 0x60, 0x6f, 0x00, 0x55]),
            field(at + 1, 1, &[0, 1, 2, 3, 4, 0xb8, 0x10, 0x20, 0x30]),
            field(at + 2, 2, &[0, 19, 20, 28, 36, 0xffff]),
            field(at + 4, 2, &[0, 8, 16, 24, 0xffff]),
            field(at + 6, 2, &[0, 0x4000, 0x2000, 0x0001, 0x1fff, 0x8000, 0x1101, 0x2c40, 0x0040]),
            field(at + 8, 1, &[0, 1, 2, 255]),
            field(at + 9, 1, &[1, 4, 6, 17, 41, 47, 132, 58]),
            field(at + 10, 2, &[0, 0xffff]),
            field(at + 12, 4, &[0, 0xffff_ffff, 0xe000_0001, 0xfe80_0000, 0xff02_0000]),
            field(at + 16, 4, &[0, 0xffff_ffff, 0xe000_0001, 0xa9fe_0601, 0xf000_0001]),
            field(at + 24, 2, &[0xff02, 0xfe80, 0xff0e, 0x2001]),
        ]);
    }
    if let Some((17, at)) = layout.upper {
        all.extend([
            field(at, 2, &[0, 2152, 53]),
            field(at + 2, 2, &[2152, 2123, 3386]),
            field(at + 4, 2, &[0, 8, 15, 16]),
            field(at + 6, 2, &[0, 0xffff]),
        ]);
    }
    if let Some((at, _)) = layout.gtp {
        all.extend([
            field(at, 1, &[0x30, 0x32, 0x31, 0x34, 0x37, 0x38, 0x20, 0x10, 0x48, 0x3c]),
            field(at + 1, 1, &[255, 254, 26, 1, 2, 31, 3]),
            field(at + 2, 2, &[0, 4, 8, 12, 0xffff]),
            field(at + 4, 4, &[0, 0x101, 0x102]),
            field(at + 11, 1, &[0, 0x85, 0x20, 0x40, 0xc0, 0x82, 0x83, 0x7f]),
            field(at + 12, 1, &[0, 1, 2, 255]),
            field(at + 15, 1, &[0, 0x85, 0x20, 0xc0, 0xff]),
        ]);
    }
    if let Some(at) = layout.gre {
        all.extend([
            field(at, 1, &[0, 0x80, 0x20, 0x10, 0xb0, 0x40, 0x08, 0x04, 0x03]),
            field(at + 1, 1, &[0, 1, 2, 0xf8, 0x80]),
            field(at + 2, 2, &[0, 0x0800, 0x86dd, 0x6558, 0x8847, 0x88be, 0x880b]),
            field(at + 4, 4, &[0, 0x0102_0304]),
        ]);
    }
    if let Some((kind, at)) = layout.inner_upper {
        all.extend([field(at, 2, &[0, 53, 80]), field(at + 2, 2, &[0, 7, 23, 443])]);
        if kind == 6 {
            all.extend([
                field(at + 12, 2, &[0x5002, 0x6002, 0x7012, 0x8002, 0xf002, 0x4002, 0x6010]),
                field(at + 20, 2, &[0x0204, 0x0101, 0x0000, 0x0103]),
                field(at + 22, 2, &[1460, 1400, 536, 0, 0xffff]),
                field(at + 16, 2, &[0, 0xffff]),
            ]);
        }
    }
    all
}

/// Makes lengths and checksums fit.
pub(super) fn repair(packet: &mut [u8]) {
    let layout = Layout::of(packet);
    // From the inside out: an outer checksum covers what is inside.
    for at in [layout.inner, Some(layout.network)].into_iter().flatten() {
        let len = packet.len().saturating_sub(at);
        match packet.get(at).map(|first| first >> 4) {
            Some(4) if len >= 20 => {
                put(packet, at + 2, len);
                let header = (usize::from(packet[at] & 0xf) * 4).clamp(20, len);
                put(packet, at + 10, 0);
                let sum = checksum(&packet[at..at + header]);
                put(packet, at + 10, usize::from(sum));
            }
            Some(6) if len >= 40 => put(packet, at + 4, len - 40),
            _ => {}
        }
    }
    if let Some((at, _)) = layout.gtp
        && packet.len() >= at + 8
    {
        put(packet, at + 2, packet.len() - at - 8);
    }
    if let Some((17, at)) = layout.upper
        && packet.len() >= at + 8
    {
        put(packet, at + 4, packet.len() - at);
        put(packet, at + 6, 0);
        if packet[layout.network] >> 4 == 6 {
            let mut all = packet[layout.network + 8..layout.network + 40].to_vec();
            all.extend([0, 17]);
            all.extend(((packet.len() - at) as u16).to_be_bytes());
            all.extend(&packet[at..]);
            put(packet, at + 6, usize::from(checksum(&all)).max(1));
        }
    }
    if let Some(at) = layout.gre
        && packet.len() >= at + 8
        && packet[at] & 0x80 != 0
    {
        put(packet, at + 4, 0);
        let sum = checksum(&packet[at..]);
        put(packet, at + 4, usize::from(sum));
    }
}

fn put(packet: &mut [u8], at: usize, value: usize) {
    packet[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}
