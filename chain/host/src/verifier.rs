//! A verifier refusal: which module, which source line, what the verifier said last, and what that usually means.
//!
//! The log is text for people and changes from kernel to kernel; whatever is not recognised is left out, and the end of
//! the log is always shown.

use std::fmt;
use std::io;

use xdpchain_compose::ProgramImage;

/// Lines of the log that are shown.
const TAIL: usize = 20;

/// A program that the kernel did not take.
#[derive(Debug)]
pub struct Refusal {
    /// The program's name.
    pub program: String,
    /// The kernel's answer.
    pub error: io::Error,
    /// The module that the instruction belongs to; none for the chain's own code, or when the log names no instruction.
    pub module: Option<String>,
    /// The instruction that the verifier stopped at.
    pub insn: Option<u32>,
    /// The source line that it was compiled from.
    pub source: Option<SourceLine>,
    /// What the verifier said, in its words.
    pub message: Option<String>,
    /// What that usually means, and what to do.
    pub cause: Option<&'static str>,
    /// The end of the log, oldest line first.
    pub tail: Vec<String>,
    /// What was wrong with the BTF, when the kernel did not take that either.
    pub btf: Option<String>,
    /// Whether the program is too large for the verifier or the stack, so that smaller ones might be taken.
    pub too_large: bool,
}

/// A line of source code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, as the compiler named it; empty when unknown.
    pub file: String,
    /// The line, from 1; 0 when unknown.
    pub line: u32,
    /// The text.
    pub text: String,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused program `{}`", self.program)?;
        if let Some(module) = &self.module {
            write!(f, " in module `{module}`")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}")?,
            None => write!(f, ": {}", self.error)?,
        }
        match (&self.source, self.insn) {
            (Some(s), Some(insn)) if s.line > 0 => {
                write!(f, "\n  at {}:{} (instruction {insn}): `{}`", s.file, s.line, s.text)?;
            }
            (Some(s), _) => write!(f, "\n  at `{}`", s.text)?,
            (None, Some(insn)) => write!(f, "\n  at instruction {insn}")?,
            (None, None) => {}
        }
        for line in &self.tail {
            write!(f, "\n  | {line}")?;
        }
        if let Some(btf) = &self.btf {
            write!(f, "\nnote: the kernel did not take the BTF either: {btf}")?;
        }
        let help = self.cause.unwrap_or(
            "the lines above are the end of the verifier's log; the last one says what it could not prove",
        );
        write!(f, "\nhelp: {help}")
    }
}

impl Refusal {
    /// Reads the verifier's `log` of `program`.
    pub fn new(program: &ProgramImage, error: io::Error, log: &str, btf: Option<String>) -> Self {
        let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let messages = messages(&lines);
        let (message, cause) = message(&messages, &error);
        // What is about the whole program is not the fault of the instruction that happened to be looked at last.
        let whole = message.as_deref().is_some_and(|m| m.starts_with("combined stack size"));
        let last = lines.iter().rev().find_map(|line| insn_of_line(line)).filter(|_| !whole);
        let insn = message.as_deref().and_then(insn_in_message).or(last);
        let source = insn.and_then(|insn| {
            line_of(program, insn).or_else(|| lines.iter().rev().find_map(|line| source_of_line(line)))
        });
        Self {
            program: program.name.clone(),
            too_large: cause.is_some_and(|cause| cause == TOO_LARGE || cause == TOO_DEEP),
            error,
            module: insn.and_then(|insn| origin(program, insn)),
            insn,
            source,
            message,
            cause,
            tail: lines[lines.len().saturating_sub(TAIL)..].iter().map(|l| (*l).to_owned()).collect(),
            btf,
        }
    }
}

/// The module that instruction `insn` belongs to.
fn origin(program: &ProgramImage, insn: u32) -> Option<String> {
    let after = program.origins.partition_point(|(first, _)| *first <= insn);
    program.origins.get(after.checked_sub(1)?).map(|(_, name)| name.clone()).filter(|name| !name.is_empty())
}

/// The source line of instruction `insn`, by the program's own line records.
fn line_of(program: &ProgramImage, insn: u32) -> Option<SourceLine> {
    let after = program.lines.partition_point(|(first, _)| *first <= insn);
    let (_, line) = program.lines.get(after.checked_sub(1)?)?;
    Some(SourceLine { file: line.file.to_string(), line: line.line, text: line.text.trim().to_owned() })
}

/// `15: (61) r2 = *(u32 *)(r1 +14)`: the index of an instruction.
fn insn_of_line(line: &str) -> Option<u32> {
    let (number, rest) = line.split_once(": (")?;
    let opcode = rest.get(..3)?;
    (opcode.ends_with(')') && opcode[..2].chars().all(|c| c.is_ascii_hexdigit()))
        .then(|| number.parse().ok())?
}

/// `; text @ file.c:12`, or without the place on kernels before 6.8.
fn source_of_line(line: &str) -> Option<SourceLine> {
    let text = line.strip_prefix("; ")?;
    if let Some((text, place)) = text.rsplit_once(" @ ")
        && let Some((file, number)) = place.rsplit_once(':')
        && let Ok(line) = number.parse()
    {
        return Some(SourceLine { file: file.to_owned(), line, text: text.trim().to_owned() });
    }
    Some(SourceLine { file: String::new(), line: 0, text: text.trim().to_owned() })
}

/// The instruction that a message names itself: where the thing at fault was acquired, or where a loop closes.
fn insn_in_message(message: &str) -> Option<u32> {
    ["alloc_insn=", "insn "].iter().find_map(|marker| {
        let rest = message.split_once(marker)?.1;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    })
}

/// What the verifier said after the last instruction, without states, precision marks and statistics.
fn messages<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let after = lines.iter().rposition(|line| insn_of_line(line).is_some()).map_or(0, |at| at + 1);
    let noise = |line: &str| {
        let state = line.split_once(": ").is_some_and(|(at, rest)| {
            at.chars().all(|c| c.is_ascii_digit()) && (rest.starts_with('R') || rest.starts_with("frame"))
        });
        let starts = [
            "; ",
            "processed ",
            "verification time",
            "stack depth",
            "mark_precise",
            "from ",
            "last_idx",
            "regs=",
            "parent ",
            "max_states",
            "func#",
            "Func#",
            "Validating ",
            "caller:",
            "callee:",
            "returning from",
            "number of ",
            "cur state:",
            "old state:",
            "SCC ",
            "(",
            "Live regs",
        ];
        state || starts.iter().any(|start| line.starts_with(start))
    };
    lines[after..].iter().copied().filter(|line| !noise(line)).collect()
}

/// The line that tells most, and what it usually means.
fn message(messages: &[&str], error: &io::Error) -> (Option<String>, Option<&'static str>) {
    for (needles, cause) in CAUSES {
        if let Some(line) = messages.iter().find(|line| needles.iter().any(|needle| line.contains(needle))) {
            return (Some((*line).to_owned()), Some(cause));
        }
    }
    let cause = match error.raw_os_error() {
        Some(libc::E2BIG) => Some(TOO_LARGE),
        _ => None,
    };
    (messages.last().map(|line| (*line).to_owned()), cause)
}

const TOO_LARGE: &str = "the verifier gave up after a million instructions: unbounded or nested loops, or too many \
                         branches that it must follow one by one; bound the loops, or take a slot out of the chain";

const TOO_DEEP: &str = "the stack is limited to 512 octets for the chain, subprograms called included, and to 256 before \
                        a call that tail calls, and 16 of them are the chain's; move large local variables into a per-CPU map, \
                        or take `engine: libxdp`, which leaves a module all of them";

/// What the verifier says, and what that usually means. The first that fits counts.
const CAUSES: &[(&[&str], &str)] = &[
    (
        &["total number of maps", "number of maps in the program has reached the limit"],
        "the kernel gives a program 64 maps; what counts the chain's packets takes one or two of them. `engine: tail` \
         gives each module a program of its own, and `engine: libxdp` adds no map",
    ),
    (
        &["frames is too deep"],
        "functions call each other at most 8 deep; a module with tail calls is called itself, which takes one more",
    ),
    (
        &[
            "combined stack size",
            "invalid stack off=",
            "invalid write to stack R10 off=-5",
            "invalid write to stack R10 off=-6",
            "tail_calls are not allowed when call stack",
            "stack depth",
            "exceeds stack",
        ],
        TOO_DEEP,
    ),
    (&["BPF program is too large", "too many insns", "The sequence of", "program too large"], TOO_LARGE),
    (
        &["infinite loop detected", "back-edge from insn", "loop detected", "the loop is not bounded"],
        "the verifier cannot see that a loop ends; give it a constant upper bound, or use bpf_loop()",
    ),
    (
        &["invalid access to packet", "offset is outside of the packet"],
        "packet data is read or written without a check against data_end before it; after bpf_xdp_adjust_head() and the like every check is needed again",
    ),
    (
        &["map_value_or_null", "_or_null'", "invalid mem access 'mem_or_null"],
        "the result of a look-up is used without a check for NULL",
    ),
    (
        &["Unreleased reference", "would lead to reference leak", "reference has not been acquired"],
        "something that was acquired (a socket, a ring buffer record) is not released on every path; submit or discard it before each return",
    ),
    (
        &["bpf_spin_lock is missing", "function calls are not allowed while holding a lock"],
        "a lock is held across a return or a call; unlock it on every path before",
    ),
    (
        &["cannot call GPL-restricted", "cannot call GPL only"],
        "a helper of this module wants a GPL-compatible licence; declare one in the module's `license` section",
    ),
    (
        &["unknown func", "invalid func", "program of this type cannot use helper", "cannot use helper"],
        "the module calls a helper that this kernel does not have, or not for XDP programs; a newer kernel may",
    ),
    (
        &["calling kernel function", "kernel function", "kfunc"],
        "the module calls a kernel function that this kernel does not have, or not for XDP programs",
    ),
    (&["R0 !read_ok"], "a function returns without having set a return value on some path"),
    (
        &["At program exit the register R0", "R0 has smin", "R0 has value"],
        "the return value is not one that the kernel allows",
    ),
    (
        &["!read_ok"],
        "a register is read that has no value on some path: an uninitialised variable, or one that a call has overwritten",
    ),
    (
        &["invalid read from stack", "invalid indirect read from stack", "invalid indirect access to stack"],
        "stack memory is read, or given to a helper, before all of it was written; initialise the variable, padding included",
    ),
    (
        &[
            "min value is negative",
            "unbounded min value",
            "unbounded memory access",
            "max value is outside of the allowed memory range",
        ],
        "an offset or a length is not bounded enough; compare it with constants (or mask it) right before the access",
    ),
    (&["invalid access to map value"], "a map value is accessed beyond its size; bound the index before"),
    (
        &[
            "invalid mem access 'scalar'",
            "invalid mem access 'inv'",
            "R0 invalid mem access",
            "invalid mem access",
        ],
        "a number is used as a pointer: after a call that changes the packet, old packet pointers are no pointers any more; read data and data_end again",
    ),
    (
        &["unreachable insn"],
        "instructions that nothing leads to; was the object damaged after it was compiled?",
    ),
    (
        &["tail_calls are not allowed", "tail_call"],
        "tail calls do not mix with this program's subprograms on this kernel",
    ),
    (
        &["dereference of modified ctx ptr", "invalid bpf_context access"],
        "the context is accessed at an offset that XDP programs do not have",
    ),
    (
        &["pointer arithmetic", "math between", "prohibited"],
        "arithmetic with a pointer that the verifier does not allow; bound the number first, and keep the pointer",
    ),
    (&["Device-bound", "dev-bound"], "the program uses device metadata, and must be bound to one device"),
];

#[cfg(test)]
mod tests;
