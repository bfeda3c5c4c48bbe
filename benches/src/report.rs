//! A benchmark's result, as a table and as target/bench/NAME.json.

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One line of a result.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name, stable over versions.
    pub case: String,
    /// Median of the runs.
    pub value: f64,
    /// Unit of `value` and `min`.
    pub unit: &'static str,
    /// Least of the runs.
    pub min: f64,
    /// How many runs there were.
    pub runs: usize,
}

impl Row {
    /// The median and the least of `runs`.
    ///
    /// # Panics
    /// Without any run.
    pub fn of(case: impl Into<String>, unit: &'static str, runs: &[f64]) -> Self {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (value, min) = (sorted[sorted.len() / 2], sorted[0]);
        Self { case: case.into(), value, unit, min, runs: sorted.len() }
    }
}

/// A whole result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The benchmark.
    pub bench: &'static str,
    /// The processor's name, and what it does against speculation.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// The results.
    pub rows: Vec<Row>,
}

impl Report {
    /// A report with nothing in it yet.
    pub fn new(bench: &'static str) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|p| p.1));
        let retbleed = read("/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow");
        let cpu = format!("{} ({})", model.unwrap_or("unknown"), retbleed.trim());
        Self { bench, cpu, kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(), rows: Vec::new() }
    }

    /// The value of a case.
    pub fn value(&self, case: &str) -> Option<f64> {
        self.rows.iter().find(|r| r.case == case).map(|r| r.value)
    }

    /// Prints the table and writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["CASE", "MEDIAN", "MIN", "UNIT", "RUNS"]);
        for row in &self.rows {
            table.add_row([
                row.case.clone(),
                format!("{:.1}", row.value),
                format!("{:.1}", row.min),
                row.unit.to_owned(),
                row.runs.to_string(),
            ]);
        }
        for column in [1, 2, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{} on {}, kernel {}\n\n{table}", self.bench, self.cpu, self.kernel);
        let folder = xdpchain_ebpf_build::target_dir().join("bench");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(self.bench).with_extension("json");
        std::fs::write(&path, serde_json::to_vec_pretty(self)?).context("cannot write the report")?;
        Ok(())
    }
}

/// A bar that a result has to keep: printed, and whether it was kept.
pub fn bar(what: &str, is: f64, limit: f64) -> bool {
    let kept = is <= limit;
    println!("{} {what}: {is:.2}, at most {limit:.2}", if kept { "kept  " } else { "MISSED" });
    kept
}
