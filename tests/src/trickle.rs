//! A trickle of numbered frames through one interface, and an account of what came through.
//!
//! Slow enough that no queue overflows: a frame that does not come through was lost by the chain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use std::sync::Arc;

use crate::{Netns, Port, plan};

/// The frames' EtherType, one that nobody uses.
const ETHERTYPE: u16 = 0x88b5;
/// Length of what is before a frame's number: the Ethernet header, and an octet for a mark.
const BEFORE: usize = 15;

/// Frames that are being sent, until [`Self::stop`].
#[derive(Debug)]
pub struct Trickle {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u32>,
    receiver: JoinHandle<Arrived>,
}

/// What came through.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Frames that were sent.
    pub sent: u32,
    /// How often each number came.
    pub numbers: BTreeMap<u32, u32>,
    /// Frames by the octet before their number.
    pub marks: BTreeMap<u8, u32>,
}

impl Arrived {
    /// How many never came.
    pub fn lost(&self) -> u32 {
        self.sent - self.numbers.len() as u32
    }

    /// How many came more than once.
    pub fn duplicated(&self) -> usize {
        self.numbers.values().filter(|count| **count > 1).count()
    }
}

impl Trickle {
    /// Sends from `from` of `far` until it is stopped; what comes through `to` of `near` is accounted for.
    pub fn start((far, from): (&Netns, &str), (near, to): (&Netns, &str)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (out, into) = (Port::open(far, from), Port::open(near, to));
        let source = far.mac(from);
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let mut number = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                let mut payload = vec![0; 50];
                payload[1..5].copy_from_slice(&number.to_be_bytes());
                out.send(&plan::frame([0xff; 6], source, ETHERTYPE, &payload));
                number += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            number
        });
        let stopped = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || {
            let mut arrived = Arrived::default();
            loop {
                match into.receive(Duration::from_millis(300)) {
                    Some(frame) if frame.get(12..14) == Some(&ETHERTYPE.to_be_bytes()[..]) => {
                        let number: [u8; 4] = frame[BEFORE..BEFORE + 4].try_into().expect("four octets");
                        *arrived.numbers.entry(u32::from_be_bytes(number)).or_default() += 1;
                        *arrived.marks.entry(frame[BEFORE - 1]).or_default() += 1;
                    }
                    Some(_) => {}
                    None if stopped.load(Ordering::Relaxed) => return arrived,
                    None => {}
                }
            }
        });
        Self { stop, sender, receiver }
    }

    /// Stops sending, and waits for what is under way.
    ///
    /// # Panics
    /// When one of the threads did.
    pub fn stop(self) -> Arrived {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("sending does not panic");
        let arrived = self.receiver.join().expect("receiving does not panic");
        Arrived { sent, ..arrived }
    }
}
