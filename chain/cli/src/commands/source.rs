//! `source`: database tables that fill maps.

use std::time::Instant;

use serde::Serialize;
use xdpchain_host::Host;
use xdpchain_source::{Follower, Phase, SourceStatus, Store};
use xdpchain_spec::{Config, SourceSpec, near};

use crate::args::{Common, SourceCommand};
use crate::config;
use crate::error::{Error, Result, exit};
use crate::output::{self, Output, Page, grouped};

/// Rows that do not fit, shown without `-o wide`.
const SHOWN: usize = 20;

pub(crate) fn run(common: &Common, out: Output, command: &SourceCommand) -> Result<u8> {
    let (config, file) = config::read(common.file.as_deref())?;
    let named = |names: &[String]| named(&config, &file, names);
    match command {
        SourceCommand::Init { name, print } => {
            let (name, source) = named(std::slice::from_ref(name))?[0];
            if *print {
                output::write(xdpchain_source::change_log(source)?.as_bytes())?;
                return Ok(exit::DONE);
            }
            xdpchain_source::install(source)?;
            eprintln!("table `{}` of source `{name}` has a change log", source.table);
            Ok(exit::DONE)
        }
        SourceCommand::Sync { names, once: _, prune } => sync(out, &named(names)?, *prune),
        SourceCommand::Status { names } => status(out, &named(names)?),
    }
}

fn named<'a>(
    config: &'a Config,
    file: &std::path::Path,
    names: &[String],
) -> Result<Vec<(&'a str, &'a SourceSpec)>> {
    if names.is_empty() {
        return Ok(config.sources.iter().map(|(name, source)| (name.as_str(), source)).collect());
    }
    let find = |name: &String| match config.sources.get_key_value(name) {
        Some((name, source)) => Ok((name.as_str(), source)),
        None => Err(Error::NoSuchSource {
            file: file.to_owned(),
            source_name: name.clone(),
            hint: match near(name, &config.sources.keys().collect::<Vec<_>>()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its sources are: {}", config::listed(config.sources.keys())),
            },
        }),
    };
    names.iter().map(find).collect()
}

fn sync(out: Output, sources: &[(&str, &SourceSpec)], prune: bool) -> Result<u8> {
    #[derive(Serialize)]
    struct Synced {
        sources: Vec<One>,
    }
    #[derive(Serialize)]
    struct One {
        #[serde(flatten)]
        status: SourceStatus,
        seconds: f64,
    }
    let mut synced = Synced { sources: Vec::new() };
    for (name, source) in sources {
        let start = Instant::now();
        let status = Follower::new(name, source)?.sync_once(prune)?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("source `{name}`: {} rows in {seconds:.2} s", grouped(status.rows));
        for map in &status.maps {
            eprintln!(
                "  {}: {} entries written, {} as they were, {} removed",
                map.map,
                grouped(map.written),
                grouped(map.same),
                grouped(map.removed),
            );
        }
        synced.sources.push(One { status, seconds });
    }
    let alarmed = tell_alarms(synced.sources.iter().map(|one| &one.status));
    out.print("Synced", &synced, |_| ())?;
    Ok(if alarmed { exit::NOT_READY } else { exit::DONE })
}

/// Tells what somebody should look at; whether there is anything.
fn tell_alarms<'a>(statuses: impl Iterator<Item = &'a SourceStatus>) -> bool {
    let mut any = false;
    for status in statuses {
        for alarm in status.alarms() {
            any = true;
            eprintln!("warning: source `{}`: {alarm}", status.source);
        }
    }
    if any {
        eprintln!("help: `xdpchain source status` tells which rows, and why");
    }
    any
}

/// What is known of a source, whoever wrote it down.
pub(crate) fn known(store: &Store, name: &str, source: &SourceSpec) -> SourceStatus {
    let mut status = store.read(name).unwrap_or_else(|| SourceStatus {
        source: name.to_owned(),
        from: source.from.to_string(),
        table: source.table.clone(),
        ..SourceStatus::default()
    });
    if status.phase != Phase::Compared && status.phase != Phase::Waiting && !status.is_alive() {
        status.phase = Phase::Waiting;
        status.error = Some("whoever followed it is gone; `xdpchain agent` follows it".to_owned());
    }
    status
}

fn status(out: Output, sources: &[(&str, &SourceSpec)]) -> Result<u8> {
    #[derive(Serialize)]
    struct Statuses {
        sources: Vec<One>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct One {
        #[serde(flatten)]
        status: SourceStatus,
        lag_seconds: Option<f64>,
    }
    let store = Store::of(&Host::open()?);
    let one = |(name, source): &(&str, &SourceSpec)| {
        let status = known(&store, name, source);
        One { lag_seconds: status.lag_seconds(), status }
    };
    let statuses = Statuses { sources: sources.iter().map(one).collect() };
    if statuses.sources.is_empty() {
        eprintln!("chains.yaml has no sources");
    }
    let wide = out.wide();
    out.print("SourceStatus", &statuses, |page| {
        for (i, one) in statuses.sources.iter().enumerate() {
            if i > 0 {
                page.line("");
            }
            show(page, &one.status, wide);
        }
    })?;
    let alarmed = tell_alarms(statuses.sources.iter().map(|one| &one.status));
    Ok(if alarmed { exit::NOT_READY } else { exit::DONE })
}

fn show(page: &mut Page, status: &SourceStatus, wide: bool) {
    page.line(format!(
        "{}: table {} of {}, {}",
        status.source,
        status.table,
        status.from,
        status.phase.name()
    ));
    let lag = match (status.phase, status.lag_seconds()) {
        (_, None) => "never filled".to_owned(),
        (Phase::Following, Some(lag)) if lag < 2.0 => "in step".to_owned(),
        (_, Some(lag)) => format!("in step {lag:.0} s ago"),
    };
    page.line(format!(
        "  {} rows, {} do not fit, {} changes, {lag}{}",
        grouped(status.rows),
        grouped(status.rejected),
        grouped(status.changes),
        status.position.as_ref().map_or_else(String::new, |position| format!(", {position}")),
    ));
    if !status.maps.is_empty() {
        page.line("");
        page.table(
            &["MAP", ">WRITTEN", ">SAME", ">REMOVED", ">KEPT", ">NO ROOM"],
            status.maps.iter().map(|map| {
                let numbers = [map.written, map.same, map.removed, map.kept, map.no_room];
                [vec![map.map.clone()], numbers.map(grouped).to_vec()].concat()
            }),
        );
    }
    let shown = if wide { status.rejections.len() } else { SHOWN };
    if !status.rejections.is_empty() {
        page.line("");
        page.table(
            &["ROW", "WHY IT DOES NOT FIT"],
            status.rejections.iter().take(shown).map(|row| vec![row.key.clone(), row.reason.clone()]),
        );
    }
    let more = status.rejected.saturating_sub(shown as u64);
    if more > 0 {
        page.line(format!("… and {} more", grouped(more)));
    }
}
