//! How many CPUs the kernel has values of a per-CPU map for.

use std::io;
use std::sync::OnceLock;

/// The CPUs that there may ever be.
///
/// # Errors
/// When `/sys/devices/system/cpu/possible` cannot be read.
pub fn possible() -> io::Result<usize> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if let Some(count) = COUNT.get() {
        return Ok(*count);
    }
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let count = count_in(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("CPU list `{}`", text.trim())))?;
    Ok(*COUNT.get_or_init(|| count))
}

/// The CPUs in a list such as `0-3,8`. The kernel has a value for every number in it.
fn count_in(list: &str) -> Option<usize> {
    let mut count = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(count_in("0"), Some(1));
        assert_eq!(count_in("0-127"), Some(128));
        assert_eq!(count_in("0-3,8,10-11"), Some(7));
        assert_eq!(count_in(""), None);
        assert_eq!(count_in("3-1"), None);
    }
}
