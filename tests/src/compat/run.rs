//! Programs in the kernel, and what they do with every packet.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xdpchain_compose::{Image, MapOwner};
use xdpchain_host::load::{self, Loaded};
use xdpchain_host::sys::{self, MapFd, TestRun};
use xdpchain_host::{Error, libxdp};

use super::packets;

/// Bit of a return value that ends a chain whatever the verdict is; it is not part of the verdict.
const FINAL: u32 = xdpchain_abi::XDPCHAIN_FINAL;
/// Verdicts below this are known.
const VERDICTS: u32 = 5;
/// Entries of one map that are looked at.
const ENTRIES: usize = 4096;

/// A loaded program.
#[derive(Debug)]
pub struct Running {
    program: OwnedFd,
    /// The module's own maps, by name.
    maps: BTreeMap<String, MapFd>,
    /// What has to stay open: programs in arrays, maps that only programs refer to, links, the process with libbpf.
    _rest: Box<dyn std::fmt::Debug>,
}

/// The process that has loaded a program by libbpf and holds its maps.
#[derive(Debug)]
struct Loader(Child);

impl Drop for Loader {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Running {
    /// Loads an image, with maps of its own.
    ///
    /// # Errors
    /// The kernel's refusal, in words.
    pub fn of(image: &Image) -> Result<Self, String> {
        let loaded = load::load(image, &mut |_| Ok(None)).map_err(|error| error.to_string())?;
        let program = loaded.program.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        Ok(Self { program, maps: module_maps(image, &loaded)?, _rest: Box::new(loaded) })
    }

    /// Loads an image of libxdp's engine into a dispatcher; nothing where there can be none.
    ///
    /// # Errors
    /// The kernel's refusal, in words.
    pub fn dispatched(image: &Image) -> Result<Option<Self>, String> {
        let trial = match libxdp::try_out(image) {
            Ok(trial) => trial,
            Err(Error::NoExtensions { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let program = trial.program().try_clone_to_owned().map_err(|error| error.to_string())?;
        Ok(Some(Self { program, maps: module_maps(image, &trial.loaded)?, _rest: Box::new(trial) }))
    }
}

fn module_maps(image: &Image, loaded: &Loaded) -> Result<BTreeMap<String, MapFd>, String> {
    let mut maps = BTreeMap::new();
    for (map, loaded) in image.maps.iter().zip(&loaded.maps) {
        if map.owner == MapOwner::Module(super::MODULE.into()) {
            let fd = loaded.fd.try_clone().and_then(MapFd::new).map_err(|error| error.to_string())?;
            maps.insert(map.def.name.clone(), fd);
        }
    }
    Ok(maps)
}

/// Loads a program of an object by libbpf.
///
/// # Errors
/// What libbpf says about it last.
///
/// # Panics
/// When the program that calls libbpf cannot be run.
pub fn libbpf(object: &Path, program: &str) -> Result<Running, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pin = format!("/sys/fs/bpf/xdpchain-compat-{}-{number}", std::process::id());
    let mut alone = Command::new(concat!(env!("OUT_DIR"), "/alone"));
    alone.arg(object).args([program, &pin]);
    // A file, for a verifier's log is more than a pipe takes.
    let mut said = tempfile::tempfile().expect("a file can be made");
    let stderr = said.try_clone().expect("a file can be opened twice");
    alone.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    let mut loader = Loader(alone.spawn().expect("`alone` was built with this crate"));
    let mut answer = String::new();
    let stdout = loader.0.stdout.take().expect("its output is a pipe");
    // Nothing comes when it ends before it has loaded the program.
    BufReader::new(stdout).read_line(&mut answer).expect("a pipe can be read");
    if !answer.starts_with("loaded") {
        let mut why = Vec::new();
        said.rewind().and_then(|()| said.read_to_end(&mut why)).expect("a file can be read");
        return Err(last_words(&String::from_utf8_lossy(&why)));
    }
    let opened = sys::open_pin(Path::new(&pin));
    let _ = std::fs::remove_file(&pin);
    let program = opened.map_err(|error| format!("opening what libbpf pinned: {error}"))?;
    Ok(Running { program, maps: BTreeMap::new(), _rest: Box::new(loader) })
}

/// The first of libbpf's lines that says what is wrong; the verifier's log before it when there is one.
fn last_words(said: &str) -> String {
    let line = |text: &str| text.trim().trim_start_matches("libbpf: ").to_owned();
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let log = lines.iter().position(|line| line.contains("-- END PROG LOAD LOG"));
    let verifier = log.and_then(|end| {
        lines[..end]
            .iter()
            .rev()
            .find(|line| !line.starts_with("processed ") && !line.starts_with("libbpf: "))
    });
    let other =
        || lines.iter().find(|line| line.starts_with("libbpf: ") && !line.starts_with("libbpf: elf: "));
    verifier.or_else(other).or(lines.last()).map_or_else(|| "no reason given".to_owned(), |text| line(text))
}

/// Verdict and octets, or the number of the kernel's error.
type Answer = Result<(u32, Vec<u8>), i32>;
/// A map's name, and a key of it.
type Key = (String, Vec<u8>);

/// What a program did with the packets, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// For each packet verdict and octets, or the kernel's refusal to run it; none when it cannot be told.
    packets: Vec<Option<Answer>>,
    /// Whether some return value was no verdict.
    strange: bool,
    /// What the module's maps held afterwards, by map and key; no value when it cannot be told.
    maps: BTreeMap<Key, Option<Vec<u8>>>,
}

/// Runs a program on every packet, all on one CPU, which per-CPU maps tell apart.
///
/// # Panics
/// When the thread cannot be bound to a CPU.
pub fn behaviour(running: &Running) -> Behaviour {
    let mut first = CpuSet::new();
    first.set(0).expect("there is a first CPU");
    sched_setaffinity(Pid::from_raw(0), &first).expect("a thread may choose its CPU");
    let mut result = Behaviour::default();
    for (_, packet) in packets() {
        let run = TestRun { packet: &packet, ..TestRun::default() };
        let outcome = sys::prog_test_run(running.program.as_fd(), &run);
        result.strange |= outcome.as_ref().is_ok_and(|run| run.verdict >= VERDICTS);
        let outcome = outcome.map(|run| (verdict(run.verdict), run.packet));
        result.packets.push(Some(outcome.map_err(|error| error.raw_os_error().unwrap_or_default())));
    }
    for (name, map) in &running.maps {
        let mut key = None;
        // Some kinds of maps cannot be walked or looked into.
        while let Ok(Some(next)) = sys::map_next_key(map, key.as_deref()) {
            if let Ok(Some(value)) = sys::map_lookup(map, &next) {
                result.maps.insert((name.clone(), next.clone()), Some(value));
            }
            key = Some(next);
            if result.maps.len() > ENTRIES {
                break;
            }
        }
    }
    result
}

/// What becomes of a packet: the kernel aborts on what is no verdict.
fn verdict(returned: u32) -> u32 {
    let plain = returned & !FINAL;
    if plain < VERDICTS { plain } else { 0 }
}

impl Behaviour {
    /// Leaves out what is not the same in two runs of the same program.
    pub fn forget_what_changes(&mut self, one: &Self, other: &Self) {
        for (i, packet) in self.packets.iter_mut().enumerate() {
            if one.packets[i] != other.packets[i] {
                *packet = None;
            }
        }
    }

    /// Takes over what the maps held, but for what another run left differently.
    pub fn take_maps(&mut self, from: Self, again: Option<&Self>) {
        self.maps = from.maps;
        for (key, value) in &mut self.maps {
            if again.is_some_and(|again| again.maps.get(key) != Some(value)) {
                *value = None;
            }
        }
        let gone = again.into_iter().flat_map(|again| again.maps.keys());
        for key in gone {
            self.maps.entry(key.clone()).or_insert(None);
        }
    }

    /// Packets that can be compared.
    pub fn comparable(&self) -> usize {
        self.packets.iter().flatten().count()
    }

    /// Whether the program returned something that is no verdict.
    pub fn is_strange(&self) -> bool {
        self.strange
    }

    /// Where another program of the same object did something else.
    pub fn difference(&self, other: &Self, maps: bool) -> Option<String> {
        for (((name, _), wanted), found) in packets().iter().zip(&self.packets).zip(&other.packets) {
            let (Some(wanted), Some(found)) = (wanted, found) else { continue };
            match (wanted, found) {
                (Ok(wanted), Ok(found)) if wanted == found => {}
                (Err(wanted), Err(found)) if wanted == found => {}
                (Ok((wanted, a)), Ok((found, b))) if wanted == found => {
                    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
                    return Some(format!(
                        "packet `{name}` differs from octet {at} on ({} and {} octets)",
                        a.len(),
                        b.len()
                    ));
                }
                (Ok((wanted, _)), Ok((found, _))) => {
                    return Some(format!("packet `{name}` gets verdict {found}, not {wanted}"));
                }
                (wanted, found) => {
                    return Some(format!(
                        "packet `{name}`: {:?}, not {:?}",
                        found.as_ref().err(),
                        wanted.as_ref().err()
                    ));
                }
            }
        }
        if !maps {
            return None;
        }
        let differs =
            |(key, wanted): (&Key, &Option<Vec<u8>>)| wanted.is_some() && other.maps.get(key) != Some(wanted);
        if let Some(((map, key), _)) = self.maps.iter().find(|entry| differs(*entry)) {
            return Some(format!("entry {key:02x?} of map `{map}` holds something else"));
        }
        let more = other.maps.keys().find(|key| !self.maps.contains_key(*key));
        more.map(|(map, key)| format!("map `{map}` has an entry {key:02x?} more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_differ_by_verdict_octets_and_maps() {
        let of = |verdict: u32, octets: &[u8], value: u8| Behaviour {
            packets: vec![Some(Ok((verdict, octets.to_vec())))],
            strange: false,
            maps: [(("m".to_owned(), vec![0]), Some(vec![value]))].into(),
        };
        let one = of(2, &[1, 2], 7);
        assert_eq!(one.difference(&one, true), None);
        assert!(one.difference(&of(1, &[1, 2], 7), true).is_some_and(|d| d.contains("verdict 1, not 2")));
        assert!(one.difference(&of(2, &[1, 3], 7), true).is_some_and(|d| d.contains("octet 1")));
        assert!(one.difference(&of(2, &[1, 2], 8), true).is_some_and(|d| d.contains("map `m`")));
        assert_eq!(one.difference(&of(2, &[1, 2], 8), false), None);
        let mut unsure = one.clone();
        unsure.forget_what_changes(&one, &of(1, &[1, 2], 7));
        assert_eq!((unsure.difference(&of(3, &[], 7), true), unsure.comparable()), (None, 0));
    }

    #[test]
    fn libbpfs_reason_is_found_among_its_lines() {
        let refused = "libbpf: prog 'a': BPF program load failed: Permission denied\n\
            libbpf: prog 'a': -- BEGIN PROG LOAD LOG --\n0: (95) exit\nR0 !read_ok\nprocessed 1 insns\n\
            -- END PROG LOAD LOG --\nlibbpf: failed to load object\n";
        assert_eq!(last_words(refused), "R0 !read_ok");
        let unread = "libbpf: elf: skipping section\nlibbpf: map 'counts': unsupported map linkage static.\n";
        assert_eq!(last_words(unread), "map 'counts': unsupported map linkage static.");
    }
}
