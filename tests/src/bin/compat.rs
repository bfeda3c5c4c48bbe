//! Tries every object on the running kernel, or those whose file is named, and prints the section of docs/compatibility.md
//! about it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use xdpchain_host::RunningKernel;
use xdpchain_tests::compat::{judge, kernel, section, subjects};

fn main() -> ExitCode {
    let running = RunningKernel::new();
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    let only: Vec<String> = std::env::args().skip(1).collect();
    for subject in subjects().into_iter().filter(|s| only.is_empty() || only.contains(&s.name)) {
        match judge(&subject, &running) {
            Ok(judged) => entries.extend(judged),
            Err(why) => unread.push((subject.name, why)),
        }
    }
    print!("{}", section(&kernel(), &entries, &unread));
    let mut well = true;
    for entry in &entries {
        for problem in entry.problems() {
            eprintln!("{}, {}: {problem}", entry.object, entry.program);
            well = false;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
