//! Kinds of types that the running kernel takes in BTF: asked of it, once, by loading one of each.

use std::sync::OnceLock;

use xdpchain_compose::btf::{Btf, EnumValue, Enumeration, Features, Type};

use crate::sys;

/// The kinds that the running kernel knows beyond those of Linux 5.10.
pub(crate) fn btf() -> Features {
    static KNOWN: OnceLock<Features> = OnceLock::new();
    *KNOWN.get_or_init(|| probe(&mut |btf| sys::btf_load(&btf.to_bytes()).is_ok()))
}

/// The kinds that `takes` takes. Nearly always that is all of them, which takes one question.
fn probe(takes: &mut dyn FnMut(&Btf) -> bool) -> Features {
    let mut all = base();
    for sample in [float(), decl_tag(), type_tag(), enum64()] {
        all.push(sample);
    }
    // A kernel that takes not even an integer is not asked the right way, and the load that follows will say why.
    if takes(&all) || !takes(&base()) {
        return Features::ALL;
    }
    let mut one = |sample| {
        let mut btf = base();
        btf.push(sample);
        takes(&btf)
    };
    Features {
        float: one(float()),
        decl_tag: one(decl_tag()),
        type_tag: one(type_tag()),
        enum64: one(enum64()),
    }
}

/// An integer, a pointer to it and a name for it: types 1 to 3, for the samples to refer to.
fn base() -> Btf {
    let mut btf = Btf::new();
    btf.push(Type::Int { name: "int".into(), size: 4, encoding: 0, offset: 0, bits: 32 });
    btf.push(Type::Ptr { to: 1 });
    btf.push(Type::Typedef { name: "number".into(), to: 1 });
    btf
}

fn float() -> Type {
    Type::Float { name: "float".into(), size: 4 }
}

fn decl_tag() -> Type {
    Type::DeclTag { name: "tag".into(), ty: 3, component: -1, attribute: false }
}

fn type_tag() -> Type {
    Type::TypeTag { name: "tag".into(), to: 1, attribute: false }
}

fn enum64() -> Type {
    let values = vec![EnumValue { name: "LARGE".into(), value: 1 << 40 }];
    Type::Enum64(Enumeration { name: "large".into(), size: 8, signed: false, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Features = Features { float: false, decl_tag: false, type_tag: false, enum64: false };

    #[test]
    fn a_kernel_that_takes_everything_is_asked_once() {
        let mut asked = 0;
        let features = probe(&mut |_| {
            asked += 1;
            true
        });
        assert_eq!((features, asked), (Features::ALL, 1));
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let known =
            |btf: &Btf| !btf.iter().any(|(_, ty)| matches!(ty, Type::TypeTag { .. } | Type::Enum64(_)));
        let features = probe(&mut |btf| known(btf));
        assert_eq!(features, Features { float: true, decl_tag: true, ..NONE });
        assert_eq!(probe(&mut |btf| btf.len() == 3), NONE);
    }

    #[test]
    fn who_may_load_nothing_leaves_types_as_they_are() {
        assert_eq!(probe(&mut |_| false), Features::ALL);
    }
}
