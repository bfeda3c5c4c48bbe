//! The stage: the chain on the node, its maps filled, and the commands that change it.

use std::path::PathBuf;

use serde_json::Value;
use xdpchain_tests::{Netns, Shell, World, cli, plan, rows};

/// The node's interfaces: toward the radio network, toward the cloud. One chain runs on both.
pub(crate) const INTERFACES: [&str; 2] = ["n3", "n6"];

/// The chain on the node.
pub(crate) struct Stage<'a> {
    shell: Shell<'a>,
    objects: PathBuf,
}

/// How the chain runs, as `status` tells.
pub(crate) struct State {
    /// `fused` and the like.
    pub(crate) engine: String,
    /// `native` or `generic`.
    pub(crate) mode: String,
}

impl<'a> Stage<'a> {
    /// The module that is replaced.
    pub(crate) const REPLACED: &'static str = "gtp-decap";

    /// Writes chains.yaml for `node`, and makes sure that the objects are there.
    pub(crate) fn new(node: &'a Netns, sessions: u32) -> Result<Self, String> {
        let stage = Self { shell: Shell::new(node, &plan::chains_yaml(sessions)), objects: cli::objects() };
        for object in [stage.third_party(), stage.new_build()] {
            if !object.is_file() {
                return Err(format!("no object `{}`\nhelp: cargo xtask build", object.display()));
            }
        }
        Ok(stage)
    }

    /// An object of somebody else's: written in C, built by clang, knowing nothing of this project.
    pub(crate) fn third_party(&self) -> PathBuf {
        self.objects.join("pktcount.o")
    }

    /// [`Self::REPLACED`] as another build made it.
    pub(crate) fn new_build(&self) -> PathBuf {
        self.objects.join("next").join("gtp-decap.o")
    }

    /// Attaches the chain, fills its maps for `sessions` sessions, and tells how it runs.
    pub(crate) fn raise(&self, sessions: u32) -> Result<State, String> {
        for interface in INTERFACES {
            self.told(&["attach", interface])?;
        }
        for (map, table) in rows::data_path(sessions) {
            let file = format!("{}.csv", map.replace('/', "-"));
            self.shell.write(&file, &table.csv());
            self.told(&["map", "import", map, &file])?;
        }
        let status = self.run(&["status", INTERFACES[0], "-o", "json"])?;
        let status: Value = serde_json::from_str(&status).map_err(|e| format!("status is no JSON: {e}"))?;
        let text = |key: &str| status["interfaces"][0][key].as_str().unwrap_or("unknown").to_owned();
        Ok(State { engine: text("engine"), mode: text("mode") })
    }

    /// What `status` shows people of one interface.
    pub(crate) fn status(&self, interface: &str) -> Result<String, String> {
        self.run(&["status", interface])
    }

    /// Takes the chain off and makes sure that nothing of it is left.
    pub(crate) fn strike(&self) -> Result<(), String> {
        println!();
        for interface in INTERFACES {
            self.told(&["detach", interface])?;
            if let Some(id) = self.shell.netns().xdp_program(interface) {
                return Err(format!("program {id} is still on {interface} after `detach`"));
            }
        }
        let left = self.shell.left();
        if !left.is_empty() {
            return Err(format!("`detach` left {left:?}"));
        }
        println!("  no program, pin or file is left");
        Ok(())
    }

    /// What helps to find out why packets did not arrive.
    pub(crate) fn diagnosis(&self, world: &World) -> String {
        let mut text = String::new();
        for interface in INTERFACES {
            match self.run(&["status", interface, "-o", "wide"]) {
                Ok(status) => text.push_str(&status),
                Err(error) => text.push_str(&error),
            }
            text.push_str(&self.shell.netns().sh("ethtool", &["-S", interface]));
        }
        format!("{text}wrong at cloud: {:?}, at ran: {:?}", world.cloud_end.wrong(), world.ran_end.wrong())
    }

    /// Runs one command and shows it.
    fn told(&self, arguments: &[&str]) -> Result<(), String> {
        println!("  $ xdpchain {}", arguments.join(" "));
        self.run(arguments).map(drop)
    }

    /// Runs one command and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let run = self.shell.xdpchain(arguments);
        if run.status == 0 {
            Ok(run.stdout)
        } else {
            Err(format!("`xdpchain {}` ended with {}\n{}", arguments.join(" "), run.status, run.stderr))
        }
    }
}
