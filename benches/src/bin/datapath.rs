//! What the data path costs a packet: the chain of six and its beginnings, beside the least that can be done to a packet
//! and beside the same work written by hand as one function; and packets a second over a veth.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context as _;
use xdpchain_benches::datapath::{self, Objects};
use xdpchain_benches::entries;
use xdpchain_benches::frames::{self, Frame, Gtp};
use xdpchain_benches::report::{Report, Row, bar};
use xdpchain_benches::rig::{Case, DROP, On, PASS, REDIRECT, Subject, TX, in_turn};
use xdpchain_host::{Map, sys};
use xdpchain_tests::{Links, Netns};

const ROUNDS: usize = 31;
const REPEAT: u32 = 50_000;
/// Sessions to draw from.
const SESSIONS: u32 = 1000;
/// Tunnels of customers that have several.
const TUNNELS: u32 = 2;
/// Octets of the inner packet, the first of which has the plain names.
const INSIDE: [usize; 4] = [64, 128, 512, 1400];
/// Copies of each program that is compared with others.
const COPIES: usize = 5;
/// Packets of a run with live frames, and how many runs.
const LIVE: u32 = 1_000_000;
const LIVE_RUNS: usize = 7;
/// `XDP_FLAGS_DRV_MODE`.
const DRIVER_MODE: u32 = 4;

fn main() -> anyhow::Result<ExitCode> {
    let links = Links::new();
    // Maps, programs and runs are of the namespace in which the next hops are.
    let report = links.node.run(|| measure(&links))?;
    report.finish()?;
    Ok(if judge(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(links: &Links) -> anyhow::Result<Report> {
    let objects = Objects::read()?;
    let (radio, cloud) = (links.node.ifindex("n3"), links.node.ifindex("n6"));
    let chain = copies(|| chain(&objects, objects.len(), false))?;
    let container = copies(|| self::chain(&objects, objects.len(), true))?;
    let several = copies(|| {
        let chain = self::chain(&objects, objects.len(), false)?;
        chain.fill("gre-steer", "customers", &entries::customers(TUNNELS))?;
        Ok(chain)
    })?;
    let keyed = copies(|| {
        let chain = self::chain(&objects, objects.len(), false)?;
        chain.fill("gre-decap", "tunnels", &entries::ingress(true))?;
        chain.fill("gre-steer", "tunnels", &entries::tunnels(true))?;
        Ok(chain)
    })?;
    let kept = copies(|| datapath::monolith(false, cloud, SESSIONS))?;
    let asked = copies(|| datapath::monolith(true, cloud, SESSIONS))?;

    let (mut uplinks, mut downlinks) = (Vec::new(), Vec::new());
    let least = |what: usize| {
        let subject = Subject::c("floor", &[("FLOOR", what), ("SESSIONS", SESSIONS as usize)])?;
        Ok::<_, anyhow::Error>([Rc::new(subject)])
    };
    let plain = frames::uplink(Gtp::Plain, INSIDE[0]);
    let mut up = |name: String, subjects: &[Rc<Subject>], frame: &Frame, verdict| -> anyhow::Result<()> {
        uplinks.push(Case::of_copies(name, subjects, (frame, SESSIONS), verdict)?);
        Ok(())
    };
    up("floor/resize".into(), &least(4)?, &plain, TX)?;
    up("floor/lookup".into(), &copies(|| datapath::looked_up(5, SESSIONS))?, &plain, TX)?;
    up("floor/index".into(), &copies(|| datapath::looked_up(6, SESSIONS))?, &plain, TX)?;
    for inside in INSIDE {
        let plain = frames::uplink(Gtp::Plain, inside);
        up(named("uplink", inside, "monolith"), &kept, &plain, REDIRECT)?;
        up(named("uplink", inside, "monolith-fib"), &asked, &plain, REDIRECT)?;
        up(named("uplink", inside, "chain"), &chain, &plain, REDIRECT)?;
        up(named("uplink-seq", inside, "chain"), &chain, &frames::uplink(Gtp::Sequence, inside), REDIRECT)?;
        up(named("uplink-psc", inside, "chain"), &chain, &frames::uplink(Gtp::Container, inside), REDIRECT)?;
        up(named("inner6", inside, "chain"), &chain, &frames::uplink6(inside), REDIRECT)?;
        up(named("acl-drop", inside, "chain"), &chain, &frames::denied(inside), DROP)?;
        let not_ours = frames::not_ours(inside + 36);
        up(named("not-ours", inside, "chain"), &chain, &not_ours, PASS)?;
        up(named("not-ours", inside, "pass"), &least(2)?, &not_ours, PASS)?;
        let down = frames::downlink(inside);
        for (name, chain) in [("downlink", &chain), ("downlink-psc", &container)] {
            let case = Case::of_copies(named(name, inside, "chain"), chain, (&down, SESSIONS), REDIRECT)?;
            downlinks.push(case);
        }
    }
    up("uplink-tag/chain".into(), &chain, &frames::tagged(&plain), REDIRECT)?;
    let not_ours = frames::tagged(&frames::not_ours(INSIDE[0] + 36));
    up("not-ours-tag/chain".into(), &chain, &not_ours, PASS)?;
    let down = frames::tagged(&frames::downlink(INSIDE[0]));
    downlinks.push(Case::of_copies("downlink-tag/chain", &chain, (&down, SESSIONS), REDIRECT)?);
    up("uplink-tunnels/chain".into(), &several, &plain, REDIRECT)?;
    up("uplink-key/chain".into(), &keyed, &plain, REDIRECT)?;
    let down = frames::downlink_keyed(INSIDE[0]);
    downlinks.push(Case::of_copies("downlink-key/chain", &keyed, (&down, SESSIONS), REDIRECT)?);
    for slots in 1..=objects.len() {
        let verdict = if slots < 4 { PASS } else { REDIRECT };
        let subjects = [Rc::new(self::chain(&objects, slots, false)?)];
        up(format!("uplink/prefix-{slots}"), &subjects, &plain, verdict)?;
    }

    let mut report = Report::new("datapath");
    in_turn(&mut uplinks, On { ifindex: radio }, ROUNDS, REPEAT)?;
    in_turn(&mut downlinks, On { ifindex: cloud }, ROUNDS, REPEAT)?;
    let harness: Vec<f64> = uplinks[0].harness();
    report.rows.push(Row::of("floor/tx", "ns", &harness));
    report.rows.push(Row::of("floor/tx-worst", "ns", &[harness.iter().copied().fold(0.0, f64::max)]));
    report.rows.extend(uplinks.iter().chain(&downlinks).map(Case::row));

    let redirect = [("FLOOR", 3), ("SESSIONS", 1), ("OUT", cloud as usize)];
    let redirect = Rc::new(Subject::c("floor", &redirect)?);
    let down = frames::downlink(INSIDE[0]);
    let live = [
        (Case::new("live/redirect", &redirect, (&plain, SESSIONS), REDIRECT)?, radio, &links.cloud, "cloud0"),
        (Case::new("live/monolith", &kept[0], (&plain, SESSIONS), REDIRECT)?, radio, &links.cloud, "cloud0"),
        (Case::new("live/uplink", &chain[0], (&plain, SESSIONS), REDIRECT)?, radio, &links.cloud, "cloud0"),
        (Case::new("live/downlink", &chain[0], (&down, SESSIONS), REDIRECT)?, cloud, &links.ran, "ran0"),
    ];
    for (case, ifindex, end, interface) in live {
        let sink = Sink::attach(end, interface)?;
        let mut runs = Vec::new();
        for _ in 0..LIVE_RUNS {
            runs.push(case.live(On { ifindex }, LIVE, &sink.arrived)?);
        }
        report.rows.push(Row::of(case.name(), "packets/s", &runs));
    }
    Ok(report)
}

/// Copies of a program, each with maps of its own.
fn copies(make: impl Fn() -> anyhow::Result<Subject>) -> anyhow::Result<Vec<Rc<Subject>>> {
    (0..COPIES).map(|_| make().map(Rc::new)).collect()
}

/// `uplink/chain` for the first size, `uplink-512/chain` for another.
fn named(what: &str, inside: usize, by: &str) -> String {
    if inside == INSIDE[0] { format!("{what}/{by}") } else { format!("{what}-{inside}/{by}") }
}

/// A chain of the first `slots` modules with the sessions to draw from.
fn chain(objects: &Objects, slots: usize, container: bool) -> anyhow::Result<Subject> {
    let chain = datapath::chain(objects, slots, |_| {})?;
    datapath::add_sessions(&chain, 0..SESSIONS, container)?;
    Ok(chain)
}

/// What counts and drops at the far end of a veth, as long as it lives.
struct Sink {
    arrived: Map,
    _link: OwnedFd,
}

impl Sink {
    fn attach(end: &Netns, interface: &str) -> anyhow::Result<Self> {
        let sink = Subject::c("sink", &[])?;
        let link = end
            .run(|| sys::link_create_xdp(sink.program(), end.ifindex(interface), DRIVER_MODE))
            .with_context(|| format!("attaching to {interface}"))?;
        Ok(Self { arrived: sink.own_map("arrived")?, _link: link })
    }
}

/// The bars that the data path has to keep.
fn judge(report: &Report) -> bool {
    let ns = |case: &str| report.value(case).expect("every case has run");
    println!();
    let kept = [
        bar("uplink/chain to uplink/monolith", ns("uplink/chain") / ns("uplink/monolith"), 1.35),
        bar("uplink/chain to floor/lookup", ns("uplink/chain") / ns("floor/lookup"), 2.5),
        bar("not ours, six slots over one pass, ns", ns("not-ours/chain") - ns("not-ours/pass"), 15.0),
    ];
    kept.iter().all(|k| *k)
}
