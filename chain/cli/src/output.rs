//! Data on stdout: tables for people, one enveloped document for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::Format;
use crate::error::{Error, Result};

/// Version of every JSON and YAML document that is printed.
const API_VERSION: &str = "xdpchain/v1";

/// Where a command's data go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    /// Bold headings; only on a terminal, and not with `NO_COLOR`.
    styled: bool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    data: &'a T,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, styled: io::stdout().is_terminal() && !no_color() }
    }

    /// Whether more columns and tables are wanted.
    pub(crate) fn wide(self) -> bool {
        self.format == Format::Wide
    }

    /// Whether only what a narrow table has room for is wanted.
    pub(crate) fn narrow(self) -> bool {
        self.format == Format::Table
    }

    /// Whether YAML is wanted.
    pub(crate) fn yaml(self) -> bool {
        self.format == Format::Yaml
    }

    /// Whether test reports are wanted as JUnit has them.
    pub(crate) fn junit(self) -> bool {
        self.format == Format::Junit
    }

    /// Prints `data`, a struct, as a document of that kind, or what `page` makes for people.
    pub(crate) fn print<T: Serialize>(
        self,
        kind: &str,
        data: &T,
        page: impl FnOnce(&mut Page),
    ) -> Result<()> {
        let envelope = Envelope { api_version: API_VERSION, kind, data };
        let text = match self.format {
            Format::Table | Format::Wide => {
                let mut built = Page { text: String::new(), styled: self.styled };
                page(&mut built);
                built.text
            }
            Format::Junit => {
                let reason = "only `xdpchain test` prints it".to_owned();
                return Err(Error::Format { format: "JUnit", reason });
            }
            Format::Json => document(kind, data)?,
            Format::Yaml => {
                let failed = |e: serde_yaml::Error| Error::Format { format: "YAML", reason: e.to_string() };
                serde_yaml::to_string(&envelope).map_err(failed)?
            }
        };
        write(text.as_bytes())
    }
}

/// `data`, a struct, as a JSON document of that kind.
pub(crate) fn document<T: Serialize>(kind: &str, data: &T) -> Result<String> {
    let failed = |e: serde_json::Error| Error::Format { format: "JSON", reason: e.to_string() };
    Ok(serde_json::to_string_pretty(&Envelope { api_version: API_VERSION, kind, data }).map_err(failed)?
        + "\n")
}

/// Whether <https://no-color.org> is asked for.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Writes to stdout. A reader that has seen enough and went away is no failure.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Text for people, put together from lines and tables.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    styled: bool,
}

impl Page {
    /// A line; an empty one separates paragraphs.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// A line in a colour of the terminal's, `32` for green.
    pub(crate) fn coloured(&mut self, colour: &str, line: impl AsRef<str>) {
        match self.styled {
            true => self.line(format!("\x1b[{colour}m{}\x1b[0m", line.as_ref())),
            false => self.line(line),
        }
    }

    /// A table. A heading that begins with `>` has its column flush right.
    pub(crate) fn table(&mut self, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let header = headings.iter().map(|heading| {
            let cell = Cell::new(heading.trim_start_matches('>'));
            if self.styled { cell.add_attribute(Attribute::Bold) } else { cell }
        });
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        for (i, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(i) {
                column.set_padding((0, 2));
                if heading.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        if !self.styled {
            table.force_no_tty();
        }
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }
}

/// A number with its thousands apart: `1'048'576`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\'');
        }
        out.push(digit);
    }
    out
}

/// Octets in the unit that leaves one to four digits before the point.
pub(crate) fn octets(number: u64) -> String {
    let units = [" B", " KiB", " MiB", " GiB", " TiB"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_048_576), "1'048'576");
        assert_eq!(octets(1023), "1023 B");
        assert_eq!(octets(126_877_696), "121.0 MiB");
    }

    #[test]
    fn a_table_is_plain_text_without_a_terminal() {
        let mut page = Page::default();
        page.table(
            &["SLOT", ">PACKETS"],
            [vec!["acl".into(), "7".into()], vec!["gtp-decap".into(), "1'000".into()]],
        );
        assert_eq!(page.text, "SLOT       PACKETS\nacl              7\ngtp-decap    1'000\n");
    }

    #[test]
    fn the_envelope_says_what_it_holds() {
        #[derive(Serialize)]
        struct Data {
            n: u32,
        }
        let envelope = Envelope { api_version: API_VERSION, kind: "Test", data: &Data { n: 1 } };
        let json = serde_json::to_string(&envelope).unwrap();
        assert_eq!(json, r#"{"apiVersion":"xdpchain/v1","kind":"Test","n":1}"#);
    }
}
