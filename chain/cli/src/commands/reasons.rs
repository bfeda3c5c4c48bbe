//! `reasons`: why packets are not forwarded, what that means, and what to do about it.

use serde::Serialize;
use xdpchain_abi::Fate;
use xdpchain_reference::{EXPLAINED, Explained, Row, fate_name};

use crate::error::{Result, exit};
use crate::output::Output;

#[derive(Serialize)]
struct Reasons {
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    reason: &'static str,
    /// Index in the counters of each module.
    number: u16,
    fate: &'static str,
    /// Rows of the conformance table.
    rows: Vec<&'static str>,
    meaning: &'static str,
    remedy: &'static str,
}

impl From<&Explained> for Reason {
    fn from(explained: &Explained) -> Self {
        Self {
            reason: explained.reason.name(),
            number: explained.reason as u16,
            fate: fate_name(explained.reason.fate()),
            rows: explained.rows.iter().copied().map(Row::id).collect(),
            meaning: explained.meaning,
            remedy: explained.remedy,
        }
    }
}

pub(crate) fn run(out: Output, names: &[String]) -> Result<u8> {
    let wanted =
        |explained: &&Explained| names.is_empty() || names.iter().any(|name| explained.reason.name() == name);
    let reasons = Reasons { reasons: EXPLAINED.iter().filter(wanted).map(Reason::from).collect() };
    out.print("Reasons", &reasons, |page| {
        for (i, fate) in [Fate::Drop, Fate::Punt, Fate::Noted].map(fate_name).into_iter().enumerate() {
            let of_fate = || reasons.reasons.iter().filter(|reason| reason.fate == fate);
            if of_fate().next().is_none() {
                continue;
            }
            if i > 0 && names.is_empty() {
                page.line("");
            }
            page.table(
                &["REASON", "FATE", "ROWS", "MEANING"],
                of_fate().map(|reason| {
                    vec![
                        reason.reason.to_owned(),
                        reason.fate.to_owned(),
                        reason.rows.join(", "),
                        reason.meaning.to_owned(),
                    ]
                }),
            );
        }
        page.line("");
        page.line("What to do:");
        for reason in &reasons.reasons {
            page.line(format!("  {}: {}", reason.reason, reason.remedy));
        }
    })?;
    Ok(exit::DONE)
}
