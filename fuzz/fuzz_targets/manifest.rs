//! A generation's manifest: whatever the file holds, it is read or refused with a place, and what was read is written and
//! read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpchain_host::Manifest;

fuzz_target!(|bytes: &[u8]| {
    match serde_json::from_slice::<Manifest>(bytes) {
        Ok(manifest) => {
            let text = serde_json::to_string(&manifest).expect("a manifest is JSON");
            let again: Manifest = serde_json::from_str(&text).expect("what is written can be read");
            assert_eq!(again, manifest);
            let _ = manifest.state.planned();
        }
        Err(error) => assert!(error.to_string().contains("at line "), "{error}"),
    }
});
