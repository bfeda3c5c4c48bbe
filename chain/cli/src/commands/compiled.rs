//! Maps that programs do not look at themselves, but at what they are compiled to.
//!
//! A module says so by its maps: `NAME_compiled`, an array of maps, beside `NAME`, and the type of `NAME`'s values says by which
//! compiler. A change is read, compiled, written and exchanged under the lock, in this order: what cannot be compiled changes
//! nothing, and packets are judged by what was there before or by all that is there now.

use std::collections::BTreeMap;

use xdpchain_abi::AclRule;
use xdpchain_abi::acl_tables::{BLOCK, BLOCKS, COMPILED, COUNT_AT, DIGEST_AT, LAYOUT, LAYOUT_AT};
use xdpchain_acl::{Compiled, digest, rule};
use xdpchain_host::compiled::shared_array;
use xdpchain_host::{Entries, Host, Map};
use xdpchain_spec::MapRef;

use super::map::{Open, each_entry};
use crate::error::{Error, Result};
use crate::output::grouped;

/// The type whose values the access list's compiler takes.
pub(crate) const ACL_RULE: &str = "struct AclRule";

/// The rows of a map by key.
type Rows = BTreeMap<u32, Vec<u8>>;

/// What a map is compiled to; none when programs look at the map itself.
pub(super) fn of(host: &Host, name: &MapRef, open: &Open) -> Result<Option<Map>> {
    if open.codec.value.name() != ACL_RULE {
        return Ok(None);
    }
    match host.module_map(&name.module, &format!("{}{COMPILED}", name.map)) {
        Ok(map) => Ok(Some(map)),
        Err(xdpchain_host::Error::NoMap { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Changes the map's rows: `entries` are written, and `removed` go.
pub(super) fn change(
    host: &Host,
    open: &Open,
    compiled: &Map,
    entries: &Entries,
    removed: &[Vec<u8>],
) -> Result<()> {
    let _alone = host.hold()?;
    let mut rows = read(open)?;
    add(&mut rows, open, entries);
    for key in removed {
        rows.remove(&number(key));
    }
    let tables = compile(open, &rows)?;
    open.map.update_all(entries).map_err(|error| open.failed(error))?;
    open.map.delete_all(&removed.concat())?;
    put_in_force(open, compiled, &tables)
}

/// What the map's rows become once they are `entries`, with those beside them that it has now when they are to stay.
pub(super) fn tables(open: &Open, entries: &Entries, stay: bool) -> Result<Compiled> {
    let mut rows = if stay { read(open)? } else { Rows::new() };
    add(&mut rows, open, entries);
    compile(open, &rows)
}

/// Lets programs look at what the map's rows have become.
pub(super) fn put_in_force(open: &Open, compiled: &Map, tables: &Compiled) -> Result<()> {
    compiled.replace_inner(0, &shared_array(BLOCK as u32, BLOCKS as u32), |octets| tables.write(octets))?;
    eprintln!(
        "compiled {} rules in force of {}: at most {} steps for a packet, {} KiB of tables in use",
        grouped(tables.rules() as u64),
        open.name,
        tables.visits(),
        grouped(tables.octets() as u64 >> 10),
    );
    Ok(())
}

fn add(rows: &mut Rows, open: &Open, entries: &Entries) {
    let size = open.codec.value.size().max(1);
    for (key, value) in entries.keys.chunks_exact(4).zip(entries.values.chunks_exact(size)) {
        rows.insert(number(key), value.to_vec());
    }
}

fn compile(open: &Open, rows: &Rows) -> Result<Compiled> {
    let max_entries = open.map.info().max_entries;
    if rows.len() > max_entries as usize {
        return Err(Error::MapFull { map: open.name.clone(), max_entries });
    }
    Compiled::new(&rules(open, rows)?)
        .map_err(|source| Error::Compile { map: open.name.clone(), source: Box::new(source) })
}

/// Whether the rows are others than those that programs look at: somebody else wrote to the map.
pub(super) fn is_stale(open: &Open, compiled: &Map) -> Result<bool> {
    let rows = read(open)?;
    let Some(inner) = compiled.inner(0)? else { return Ok(!rows.is_empty()) };
    let now = digest(&rules(open, &rows)?);
    Ok(inner.read_octets(|octets| {
        let word =
            |at: usize| u32::from_ne_bytes(octets[at * 4..at * 4 + 4].try_into().expect("four octets"));
        let then = octets[DIGEST_AT * 4..].first_chunk().map(|digest| u64::from_ne_bytes(*digest));
        tracing::debug!(rules = word(COUNT_AT), layout = word(LAYOUT_AT), "compiled");
        // A program walks what was compiled for an older one.
        word(LAYOUT_AT) > LAYOUT || then != Some(now)
    })?)
}

fn read(open: &Open) -> Result<Rows> {
    let mut rows = Rows::new();
    each_entry(open, |key, value| {
        rows.insert(number(key), value.to_vec());
        Ok(true)
    })?;
    Ok(rows)
}

fn rules(open: &Open, rows: &Rows) -> Result<Vec<(u32, AclRule)>> {
    rows.iter()
        .map(|(key, value)| {
            let rule = rule(value).ok_or_else(|| Error::MapTypes {
                map: open.name.clone(),
                problem: format!("a rule of {} octets", value.len()),
            })?;
            Ok((*key, rule))
        })
        .collect()
}

fn number(key: &[u8]) -> u32 {
    key.try_into().map_or(u32::MAX, u32::from_ne_bytes)
}
