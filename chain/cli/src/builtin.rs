//! The objects that are part of the binary.

/// Octets that begin where an ELF header may.
#[repr(C, align(8))]
struct Aligned<Octets: ?Sized>(Octets);

macro_rules! builtins {
    ($($name:literal),+ $(,)?) => {
        /// Every built-in object: its name, and the ELF file.
        pub(crate) static BUILTINS: &[(&str, &[u8])] = &[$(($name, {
            static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".o")));
            &OBJECT.0
        })),+];
    };
}

builtins!["gtp-decap", "gre-decap", "acl", "gre-steer", "gtp-encap", "stats", "adopted"];

/// The built-in object of that name.
pub(crate) fn find(name: &str) -> Option<&'static [u8]> {
    BUILTINS.iter().find(|(builtin, _)| *builtin == name).map(|(_, object)| *object)
}

/// The names, for messages.
pub(crate) fn names() -> Vec<&'static str> {
    BUILTINS.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpchain_compose::object::Object;

    #[test]
    fn each_is_an_object_with_one_xdp_program() {
        assert_eq!(BUILTINS.len(), 7);
        for (name, bytes) in BUILTINS {
            let object = Object::parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            object.xdp_program(None).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(find("gtp-decap").is_some() && find("gtp").is_none());
    }
}
