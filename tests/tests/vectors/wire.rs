//! One fixture across a veth pair: sent to the interface that has the chain, received where the verdict leads.
//!
//! What passes is seen as the kernel gets it, and without its first VLAN tag, which the kernel takes off before it shows a frame
//! to anybody. Not sent are fixtures that want an interface with less headroom, and frames longer than the interfaces take.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Mutex,
    time::{Duration, Instant},
};

use aya::{Ebpf, programs::Xdp};
use xdpchain_golden::Fixture;
use xdpchain_host::sys;
use xdpchain_tests::{Netns, Port, cli::object};

use crate::run::chain;

/// How long a frame may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets of the longest frame.
const LONGEST: usize = 1514;
/// `XDP_FLAGS_DRV_MODE`.
const NATIVE: u32 = 1 << 2;
/// Interfaces with the chain, and the other end of each.
const PAIRS: [(&str, &str); 2] = [("access0", "access1"), ("cloud0", "cloud1")];

/// The interfaces, of which one packet at a time has the use.
#[derive(Default)]
pub(crate) struct Wire(Mutex<Option<Ends>>);

/// Programs on the other ends: veth takes what XDP transmits only when the receiver has a program.
struct Ends {
    _program: Ebpf,
    _links: Vec<OwnedFd>,
}

impl Ends {
    fn new(ns: &Netns) -> Result<Self, String> {
        let mut ebpf = Ebpf::load(object::PASSING).map_err(|e| chain(&e))?;
        let program = ebpf.programs_mut().next().ok_or("the object has a program")?.1;
        let program: &mut Xdp = program.try_into().map_err(|e| chain(&e))?;
        program.load().map_err(|e| chain(&e))?;
        let fd = program.fd().map_err(|e| chain(&e))?.as_fd().try_clone_to_owned().map_err(|e| chain(&e))?;
        let links = PAIRS.map(|(_, far)| attach(fd.as_fd(), ns.ifindex(far)));
        Ok(Self { _program: ebpf, _links: links.into_iter().collect::<Result<_, _>>()? })
    }
}

fn attach(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd, String> {
    sys::link_create_xdp(program, ifindex, NATIVE).map_err(|error| format!("attaching: {error}"))
}

impl Wire {
    /// Whether the fixture can be sent.
    pub(crate) fn takes(fixture: &Fixture) -> Result<bool, String> {
        let length = fixture.input().map_err(|error| error.to_string())?.len();
        Ok(fixture.headroom.is_none() && length <= LONGEST)
    }

    /// Sends the fixture's packet through `program`, once `prepare` has made its maps ready. `ended` is how often the chain ended so
    /// far, and `judge` compares what it left.
    pub(crate) fn send(
        &self,
        ns: &Netns,
        fixture: &Fixture,
        program: BorrowedFd<'_>,
        prepare: impl FnOnce() -> Result<(), String>,
        ended: impl Fn() -> Result<u64, String>,
        judge: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let mut ends = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ends.is_none() {
            *ends = Some(Ends::new(ns)?);
        }
        let wanted = fixture.ingress.as_deref().unwrap_or("access0");
        let at = PAIRS.iter().position(|(near, _)| *near == wanted);
        let at = at.ok_or_else(|| format!("nothing can be sent to `{wanted}`"))?;
        let (near, far) = PAIRS[at];
        let to = match fixture.expect.verdict.trim_end_matches("+final") {
            "pass" => Some(near),
            "tx" => Some(far),
            "redirect" => Some(PAIRS[1 - at].1),
            _ => None,
        };
        let receiver = to.map(|interface| Port::open(ns, interface));
        let _link = attach(program, ns.ifindex(near))?;
        prepare()?;
        let before = ended()?;
        Port::open(ns, far).send(&fixture.input().map_err(|error| error.to_string())?);
        let start = Instant::now();
        while ended()? == before {
            if start.elapsed() > PATIENCE {
                return Err("the packet did not come to the chain".to_owned());
            }
            std::thread::yield_now();
        }
        judge()?;
        let expected = untagged(fixture.output().map_err(|error| error.to_string())?);
        match receiver {
            Some(receiver) if receiver.receive_where(PATIENCE, |frame| *frame == expected).is_none() => {
                Err(format!("no such packet came out at `{}`", to.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}

/// A frame without its first tag.
fn untagged(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() >= 18 && matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        frame.drain(12..16);
    }
    frame
}
