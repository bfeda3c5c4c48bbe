//! What became of an interface's chain: told to people on stderr, printed for programs on stdout.

use serde::Serialize;
use xdpchain_host::{self as host, Adopted, Change, Outcome};

use crate::error::{Result, exit};
use crate::output::{Output, grouped};

/// What a change did, or would do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed<'a> {
    interface: &'a str,
    chain: &'a str,
    generation: u64,
    /// The generation before; none when there was none.
    before: Option<u64>,
    engine: &'static str,
    engine_reason: Option<&'a str>,
    mode: &'static str,
    mode_reason: Option<&'a str>,
    program_id: u32,
    program: &'a str,
    /// Programs that the chain is made of.
    programs: usize,
    slots: Vec<&'a str>,
    verified_instructions: u32,
    /// Maps whose entries were carried over to another layout or size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    migrated: Vec<Migrated>,
    /// How long the one step took that packets notice.
    swap_microseconds: f64,
    dry_run: bool,
}

/// A map whose entries were, or would be, carried over.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Migrated {
    map: String,
    entries: usize,
    /// Entries that were written while the others were carried over.
    since: usize,
    /// Entries that found no room in the new map by then.
    lost: usize,
    max_entries_before: u32,
    max_entries: u32,
    /// What becomes of the fields, in words.
    fields: Vec<String>,
    seconds: f64,
}

impl Migrated {
    fn of(migrated: &host::Migrated) -> Self {
        Self {
            map: format!("{}/{}", migrated.module, migrated.map),
            entries: migrated.entries,
            since: migrated.since,
            lost: migrated.lost,
            max_entries_before: migrated.max_entries.0,
            max_entries: migrated.max_entries.1,
            fields: migrated.changes.iter().map(ToString::to_string).collect(),
            seconds: migrated.took.as_secs_f64(),
        }
    }

    fn tell(&self, dry_run: bool) {
        let Self { map, seconds, .. } = self;
        eprintln!(
            "{} map {map}: {} entries in {seconds:.2} s{}",
            if dry_run { "would migrate" } else { "migrated" },
            grouped(self.entries as u64),
            match self.max_entries == self.max_entries_before {
                true => String::new(),
                false => format!(", room for {}", grouped(self.max_entries.into())),
            },
        );
        self.fields.iter().for_each(|field| eprintln!("  {field}"));
        if self.lost > 0 {
            eprintln!("warning: map {map} was full by then: {} entries are lost", grouped(self.lost as u64));
        }
    }
}

impl<'a> Changed<'a> {
    pub(super) fn of(change: &'a Change) -> Self {
        let after = &change.after;
        // Only attaching tells what the driver takes.
        let untried = change.dry_run && change.before.is_none();
        Self {
            interface: &after.ifname,
            chain: &after.state.chain.name,
            generation: after.generation,
            before: change.before.as_ref().map(|before| before.generation),
            engine: after.engine.name(),
            engine_reason: after.engine_reason.as_deref(),
            mode: if untried { after.state.chain.mode.name() } else { after.mode.name() },
            mode_reason: after.mode_reason.as_deref(),
            program_id: after.program.id,
            program: &after.program.name,
            programs: 1 + after.others.len(),
            slots: after.state.chain.slots.iter().map(|slot| slot.name.as_str()).collect(),
            verified_instructions: change.verified_insns,
            migrated: change.migrated.iter().map(Migrated::of).collect(),
            swap_microseconds: change.swap_time.as_secs_f64() * 1e6,
            dry_run: change.dry_run,
        }
    }

    /// Tells people; `done` is what was done to the chain.
    pub(super) fn tell(&self, done: &str) {
        eprintln!(
            "{}{done} chain `{}` on {}: generation {}, {}, {}, {} instructions verified",
            if self.dry_run { "dry run: " } else { "" },
            self.chain,
            self.interface,
            self.generation,
            self.engine,
            self.mode,
            grouped(self.verified_instructions.into()),
        );
        if self.before.is_none()
            && let Some(reason) = self.mode_reason
        {
            eprintln!("note: not in native mode: {reason}");
        }
        if let Some(reason) = self.engine_reason {
            eprintln!("note: engine {}: {reason}", self.engine);
        }
        self.migrated.iter().for_each(|migrated| migrated.tell(self.dry_run));
    }
}

/// What taking a chain off did, or would do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detached<'a> {
    interface: &'a str,
    chain: Option<&'a str>,
    generation: Option<u64>,
    /// The program that had been adopted.
    adopted: Option<u32>,
    /// Why that is not back on the interface.
    not_restored: Option<&'a str>,
    dry_run: bool,
    #[serde(skip)]
    program: Option<&'a Adopted>,
}

impl<'a> Detached<'a> {
    pub(super) fn of(interface: &'a str, done: &'a host::Detached, dry_run: bool) -> Self {
        let manifest = done.manifest.as_ref();
        let program = manifest.and_then(|manifest| manifest.adopted.as_ref());
        Self {
            interface,
            chain: manifest.map(|manifest| manifest.state.chain.name.as_str()),
            generation: manifest.map(|manifest| manifest.generation),
            adopted: program.map(|program| program.id),
            not_restored: done.not_restored.as_deref(),
            dry_run,
            program,
        }
    }

    /// Tells people.
    pub(super) fn tell(&self) {
        let iface = self.interface;
        let done = if self.dry_run { "would detach" } else { "detached" };
        eprintln!("{done} chain `{}` from {iface}", self.chain.unwrap_or("?"));
        let Some(Adopted { id, name, link, .. }) = self.program else { return };
        match (self.not_restored, link) {
            (Some(reason), _) => {
                eprintln!("warning: program {id} (`{name}`) is not back on {iface}: {reason}")
            }
            (None, Some(link)) => eprintln!(
                "program {id} (`{name}`) runs on {iface} again, by its link {link}; when nothing holds that any more, it \
                 goes with it"
            ),
            (None, None) => eprintln!("program {id} (`{name}`) runs on {iface} again"),
        }
    }
}

/// Tells people on stderr, and programs on stdout.
pub(super) fn print(out: Output, change: &Change, done: &str) -> Result<u8> {
    let changed = Changed::of(change);
    changed.tell(done);
    out.print("Change", &changed, |_| ())?;
    Ok(exit::DONE)
}

/// One of the interfaces of a transaction.
#[derive(Serialize)]
#[serde(tag = "done", rename_all = "lowercase")]
enum One<'a> {
    Changed(Changed<'a>),
    Detached(Detached<'a>),
}

/// A change on trial, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trial {
    /// Seconds until it is over.
    pub(super) seconds: u64,
    /// Whether it goes back unless it is confirmed.
    pub(super) confirm: bool,
}

/// Tells people and programs of a transaction. `done` is what was done to chains that were there before.
pub(super) fn print_all(
    out: Output,
    kind: &str,
    outcomes: &[Outcome],
    (done, dry_run): (&str, bool),
    trial: Option<Trial>,
) -> Result<()> {
    #[derive(Serialize)]
    struct All<'a> {
        interfaces: Vec<One<'a>>,
        trial: Option<Trial>,
    }
    let mut interfaces = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        interfaces.push(match outcome {
            Outcome::Changed(change) => {
                let changed = Changed::of(change);
                changed.tell(if change.before.is_some() { done } else { "attached" });
                One::Changed(changed)
            }
            Outcome::Detached(detached) => {
                let iface = detached.manifest.as_ref().map_or("?", |manifest| manifest.ifname.as_str());
                let detached = Detached::of(iface, detached, dry_run);
                detached.tell();
                One::Detached(detached)
            }
        });
    }
    let all = All { interfaces, trial };
    out.print(kind, &all, |_| ())
}
