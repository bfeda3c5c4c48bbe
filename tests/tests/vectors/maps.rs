//! Entries of maps whose types are known only at run time.

use aya::{
    Pod,
    maps::{Array, HashMap, Map, PerCpuArray, PerCpuHashMap, PerCpuValues},
};

use crate::run::chain;

/// Calls a function of the sizes of key and value, which aya wants as constants.
macro_rules! by_size {
    ($key:expr, $value:expr, $function:ident $arguments:tt) => {
        by_size!(@ $key, $value, $function $arguments;
            (4, 4) (4, 8) (4, 16) (4, 20) (4, 24) (4, 32) (4, 48) (4, 56) (8, 16) (8, 20) (8, 40) (12, 20) (16, 8))
    };
    (@ $key:expr, $value:expr, $function:ident $arguments:tt; $(($k:literal, $v:literal))+) => {
        match ($key, $value) {
            $(($k, $v) => $function::<$k, $v> $arguments,)+
            (key, value) => Err(format!("add the sizes {key} and {value} to `by_size`")),
        }
    };
}

/// Puts an entry into a map of any kind that fixtures fill.
pub(crate) fn put(map: &mut Map, key: &[u8], value: &[u8]) -> Result<(), String> {
    by_size!(key.len(), value.len(), put_sized(map, key, value))
}

fn put_sized<const K: usize, const V: usize>(map: &mut Map, key: &[u8], value: &[u8]) -> Result<(), String>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let value: [u8; V] = value.try_into().map_err(|_| "size of the value")?;
    match map {
        Map::Array(_) => {
            let mut array: Array<_, [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            array.set(index(key)?, value, 0).map_err(|e| chain(&e))
        }
        _ => {
            let key: [u8; K] = key.try_into().map_err(|_| "size of the key")?;
            let mut hash: HashMap<_, [u8; K], [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            hash.insert(key, value, 0).map_err(|e| chain(&e))
        }
    }
}

/// The value at `key`, of `size` octets; of a per-CPU map, whose values are counters here, the sum of all CPUs' values.
pub(crate) fn take(map: &Map, key: &[u8], size: usize) -> Result<Vec<u8>, String> {
    by_size!(key.len(), size, take_sized(map, key))
}

fn take_sized<const K: usize, const V: usize>(map: &Map, key: &[u8]) -> Result<Vec<u8>, String>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let whole = || <[u8; K]>::try_from(key).map_err(|_| "size of the key");
    match map {
        Map::Array(_) => {
            let array: Array<_, [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            Ok(array.get(&index(key)?, 0).map_err(|e| chain(&e))?.to_vec())
        }
        Map::PerCpuArray(_) => {
            let array: PerCpuArray<_, [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            Ok(sum(&array.get(&index(key)?, 0).map_err(|e| chain(&e))?))
        }
        Map::PerCpuHashMap(_) => {
            let hash: PerCpuHashMap<_, [u8; K], [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            Ok(sum(&hash.get(&whole()?, 0).map_err(|e| chain(&e))?))
        }
        _ => {
            let hash: HashMap<_, [u8; K], [u8; V]> = map.try_into().map_err(|e| chain(&e))?;
            Ok(hash.get(&whole()?, 0).map_err(|e| chain(&e))?.to_vec())
        }
    }
}

/// The sum of values that consist of 64-bit counters.
fn sum<const V: usize>(values: &PerCpuValues<[u8; V]>) -> Vec<u8>
where
    [u8; V]: Pod,
{
    let mut sums = vec![0u64; V / 8];
    for value in values.iter() {
        for (sum, counter) in sums.iter_mut().zip(value.as_chunks::<8>().0) {
            *sum += u64::from_ne_bytes(*counter);
        }
    }
    sums.iter().flat_map(|sum| sum.to_ne_bytes()).collect()
}

/// The index of an array's entry.
fn index(key: &[u8]) -> Result<u32, String> {
    Ok(u32::from_ne_bytes(key.try_into().map_err(|_| "the key of an array is a u32")?))
}
