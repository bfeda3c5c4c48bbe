//! `/metrics`: packets by chain, slot and verdict, how full maps are, and how sources are doing.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value;
use xdpchain_host::Host;

use super::{Shared, lock};
use crate::commands::status;
use crate::error::{Error, Result};

type Labels = Vec<(&'static str, String)>;
type Numbers = Family<Labels, Gauge<f64, AtomicU64>>;
type Counts = Family<Labels, Counter>;

/// What is registered for one answer.
#[derive(Default)]
struct Measures {
    registry: Registry,
}

impl Measures {
    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Numbers::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Counts::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }
}

/// All that is measured now.
pub(super) fn text(shared: &Shared) -> Result<String> {
    let statuses = status::collect(&Host::open()?)?;
    let failed = |reason: String| Error::Format { format: "metrics", reason };
    let status = serde_json::to_value(&statuses).map_err(|error| failed(error.to_string()))?;
    let mut measures = Measures::default();
    chains(&mut measures, &status);
    maps(&mut measures, &status, shared);
    sources(&mut measures, shared);
    let applied = lock(&shared.applied).clone();
    let results = [("done", applied.done), ("failed", applied.failed)];
    measures.counter(
        "xdpchain_applies",
        "Times that chains.yaml was applied, by how that ended",
        results.map(|(result, count)| (vec![("result", result.to_owned())], count)),
    );
    measures.gauge(
        "xdpchain_applied",
        "Whether what runs is what chains.yaml says, as far as the agent knows",
        [(Labels::new(), if applied.error.is_none() { 1.0 } else { 0.0 })],
    );
    let mut text = String::new();
    encode(&mut text, &measures.registry).map_err(|error| failed(error.to_string()))?;
    Ok(text)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn word(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn chains(measures: &mut Measures, status: &Value) {
    let (mut packets, mut octets, mut reasons, mut generations) = (vec![], vec![], vec![], vec![]);
    for interface in list(status, "interfaces") {
        let of = || vec![("interface", word(interface, "interface")), ("chain", word(interface, "chain"))];
        generations.push((of(), interface["generation"].as_f64().unwrap_or_default()));
        for slot in list(interface, "slots") {
            for (verdict, count) in slot["ended"].as_object().into_iter().flatten() {
                let labels =
                    || [of(), vec![("slot", word(slot, "slot")), ("verdict", verdict.clone())]].concat();
                packets.push((labels(), count["packets"].as_u64().unwrap_or_default()));
                octets.push((labels(), count["bytes"].as_u64().unwrap_or_default()));
            }
        }
        for reason in list(interface, "reasons") {
            let labels = ["module", "reason", "fate"].map(|name| (name, word(reason, name)));
            let labels = [vec![("interface", word(interface, "interface"))], labels.to_vec()].concat();
            reasons.push((labels, reason["packets"].as_u64().unwrap_or_default()));
        }
    }
    let ended = "whose chain ended in the slot, by verdict";
    measures.counter("xdpchain_packets", &format!("Packets {ended}"), packets);
    measures.counter("xdpchain_bytes", &format!("Octets of packets {ended}"), octets);
    measures.counter("xdpchain_reasons", "Packets that a module did not forward, by why", reasons);
    measures.gauge("xdpchain_generation", "The generation that runs", generations);
}

fn maps(measures: &mut Measures, status: &Value, shared: &Shared) {
    let spec = lock(&shared.spec).clone();
    let (mut entries, mut room, mut memory, mut fill, mut full_in, mut alarms) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let mut seen = std::collections::HashSet::new();
    for interface in list(status, "interfaces") {
        for map in list(interface, "maps") {
            let name = word(map, "map");
            // A map of a module is in the status of each interface that uses it; one of a chain is its own.
            let owner = if name.starts_with("chain/") { word(interface, "interface") } else { String::new() };
            if !seen.insert((name.clone(), owner.clone())) {
                continue;
            }
            let labels = || vec![("map", name.clone()), ("interface", owner.clone())];
            room.push((labels(), map["maxEntries"].as_f64().unwrap_or_default()));
            memory.push((labels(), map["memory"].as_f64().unwrap_or_default()));
            entries.extend(map["entries"].as_f64().map(|count| (labels(), count)));
            full_in.extend(map["fullInSeconds"].as_f64().map(|seconds| (labels(), seconds)));
            if let Some(part) = map["fill"].as_f64() {
                let most = f64::from(spec.alarm_of(&name).hundredths()) / 10_000.0;
                alarms.push((labels(), if part >= most { 1.0 } else { 0.0 }));
                fill.push((labels(), part));
            }
        }
    }
    measures.gauge("xdpchain_map_entries", "Entries of a map", entries);
    measures.gauge("xdpchain_map_max_entries", "Entries that a map has room for", room);
    measures.gauge("xdpchain_map_memory_bytes", "Memory of a map", memory);
    measures.gauge("xdpchain_map_fill_ratio", "The part of a map's room that is taken", fill);
    measures.gauge("xdpchain_map_full_in_seconds", "Time until a map is full at its present rate", full_in);
    measures.gauge("xdpchain_map_alarm", "Whether a map is fuller than chains.yaml's threshold", alarms);
}

fn sources(measures: &mut Measures, shared: &Shared) {
    let statuses = lock(&shared.followers).statuses();
    let of = |name: &str| vec![("source", name.to_owned())];
    let each = |value: fn(&xdpchain_source::SourceStatus) -> f64| {
        statuses.iter().map(|status| (of(&status.source), value(status))).collect::<Vec<_>>()
    };
    measures.gauge("xdpchain_source_rows", "Rows that have entries", each(|status| status.rows as f64));
    measures.gauge(
        "xdpchain_source_rejected_rows",
        "Rows that do not fit",
        each(|status| status.rejected as f64),
    );
    measures.gauge(
        "xdpchain_source_up",
        "Whether the source follows its table",
        each(|status| if status.phase == xdpchain_source::Phase::Following { 1.0 } else { 0.0 }),
    );
    let lags = statuses.iter().filter_map(|status| Some((of(&status.source), status.lag_seconds()?)));
    measures.gauge(
        "xdpchain_source_lag_seconds",
        "Time since the maps were last known to be as the table",
        lags.collect::<Vec<_>>(),
    );
    let counts = |value: fn(&xdpchain_source::SourceStatus) -> u64| {
        statuses.iter().map(|status| (of(&status.source), value(status))).collect::<Vec<_>>()
    };
    measures.counter("xdpchain_source_changes", "Rows that changed", counts(|status| status.changes));
    measures.counter(
        "xdpchain_source_comparisons",
        "Times that a whole table was compared",
        counts(|s| s.comparisons),
    );
    let no_room = statuses.iter().flat_map(|status| {
        status.maps.iter().map(|map| {
            let labels = vec![("source", status.source.clone()), ("map", map.map.clone())];
            (labels, map.no_room as f64)
        })
    });
    measures.gauge(
        "xdpchain_source_rows_without_room",
        "Rows that a map has no room for",
        no_room.collect::<Vec<_>>(),
    );
}
