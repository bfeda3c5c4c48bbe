//! What a wrong chains.yaml is answered with, to the letter.

mod form;
mod meaning;

use std::path::Path;

use xdpchain_spec::Config;

/// Asserts that `text` is refused with exactly `expected`.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = Config::parse(text, Path::new("chains.yaml")).expect_err("the text should be refused");
    assert_eq!(format!("{error}\n"), expected);
}
