//! The objects that are tried: fixtures, examples, and what packages of XDP programs have installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{files_below, objects, workspace};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called in the table.
    pub name: String,
    /// What it is about.
    pub feature: String,
}

/// Every object: fixtures, examples that are built, and what Debian's packages have installed.
pub fn subjects() -> Vec<Subject> {
    let fixtures = files_below(&workspace().join("chain/compose/tests/fixtures/objects"));
    let mut all: Vec<Subject> = fixtures.iter().filter_map(|path| beside_source(path, path)).collect();
    for source in files_below(&workspace().join("programs/examples")) {
        let built = |name: &str| objects().join(name).with_extension("o");
        if source.extension().is_some_and(|e| e == "c") {
            let object = built(&source.file_stem().unwrap_or_default().to_string_lossy());
            all.extend(beside_source(&object, &source).filter(|subject| subject.path.is_file()));
        }
        if source.ends_with("src/main.rs") {
            let folder = source.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
            let path = built(&folder.to_string_lossy());
            let name = file_name(&path);
            let feature = std::fs::read_to_string(&source).map(|text| comment(&text)).unwrap_or_default();
            all.extend(path.is_file().then_some(Subject { path, name, feature }));
        }
    }
    let installed = files_below(&PathBuf::from(format!("/usr/lib/{}-linux-gnu/bpf", std::env::consts::ARCH)));
    let installed: Vec<PathBuf> =
        installed.into_iter().filter(|path| path.extension().is_some_and(|e| e == "o")).collect();
    let packages = packages(&installed);
    all.extend(installed.into_iter().map(|path| Subject {
        name: file_name(&path),
        feature: package(&packages, &path),
        path,
    }));
    all
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// An object whose source says what it is about.
fn beside_source(object: &Path, source: &Path) -> Option<Subject> {
    if object.extension()? != "o" {
        return None;
    }
    let text = std::fs::read_to_string(source.with_extension("c")).ok()?;
    Some(Subject { path: object.to_owned(), name: file_name(object), feature: comment(&text) })
}

/// The first sentence of the comment that a source file begins with.
fn comment(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.contains("SPDX"));
    let comment = lines.take_while(|line| {
        let line = line.trim_start();
        ["//", "/*", "*"].iter().any(|mark| line.starts_with(mark))
    });
    let words: Vec<&str> = comment
        .map(|line| line.trim_matches(|c: char| c == '/' || c == '*' || c == '!' || c.is_whitespace()))
        .filter(|line| !line.is_empty())
        .collect();
    let text = words.join(" ");
    text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// What dpkg says of files: `PACKAGE: FILE`, line by line. Asked once, for it reads the lists of every package.
fn packages(files: &[PathBuf]) -> String {
    let output = Command::new("dpkg").arg("-S").args(files).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The package that has installed a file.
fn package(packages: &str, path: &Path) -> String {
    let path = path.to_string_lossy();
    let line = packages.lines().find(|line| line.split_once(": ").is_some_and(|(_, file)| file == path));
    match line.and_then(|line| line.split(':').next()) {
        Some(package) => format!("Debian's package {package}"),
        None => "installed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_is_about_is_the_first_sentence_of_its_source() {
        assert_eq!(comment("// A lock. And more\n#include <a>\n// not this\n"), "A lock");
        assert_eq!(
            comment("// SPDX-License-Identifier: MIT\n/*\n * Two\n * lines.\n */\nint x;\n"),
            "Two lines"
        );
        assert_eq!(comment("//! Sets it.\n#![no_std]\n"), "Sets it");
    }

    #[test]
    fn every_fixture_says_what_it_is_about() {
        let fixtures: Vec<Subject> = subjects();
        assert!(fixtures.len() >= 40, "{}", fixtures.len());
        assert!(fixtures.iter().all(|subject| !subject.feature.is_empty()));
    }
}
