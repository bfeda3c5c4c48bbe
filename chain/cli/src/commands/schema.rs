//! `xdpchain schema`: chains.yaml as a JSON Schema.

use crate::error::{Error, Result, exit};
use crate::output::{Output, write};

/// The schema is a document of its own, so it comes without an envelope.
pub(crate) fn run(out: Output) -> Result<u8> {
    let schema = xdpchain_spec::schema();
    let text = match out.yaml() {
        true => serde_yaml::to_string(&schema)
            .map_err(|error| Error::Format { format: "YAML", reason: error.to_string() })?,
        false => {
            let failed =
                |error: serde_json::Error| Error::Format { format: "JSON", reason: error.to_string() };
            serde_json::to_string_pretty(&schema).map_err(failed)? + "\n"
        }
    };
    write(text.as_bytes())?;
    Ok(exit::DONE)
}
