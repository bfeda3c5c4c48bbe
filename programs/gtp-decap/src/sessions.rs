//! Sessions by where their packets arrive: of any TEID, or in an array by TEIDs that were given out densely.

use core::mem::offset_of;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use xdpchain_abi::{DenseSession, UplinkKey, UplinkSession};

/// Uplink sessions by where their packets arrive.
#[btf_map(name = "sessions")]
static SESSIONS: HashMap<UplinkKey, UplinkSession, 1_048_576> = HashMap::new();

/// Uplink sessions by the lower bits of their TEIDs. With room for one, TEID 0, which no session has, it holds none.
#[btf_map(name = "sessions_dense")]
static DENSE: Array<DenseSession, 1> = Array::new();

/// The session whose packets arrive at `key`, of which the TEID is not 0.
#[inline(always)]
pub(crate) fn find(key: &UplinkKey) -> Option<&'static UplinkSession> {
    if let Some(dense) = DENSE.get(DenseSession::index(key.teid))
        && dense.teid == key.teid
        && dense.local == key.local
    {
        return Some(session(dense));
    }
    // SAFETY: nothing here changes the map, and a session that user space replaces meanwhile is read
    // field by field at worst from both, as in every look-up that takes no lock.
    unsafe { SESSIONS.get(key) }
}

/// What `dense` has behind its key.
#[inline(always)]
fn session(dense: &DenseSession) -> &UplinkSession {
    const AT: usize = size_of::<UplinkKey>();
    const {
        assert!(size_of::<DenseSession>() == AT + size_of::<UplinkSession>());
        assert!(align_of::<DenseSession>() == align_of::<UplinkSession>());
    }
    macro_rules! alike {
        ($($field:ident)+) => {
            $(const { assert!(offset_of!(DenseSession, $field) == AT + offset_of!(UplinkSession, $field)) };)+
        };
    }
    alike!(customer session peer inner4 inner6_len flags vlan tags reserved filter inner6);
    // SAFETY: within the entry, aligned, and its fields are those of a session.
    unsafe { &*core::ptr::from_ref(dense).byte_add(AT).cast() }
}
