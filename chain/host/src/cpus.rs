//! How many CPUs the kernel has values of a per-CPU map for.

use std::io;
use std::sync::OnceLock;

/// How many CPUs there may ever be.
///
/// # Errors
/// When `/sys/devices/system/cpu/possible` cannot be read.
pub fn possible() -> io::Result<usize> {
    numbers().map(<[usize]>::len)
}

/// The kernel's number of the CPU whose value is at `index` among those of a per-CPU map.
pub(crate) fn number(index: usize) -> io::Result<usize> {
    let number = numbers()?.get(index).copied();
    number.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no CPU at {index}")))
}

/// The CPUs that there may ever be. The kernel has a value for each of them.
fn numbers() -> io::Result<&'static [usize]> {
    static NUMBERS: OnceLock<Vec<usize>> = OnceLock::new();
    if let Some(numbers) = NUMBERS.get() {
        return Ok(numbers);
    }
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let numbers = numbers_in(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("CPU list `{}`", text.trim())))?;
    Ok(NUMBERS.get_or_init(|| numbers))
}

/// The CPUs in a list such as `0-3,8`.
fn numbers_in(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?;
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(numbers_in("0"), Some(vec![0]));
        assert_eq!(numbers_in("0-127").map(|numbers| numbers.len()), Some(128));
        assert_eq!(numbers_in("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(numbers_in(""), None);
        assert_eq!(numbers_in("3-1"), None);
    }
}
