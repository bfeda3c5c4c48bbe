//! The stage: the chain on the node, its maps filled, and the commands that change it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use xdpchain_tests::cli::{self, xdpchain};
use xdpchain_tests::plan::{self, CUSTOMERS, Session};
use xdpchain_tests::rows::{self, Table};
use xdpchain_tests::{Netns, World};

/// The node's interfaces: toward the radio network, toward the cloud. One chain runs on both.
pub(crate) const INTERFACES: [&str; 2] = ["n3", "n6"];

/// The chain on the node.
pub(crate) struct Stage<'a> {
    node: &'a Netns,
    folder: TempDir,
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

    /// Writes chains.yaml for `node`.
    pub(crate) fn new(node: &'a Netns, sessions: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no folder for the demo's files: {e}"))?;
        let stage = Self { node, folder, objects: cli::objects() };
        for object in [stage.third_party(), stage.new_build()] {
            if !object.is_file() {
                return Err(format!("no object `{}`\nhelp: cargo xtask build", object.display()));
            }
        }
        stage.write("chains.yaml", &plan::chains_yaml(sessions))?;
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
        let sessions: Vec<_> = (0..sessions).map(|number| Session { number }).collect();
        let tables = [
            ("gtp-decap/endpoints", rows::endpoints()),
            ("gtp-decap/sessions", rows::uplink(&sessions)),
            ("gtp-encap/sessions", rows::downlink(&sessions)),
            ("gre-decap/tunnels", rows::ingress(1..=CUSTOMERS)),
            ("gre-steer/customers", rows::customers(1..=CUSTOMERS)),
            ("gre-steer/tunnels", rows::tunnels(1..=CUSTOMERS)),
        ];
        for (map, table) in tables {
            self.import(map, &table)?;
        }
        let status = self.json(INTERFACES[0])?;
        let text = |key: &str| find(&status, key).unwrap_or("unknown").to_owned();
        Ok(State { engine: text("engine"), mode: text("mode") })
    }

    fn import(&self, map: &str, table: &Table) -> Result<(), String> {
        let file = format!("{}.csv", map.replace('/', "-"));
        self.write(&file, &table.csv())?;
        self.told(&["map", "import", map, &file])
    }

    /// Runs one command that changes the chain.
    pub(crate) fn change(&self, arguments: &[&str]) -> Result<(), String> {
        self.run(arguments).map(drop)
    }

    /// What `status` shows people of one interface.
    pub(crate) fn status(&self, interface: &str) -> Result<String, String> {
        self.run(&["status", interface])
    }

    fn json(&self, interface: &str) -> Result<Value, String> {
        let text = self.run(&["status", interface, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|e| format!("`status -o json` printed no JSON: {e}\n{text}"))
    }

    /// Takes the chain off and makes sure that nothing of it is left.
    pub(crate) fn strike(&self) -> Result<(), String> {
        println!();
        for interface in INTERFACES {
            self.told(&["detach", interface])?;
            if let Some(id) = self.node.xdp_program(interface) {
                return Err(format!("program {id} is still on {interface} after `detach`"));
            }
        }
        for left in [self.node.pins(), self.node.manifests()] {
            let files = cli::files_below(&left);
            if !files.is_empty() {
                return Err(format!("`detach` left {files:?}"));
            }
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
            text.push_str(&self.node.sh("ethtool", &["-S", interface]));
        }
        format!("{text}wrong at cloud: {:?}, at ran: {:?}", world.cloud_end.wrong(), world.ran_end.wrong())
    }

    /// Runs one command and shows it.
    fn told(&self, arguments: &[&str]) -> Result<(), String> {
        println!("  $ xdpchain {}", arguments.join(" "));
        self.run(arguments).map(drop)
    }

    /// Runs one command and returns what it printed.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let run = xdpchain(self.node, self.folder.path(), arguments);
        if run.status == 0 {
            Ok(run.stdout)
        } else {
            Err(format!("`xdpchain {}` ended with {}\n{}", arguments.join(" "), run.status, run.stderr))
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(|e| format!("cannot write `{}`: {e}", path.display()))
    }
}

/// The text under `key`, wherever it is in `value`.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    match value {
        Value::Object(map) => {
            map.get(key).and_then(Value::as_str).or_else(|| map.values().find_map(|v| find(v, key)))
        }
        Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}
