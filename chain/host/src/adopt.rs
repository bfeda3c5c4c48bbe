//! A program that somebody else attached: taken into the chain as its last slot, and put back when the chain goes.
//!
//! It is not unloaded: from before it leaves the interface until it is back there, a pinned program array of the chain
//! holds it. One that was attached by a link keeps it: the link runs the chain meanwhile, so that not a packet goes past
//! either. One that was attached by netlink leaves the interface for a moment, since no link takes its place in one step.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, BPF_PSEUDO_MAP_FD, bpf_attach_type, bpf_map_type};
use serde::{Deserialize, Serialize};
use xdpchain_compose::{ADOPTED_MAP, Image, Insn, MapOwner};
use xdpchain_spec::Mode;

use crate::attach::{self, PinnedLink};
use crate::error::{Error, Result};
use crate::interface::{AttachPlace, AttachedProgram, Interface};
use crate::load::{self, Loaded};
use crate::manifest::AttachMode;
use crate::sys::{self, MapCreate, ProgLoad};

/// What to do about a program of somebody else on the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// Leave it alone, and the interface with it.
    #[default]
    Refuse,
    /// Make it the chain's last slot.
    Adopt,
    /// Take it off, for good.
    Replace,
}

/// A program that was attached before the chain came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Where in the receive path it ran.
    pub place: AttachPlace,
    /// The link that it was attached by; none when that was done by netlink.
    pub link: Option<u32>,
    /// Whether it takes packets in several buffers.
    pub frags: bool,
    /// `enum bpf_attach_type` that it was loaded for.
    pub attach_type: u32,
}

/// A program that is about to make room.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub(crate) program: OwnedFd,
    pub(crate) found: Adopted,
    /// Whether it becomes a slot.
    pub(crate) adopt: bool,
}

impl Takeover {
    /// Finds out what is to know of `program`, which runs on `interface`.
    pub(crate) fn of(interface: &Interface, program: AttachedProgram, foreign: Foreign) -> Result<Self> {
        let refused = || attach::foreign(interface, program.id, program.place);
        if foreign == Foreign::Refuse {
            return Err(refused());
        }
        let query = |e| Error::query(format!("program {}", program.id))(e);
        let fd = sys::prog_by_id(program.id).map_err(query)?;
        let name = sys::prog_info(fd.as_fd()).map_err(query)?.name;
        let cannot = |reason: &str, help: &str| Error::CannotTake {
            ifname: interface.name.clone(),
            id: program.id,
            name: name.clone(),
            reason: reason.to_owned(),
            help: help.to_owned(),
        };
        if interface.programs.len() > 1 || program.place == AttachPlace::Offload {
            return Err(cannot(
                "there are several programs on the interface, or it runs in the device",
                &format!(
                    "`ip -d link show dev {}` lists them; leave one, in native or generic mode",
                    interface.name
                ),
            ));
        }
        let links = attach::links_of(interface.index).map_err(Error::query("links"))?;
        let link = links.into_iter().find(|link| link.prog_id == program.id).map(|link| link.id);
        let adopt = foreign == Foreign::Adopt;
        if let (false, Some(link)) = (adopt, link) {
            return Err(cannot(
                &format!("it is attached by link {link}, which nobody but its owner replaces"),
                &format!(
                    "end the process that holds the link, or `bpftool link detach id {link}`; or keep the program, \
                     as the chain's last slot, by `--adopt`"
                ),
            ));
        }
        let (frags, attach_type) = match agreement(fd.as_fd()) {
            Ok(agreed) => agreed,
            Err(_) if !adopt => (false, 0),
            Err(error) => {
                let (reason, help) = match error.raw_os_error() {
                    Some(libc::EBUSY) => (
                        "other programs extend it, as those of libxdp's dispatcher do".to_owned(),
                        "put the modules into libxdp's dispatcher (`engine: libxdp`), or take it off first",
                    ),
                    Some(libc::EPERM) => {
                        return Err(Error::Permission { action: "load a program".to_owned(), source: error });
                    }
                    _ => (
                        format!(
                            "the kernel does not let another program tail call it ({error}): it is bound to a device, \
                             or of another kind"
                        ),
                        "take it off the interface first, or leave the interface to it",
                    ),
                };
                return Err(cannot(&reason, help));
            }
        };
        let found = Adopted { id: program.id, name, place: program.place, link, frags, attach_type };
        Ok(Self { program: fd, found, adopt })
    }

    /// The mode to attach the chain in: where the program ran, unless something else is asked for.
    pub(crate) fn mode(&self, wanted: Mode) -> Mode {
        match (wanted, self.found.place) {
            (Mode::Auto, AttachPlace::Generic) => Mode::Generic,
            (Mode::Auto, _) => Mode::Native,
            (wanted, _) => wanted,
        }
    }

    /// Takes the program off the interface, where netlink has put it.
    pub(crate) fn take_off(&self, interface: &Interface) -> Result<()> {
        interface
            .set_xdp(self.found.place, None, Some(self.program.as_fd()))
            .map_err(Error::query(format!("the program on `{}`", interface.name)))
    }

    /// Puts it back.
    pub(crate) fn put_back(program: BorrowedFd<'_>, place: AttachPlace, interface: &Interface) -> Result<()> {
        interface
            .set_xdp(place, Some(program), None)
            .map_err(Error::query(format!("the program on `{}`", interface.name)))
    }
}

impl Adopted {
    /// Makes the programs of an image such that they can tail call this one.
    pub(crate) fn agree(&self, ifname: &str, image: &mut Image) -> Result<()> {
        if self.frags && image.programs.iter().any(|program| !program.frags) {
            return Err(Error::CannotTake {
                ifname: ifname.to_owned(),
                id: self.id,
                name: self.name.clone(),
                reason: "it takes packets in several buffers (xdp.frags), and a module of the chain does not".to_owned(),
                help: "build every module of the chain with section `xdp.frags`; `xdpchain check` shows which has it"
                    .to_owned(),
            });
        }
        for program in &mut image.programs {
            program.frags &= self.frags;
        }
        Ok(())
    }

    /// Puts `program`, which this is about, into the chain's array for it.
    pub(crate) fn fill(&self, image: &Image, loaded: &Loaded, program: BorrowedFd<'_>) -> Result<()> {
        let Some(map) = adopted_map(image) else { return Ok(()) };
        let failed = |source| Error::Map { action: "fill", name: ADOPTED_MAP.to_owned(), source };
        let array = load::program_array(&loaded.maps[map]).map_err(failed)?;
        sys::map_update(&array, &0u32.to_ne_bytes(), &program.as_raw_fd().to_ne_bytes(), 0).map_err(failed)
    }

    /// The mode of a chain in its place.
    pub(crate) fn attach_mode(&self) -> AttachMode {
        match self.place {
            AttachPlace::Generic => AttachMode::Generic,
            AttachPlace::Native | AttachPlace::Offload => AttachMode::Native,
        }
    }

    /// Puts the program back in the place of the chain that `link` runs. What cannot be restored, in words.
    pub(crate) fn restore(
        &self,
        link: Option<&PinnedLink>,
        path: &std::path::Path,
        ifindex: u32,
    ) -> Result<Option<String>> {
        let program = match sys::prog_by_id(self.id) {
            Ok(program) => program,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(link) = link {
                    link.detach(path)?;
                }
                return Ok(Some("it is not loaded any more".to_owned()));
            }
            Err(e) => return Err(Error::query(format!("program {}", self.id))(e)),
        };
        if self.link.is_some() {
            let Some(link) = link else { return Ok(Some("its link is gone".to_owned())) };
            if link.ifindex().is_none() {
                link.detach(path)?;
                return Ok(Some("its link was detached meanwhile".to_owned()));
            }
            let failed = |e| Error::query(format!("link {}", link.info.id))(e);
            let ours = sys::prog_by_id(link.info.prog_id).map_err(failed)?;
            sys::link_update(link.fd.as_fd(), program.as_fd(), ours.as_fd()).map_err(failed)?;
            crate::store::remove_file(path)?;
            return Ok(None);
        }
        if let Some(link) = link {
            link.detach(path)?;
        }
        let Ok(interface) = Interface::by_index(ifindex) else {
            return Ok(Some("the interface is gone".to_owned()));
        };
        if !interface.programs.is_empty() {
            return Ok(Some("another program is on the interface".to_owned()));
        }
        Takeover::put_back(program.as_fd(), self.place, &interface).map(|()| None)
    }
}

/// Index in the image of the chain's array for an adopted program.
pub(crate) fn adopted_map(image: &Image) -> Option<usize> {
    image.maps.iter().position(|map| map.owner == MapOwner::Chain && map.def.name == ADOPTED_MAP)
}

/// What programs that tail call `program` have to be like: whether they take packets in several buffers, and the attach
/// type that they are loaded for. A program array takes only what is like the first program that used it.
fn agreement(program: BorrowedFd<'_>) -> io::Result<(bool, u32)> {
    let xdp = bpf_attach_type::BPF_XDP as u32;
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for (frags, attach_type) in [(true, xdp), (false, xdp), (true, 0), (false, 0)] {
        let array = sys::map_create(&MapCreate {
            name: "probe",
            map_type: bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            flags: 0,
            extra: 0,
            numa_node: 0,
            inner: None,
            btf: None,
        })?;
        let insn = |code, regs, imm| Insn { code, regs, off: 0, imm };
        let insns = [
            insn(0x18, 2 | (BPF_PSEUDO_MAP_FD as u8) << 4, array.as_raw_fd()),
            insn(0, 0, 0),
            insn(0xb7, 3, 0),
            insn(0x85, 0, 12),
            insn(0xb7, 0, 0),
            insn(0x95, 0, 0),
        ];
        let caller = sys::prog_load(&ProgLoad {
            name: "probe",
            insns: &insns,
            license: "Dual MIT/GPL",
            flags: if frags { BPF_F_XDP_HAS_FRAGS } else { 0 },
            attach_type,
            btf: None,
            replaces: None,
            modules: &[],
        });
        let _caller = match caller {
            Ok(caller) => caller,
            // A kernel that does not know packets in several buffers.
            Err((error, _)) => {
                last = error;
                continue;
            }
        };
        let array = sys::MapFd::new(array)?;
        match sys::map_update(&array, &0u32.to_ne_bytes(), &program.as_raw_fd().to_ne_bytes(), 0) {
            Ok(()) => return Ok((frags, attach_type)),
            Err(error) => last = error,
        }
    }
    Err(last)
}
