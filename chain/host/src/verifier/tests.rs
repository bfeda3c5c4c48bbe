//! Logs as kernels wrote them: 6.18 with all of what its log can hold, and the shorter form of 5.x.

use xdpchain_compose::btf::LineInfo;

use super::*;

/// The refusal that `log` makes of a program whose instructions 0 to 4 are the chain's own and 5 to 9 are of `first`.
fn refusal(errno: i32, log: &str) -> Refusal {
    let program = ProgramImage {
        name: "edge".into(),
        insns: Vec::new(),
        relocations: Vec::new(),
        functions: Vec::new(),
        lines: Vec::new(),
        license: String::new(),
        frags: false,
        origins: vec![(0, String::new()), (1, "first".into()), (10, "second".into())],
    };
    Refusal::new(&program, io::Error::from_raw_os_error(errno), log, None)
}

#[track_caller]
fn check(log: &str, insn: Option<u32>, module: Option<&str>, message: &str, cause: &str) {
    let refusal = refusal(libc::EACCES, log);
    assert_eq!(refusal.message.as_deref(), Some(message));
    assert_eq!(refusal.insn, insn);
    assert_eq!(refusal.module.as_deref(), module);
    assert!(refusal.cause.is_some_and(|c| c.contains(cause)), "{:?}", refusal.cause);
    let text = refusal.to_string();
    assert!(text.contains(message) && text.contains("\nhelp: "), "{text}");
    assert!(refusal.tail.len() <= TAIL);
}

macro_rules! log {
    ($name:literal) => {
        include_str!(concat!("fixtures/", $name, ".log"))
    };
}

#[test]
fn each_common_refusal_is_understood() {
    let first = Some("first");
    check(
        log!("packet"),
        Some(1),
        first,
        "invalid access to packet, off=12 size=1, R1(id=0,off=12,r=0)",
        "without a check against data_end",
    );
    check(log!("null"), Some(7), first, "R0 invalid mem access 'map_value_or_null'", "check for NULL");
    check(log!("loop"), Some(7), first, "infinite loop detected at insn 7", "a loop ends");
    check(
        log!("large"),
        Some(3),
        first,
        "BPF program is too large. Processed 1000001 insn",
        "a million instructions",
    );
    check(log!("reference"), Some(5), first, "Unreleased reference id=2 alloc_insn=5", "not released");
    check(
        log!("helper"),
        Some(5),
        first,
        "program of this type cannot use helper bpf_skb_store_bytes#9",
        "not for XDP",
    );
    check(log!("unknown"), Some(0), None, "invalid func unknown#9999", "does not have");
    check(
        log!("bounds"),
        Some(11),
        Some("second"),
        "R0 unbounded memory access, make sure to bounds check any such access",
        "not bounded enough",
    );
    check(log!("stack"), None, None, "combined stack size of 2 calls is 608. Too large", "512 octets");
    check(
        log!("gpl"),
        Some(5),
        first,
        "cannot call GPL-restricted function from non-GPL compatible program",
        "licence",
    );
    check(log!("adjusted"), Some(9), first, "R7 invalid mem access 'scalar'", "read data and data_end again");
}

#[test]
fn the_source_line_is_taken_from_the_log_when_the_program_has_none() {
    let new = refusal(libc::EACCES, log!("packet")).source.expect("the log has it");
    assert_eq!((new.file.as_str(), new.line), ("packet.c", 4));
    assert!(new.text.contains("data[12] == 8"), "{}", new.text);
    let old = refusal(libc::EACCES, log!("old-kernel"));
    assert_eq!(old.insn, Some(1));
    let source = old.source.expect("the log has it");
    assert_eq!((source.line, source.text.as_str()), (0, "return data[12] == 8 ? XDP_PASS : XDP_DROP;"));
}

#[test]
fn the_source_line_is_the_programs_own_before_the_logs() {
    let line = |file: &str, text: &str, line| LineInfo {
        offset: 0,
        file: file.into(),
        text: text.into(),
        line,
        column: 5,
    };
    let mut program = ProgramImage {
        name: "edge".into(),
        insns: Vec::new(),
        relocations: Vec::new(),
        functions: Vec::new(),
        lines: vec![(0, line("", "", 0)), (6, line("acl.c", "    return rule;", 23))],
        license: String::new(),
        frags: false,
        origins: vec![(0, "acl".into())],
    };
    let error = || io::Error::from_raw_os_error(libc::EACCES);
    let refusal = Refusal::new(&program, error(), log!("bounds"), None);
    let wanted = SourceLine { file: "acl.c".into(), line: 23, text: "return rule;".into() };
    assert_eq!(refusal.source, Some(wanted));
    let text = refusal.to_string();
    assert!(text.contains("in module `acl`"), "{text}");
    assert!(text.contains("\n  at acl.c:23 (instruction 11): `return rule;`\n"), "{text}");

    program.lines.clear();
    assert!(Refusal::new(&program, error(), log!("bounds"), None).source.is_some(), "from the log then");
}

#[test]
fn a_refusal_without_a_log_still_says_what_the_kernel_answered() {
    let refusal = refusal(libc::E2BIG, "");
    assert_eq!((refusal.insn, refusal.message.as_deref()), (None, None));
    let text = refusal.to_string();
    assert!(text.contains("Argument list too long") && text.contains("a million instructions"), "{text}");
}
