//! A benchmark's result, as a table and as target/bench/NAME.json.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// One line of a result.
#[derive(Debug, Deserialize, Serialize)]
pub struct Row {
    /// Its name, stable over versions.
    pub case: String,
    /// Median of the runs.
    pub value: f64,
    /// Unit of `value` and `min`.
    pub unit: Cow<'static, str>,
    /// Least of the runs; of a [difference](Self::net) that of the leasts, which may be more than their median.
    pub min: f64,
    /// How many runs there were.
    pub runs: usize,
    /// The kernel's release where it is another than the report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
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
        Self { case: case.into(), value, unit: unit.into(), min, runs: sorted.len(), kernel: None }
    }

    /// What rounds of the second kind took more than those of the first, which they were measured in turn with. The least is that of
    /// all the second less that of all the first: of a single pair it would be too little where the first was disturbed.
    ///
    /// # Panics
    /// Without any round.
    pub fn net(case: impl Into<String>, unit: &'static str, rounds: &[(f64, f64)]) -> Self {
        let least = |of: fn(&(f64, f64)) -> f64| rounds.iter().map(of).fold(f64::MAX, f64::min);
        let net: Vec<f64> = rounds.iter().map(|(base, target)| target - base).collect();
        Self { min: least(|round| round.1) - least(|round| round.0), ..Self::of(case, unit, &net) }
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
    /// What was seen that is no number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// Something that was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// What was done.
    pub of: &'static str,
    /// What was said to it.
    pub said: String,
}

impl Report {
    /// A report with nothing in it yet.
    pub fn new(bench: &'static str) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|p| p.1));
        let retbleed = read("/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow");
        let cpu = format!("{} ({})", model.unwrap_or("unknown"), retbleed.trim());
        Self {
            bench,
            cpu,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
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
                row.unit.to_string(),
                row.runs.to_string(),
            ]);
        }
        for column in [1, 2, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{} on {}, kernel {}\n\n{table}", self.bench, self.cpu, self.kernel);
        self.write()
    }

    fn path(&self) -> PathBuf {
        xdpchain_ebpf_build::target_dir().join("bench").join(self.bench).with_extension("json")
    }

    fn write(&self) -> anyhow::Result<()> {
        let path = self.path();
        std::fs::create_dir_all(path.parent().context("the report is in a folder")?)?;
        std::fs::write(&path, serde_json::to_vec_pretty(self)?).context("cannot write the report")
    }

    /// Takes over the rows that the file has of another kernel, which a run on this one does not measure.
    ///
    /// # Errors
    /// When the file is there and is no report.
    pub fn keep_counted(&mut self) -> anyhow::Result<()> {
        self.rows.extend(self.before()?.into_iter().filter(|row| row.kernel.is_some()));
        Ok(())
    }

    /// Puts rows into the file, in the place of those with the same names.
    ///
    /// # Errors
    /// When the file is there and is no report, or cannot be written.
    pub fn put(mut self) -> anyhow::Result<()> {
        let new = std::mem::take(&mut self.rows);
        self.rows = self.before()?;
        self.rows.retain(|row| new.iter().all(|new| new.case != row.case));
        self.rows.extend(new);
        self.write()
    }

    /// Rows of the file; none where there is no file.
    fn before(&self) -> anyhow::Result<Vec<Row>> {
        #[derive(Deserialize)]
        struct Rows {
            rows: Vec<Row>,
        }
        let path = self.path();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Vec::new()) };
        let rows: Rows =
            serde_json::from_str(&text).with_context(|| format!("`{}` is no report", path.display()))?;
        Ok(rows.rows)
    }
}

/// A bar that a result has to keep: printed, and whether it was kept.
pub fn bar(what: &str, is: f64, limit: f64) -> bool {
    let kept = is <= limit;
    println!("{} {what}: {is:.2}, at most {limit:.2}", if kept { "kept  " } else { "MISSED" });
    kept
}
