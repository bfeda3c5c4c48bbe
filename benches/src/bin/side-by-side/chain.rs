//! The chain: two modules in C, one in Rust, and the built-in access list.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use xdpchain_benches::lab::{IN, Kind, Lab, OUT};
use xdpchain_benches::programs::compile;
use xdpchain_benches::report::{Note, Report};
use xdpchain_benches::rig::Subject;
use xdpchain_host::sys;
use xdpchain_tests::agent::Agent;
use xdpchain_tests::{Shell, cli};

use crate::Measured;

/// How long a module that aborts every packet stays.
const ABORTING: Duration = Duration::from_millis(500);
/// `XDP_FLAGS_DRV_MODE`.
const DRIVER_MODE: u32 = 4;

/// Measures everything about the chain.
pub(crate) fn measure(runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new(Kind::Kernel)?;
    let receiver = lab.receiver().context("the kernel receives in a thread")?;
    let forward = compile("forward", &[("OUT", lab.near.ifindex(OUT) as usize)])?;
    let mut measured = Measured { report, side: "chain", runs };
    {
        let alone = Subject::c("forward", &[("OUT", lab.near.ifindex(OUT) as usize)])?;
        let link = lab.near.run(|| sys::link_create_xdp(alone.program(), lab.near.ifindex(IN), DRIVER_MODE));
        let _link = link.context("attaching a program alone")?;
        measured.rate("rate-of-one", &lab)?;
    }
    let shell = Shell::new(&lab.near, &chains_yaml()?);
    std::fs::write(shell.path().join("forward.o"), &forward)?;
    std::fs::write(shell.path().join("aborting.o"), compile("aborting", &[])?)?;
    run(&shell, &["attach", IN])?;
    run(&shell, &["map", "set", "portfilter/blocked", "9", "0"])?;
    run(&shell, &["map", "set", "dscp/DSCP", "17", "46"])?;
    run(&shell, &["map", "set", "acl/config", "0", r#"{"default_action": 0, "all_packets": 1}"#])?;
    let rule = r#"{"src": "192.0.2.0", "src_len": 120, "action": 1, "flags": 1}"#;
    shell.write("rules.jsonl", &format!("{{\"key\": 0, \"value\": {rule}}}\n"));
    run(&shell, &["map", "import", "--defaults", "acl/rules", "rules.jsonl"])?;

    measured.rate("rate", &lab)?;
    measured.cpu(&lab, &[receiver])?;
    measured.passage("unchanged", &lab, |_| Ok(()), |_| Ok(()))?;
    let fifth = cli::objects().join("pktcount.o");
    let fifth = fifth.to_str().context("a path is UTF-8")?;
    let mut takes = Vec::new();
    let add = |_| {
        let start = Instant::now();
        run(&shell, &["add", IN, fifth, "--before", "forward"])?;
        takes.push(start.elapsed().as_secs_f64() * 1e3);
        Ok(())
    };
    measured.passage("add", &lab, add, |_| run(&shell, &["remove", IN, "pktcount"]))?;
    measured.row("add/takes", "ms", &takes);
    let least = takes.iter().copied().fold(f64::MAX, f64::min);
    crashes(&mut measured, &lab, &shell, (fifth, Duration::from_secs_f64(least / 1e3)))?;

    run(&shell, &["add", IN, fifth, "--before", "forward"])?;
    measured.rate("rate-of-five", &lab)?;
    let second = ip_link(&shell)?;
    measured.report.notes.push(Note { of: "chain/second-author", said: second });
    Ok(())
}

/// Four modules; none of the authors knows of the others.
fn chains_yaml() -> anyhow::Result<String> {
    let objects = cli::objects();
    let objects = objects.to_str().context("a path is UTF-8")?;
    Ok(format!(
        "\
version: 1
modules:
  portfilter: {{ object: \"{objects}/portfilter.o\" }}
  acl: {{ object: \"builtin:acl\" }}
  dscp: {{ object: \"{objects}/rust-dscp.o\" }}
  forward: {{ object: ./forward.o }}
chains:
  four: {{ interfaces: [{IN}], slots: [portfilter, acl, dscp, forward] }}
agent: {{ socket: agent.sock }}
"
    ))
}

/// What ends suddenly, and what goes wrong: the agent, a command in the midst of its change, a module that the verifier
/// refuses, a module that aborts every packet.
fn crashes(
    measured: &mut Measured<'_>,
    lab: &Lab,
    shell: &Shell<'_>,
    (fifth, add): (&str, Duration),
) -> anyhow::Result<()> {
    let kill_agent = |_| {
        Agent::ready(shell).kill();
        Ok(())
    };
    measured.passage("agent-killed", lab, kill_agent, |_| Ok(()))?;

    let runs = measured.runs as u32;
    let kill_command = |run_number: usize| {
        let mut command = Command::new(cli::binary());
        command.args(["add", IN, fifth, "--before", "forward"]).current_dir(shell.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = lab.near.run(|| command.spawn())?;
        // Another instant of the change each time.
        std::thread::sleep(add * (run_number as u32 + 1) / (runs + 1));
        child.kill()?;
        child.wait()?;
        Ok(())
    };
    let put_back = |_| {
        run(shell, &["recover"])?;
        if shell.json(&["status", IN]).to_string().contains("\"pktcount\"") {
            run(shell, &["remove", IN, "pktcount"])?;
        }
        Ok(())
    };
    measured.passage("command-killed", lab, kill_command, put_back)?;

    let mut said = String::new();
    let refused = |_| {
        let run = shell.xdpchain(&["add", IN, "refused.o", "--before", "forward"]);
        ensure!(run.status == 6, "the verifier took a module that it has to refuse: {}", run.stderr);
        said = run.stderr;
        Ok(())
    };
    measured.passage("module-refused", lab, refused, |_| Ok(()))?;
    let said = said.lines().next().unwrap_or_default().to_owned();
    measured.report.notes.push(Note { of: "chain/module-refused", said });

    let aborting = |_| {
        run(shell, &["add", IN, "aborting.o", "--before", "forward"])?;
        std::thread::sleep(ABORTING);
        run(shell, &["remove", IN, "aborting"])
    };
    measured.passage("module-aborts", lab, aborting, |_| Ok(()))
}

/// What a second author is told who attaches to the same interface by other means.
fn ip_link(shell: &Shell<'_>) -> anyhow::Result<String> {
    let object = cli::objects().join("pktcount.o");
    let mut command = Command::new("ip");
    command.args(["link", "set", "dev", IN, "xdpdrv", "obj"]).arg(object).args(["sec", "xdp"]);
    let output = shell.netns().output(&mut command);
    ensure!(!output.status.success(), "a second program took the chain's place");
    Ok(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().trim().to_owned())
}

/// Runs `xdpchain`, which has to succeed.
fn run(shell: &Shell<'_>, arguments: &[&str]) -> anyhow::Result<()> {
    let run = shell.xdpchain(arguments);
    ensure!(run.status == 0, "`xdpchain {}` ended with {}: {}", arguments.join(" "), run.status, run.stderr);
    Ok(())
}
