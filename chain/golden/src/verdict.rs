//! Verdicts by name, and packets side by side.

use xdpchain_abi::XDPCHAIN_FINAL;

/// A return value as fixtures write it: `drop`, `pass+final`, or the number when it is no verdict.
pub fn verdict_name(value: u32) -> String {
    let name = match value & !XDPCHAIN_FINAL {
        0 => "aborted",
        1 => "drop",
        2 => "pass",
        3 => "tx",
        4 => "redirect",
        _ => return value.to_string(),
    };
    let end = if value & XDPCHAIN_FINAL == 0 { "" } else { "+final" };
    format!("{name}{end}")
}

/// Where two strings of octets differ, with both; none when they do not.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    Some(format!("differs from octet {at} on\n  expected {}\n  found    {}", hex(expected), hex(found)))
}

fn hex(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{} octets:", octets.len());
    for (i, octet) in octets.iter().enumerate() {
        let space = if i % 4 == 0 { " " } else { "" };
        let _ = write!(text, "{space}{octet:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_its_name() {
        assert_eq!(verdict_name(2), "pass");
        assert_eq!(verdict_name(XDPCHAIN_FINAL | 1), "drop+final");
        assert_eq!(verdict_name(9), "9");
    }

    #[test]
    fn packets_differ_from_an_octet_on() {
        assert_eq!(difference(&[1, 2], &[1, 2]), None);
        let text = difference(&[1, 2, 3, 4, 5], &[1, 2, 4]).unwrap();
        assert_eq!(
            text,
            "differs from octet 2 on\n  expected 5 octets: 01020304 05\n  found    3 octets: 010204"
        );
        assert!(difference(&[1], &[1, 2]).unwrap().starts_with("differs from octet 1 on"));
    }
}
