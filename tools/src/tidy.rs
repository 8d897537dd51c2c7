//! `tools tidy`: the rules of the repository that no compiler checks.

mod layers;
mod sources;

use std::path::Path;
use std::path::PathBuf;

use argh::FromArgs;

/// Check the rules of the repository that no compiler checks.
#[derive(FromArgs)]
#[argh(subcommand, name = "tidy")]
pub(crate) struct Args {}

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 5] = [".git", "target", "shared", "artifacts", "coverage"];

/// Prints what is wrong; true when nothing is.
pub(crate) fn run() -> bool {
    let findings = check(&root());
    for finding in &findings {
        println!("{finding}");
    }
    findings.is_empty()
}

/// Everything wrong below `root`, each in a line that begins with its file.
fn check(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(root, &mut files);
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        // What is no text is nothing to read.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        sources::check(&name, &text, &mut findings);
        if name.ends_with("Cargo.toml") {
            layers::check(&name, &text, &mut findings);
        }
    }
    findings
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_foreign = FOREIGN.iter().any(|foreign| entry.file_name() == *foreign);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !is_foreign => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = check(&root());
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn every_file_is_looked_at() {
        let mut files = Vec::new();
        collect(&root(), &mut files);
        let has = |name: &str| files.iter().any(|file| file.ends_with(name));
        assert!(has("src/main.rs") && has("proto/wire/src/head.rs") && has("tests/kit/Cargo.toml"));
    }
}
