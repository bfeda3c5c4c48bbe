//! BTF and the records that go with it. The first two octets are the length of the BTF, what follows it is `.BTF.ext`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_compose::btf::{Btf, BtfExt, Features};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let Some((types, records)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let Ok(btf) = Btf::parse(types) else { return };
    let _ = BtfExt::parse(records, &btf);
    for id in 0..btf.len() + 2 {
        let _ = (btf.resolved(id), btf.size_of(id), btf.name_of(id), btf.same_layout(id, &btf, 1));
        let _ = btf.describe(id);
    }
    let written = Btf::parse(&btf.to_bytes()).expect("what is written can be read");
    assert_eq!(written.len(), btf.len());
    let mut whole = Btf::new();
    whole.append(&btf);
    whole.append(&btf);
    whole.sanitize();
    whole.lower_for(Features { float: false, decl_tag: false, type_tag: false, enum64: false });
    Btf::parse(&whole.to_bytes()).expect("what is lowered can be read");
});
