//! What a benchmark wrote down, as `benches/src/report.rs` writes it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use crate::run::target_dir;

/// A whole result.
#[derive(Deserialize)]
pub(crate) struct Report {
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) notes: Vec<Note>,
}

/// One line of it.
#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    pub(crate) min: f64,
    pub(crate) runs: usize,
    pub(crate) kernel: Option<String>,
}

/// Something that was seen and is no number.
#[derive(Deserialize)]
pub(crate) struct Note {
    pub(crate) of: String,
    pub(crate) said: String,
}

/// Where the benchmark `name` writes.
pub(crate) fn path(name: &str) -> PathBuf {
    target_dir().join("bench").join(name).with_extension("json")
}

/// What the benchmark `name` wrote; none when it has not run.
pub(crate) fn read(name: &str) -> anyhow::Result<Option<Report>> {
    let path = path(name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading `{}`", path.display())),
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("`{}` is no report", path.display()))
}
