//! Rules of every file: what it begins with, how long it is, and what it must not hold.

/// Lines beyond which a file is two files.
const LINES_MAX: usize = 500;
/// Files that may be longer: none.
const LONG: [&str; 0] = [];
/// Endings of the files that people read and write.
const TEXTS: [&str; 6] = [".rs", ".toml", ".md", ".sh", ".yml", ".yaml"];

/// What no Rust file may hold. Each is put together, so that this file does not hold it.
const FORBIDDEN: [(&str, &str); 3] = [
    (concat!("#[", "ignore"), "a test that does not run tells nothing"),
    (concat!("to", "do!("), "unfinished"),
    (concat!("db", "g!("), "left over from a search"),
];
/// Where the folders of one machine begin.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];

/// Looks through a file.
pub(super) fn check(name: &str, text: &str, findings: &mut Vec<String>) {
    if TEXTS.iter().any(|ending| name.ends_with(ending)) {
        for (at, line) in text.lines().enumerate() {
            if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(*path)) {
                findings.push(format!("{name}:{}: {path} is a path of one machine", at + 1));
            }
        }
    }
    if name.ends_with(".rs") {
        check_rust(name, text, findings);
    }
}

fn check_rust(name: &str, text: &str, findings: &mut Vec<String>) {
    if !text.starts_with("//! ") {
        findings.push(format!("{name}:1: the file does not begin with a sentence of purpose"));
    }
    if name.ends_with("/mod.rs") {
        findings.push(format!("{name}:1: a module's file is named after the module"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONG.contains(&name) {
        findings.push(format!("{name}:{LINES_MAX}: {lines} lines, more than {LINES_MAX}"));
    }
    for (at, line) in text.lines().enumerate() {
        for (word, reason) in FORBIDDEN {
            if line.contains(word) {
                findings.push(format!("{name}:{}: {word}: {reason}", at + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(name: &str, text: &str, expect: &[&str]) {
        let mut findings = Vec::new();
        check(name, text, &mut findings);
        let found: Vec<&str> = findings.iter().filter_map(|finding| finding.split(' ').next()).collect();
        assert_eq!(found, expect, "{findings:?}");
    }

    #[test]
    fn a_good_file_passes() {
        finds("a/b.rs", "//! Says what it is for.\nfn main() {}\n", &[]);
    }

    #[test]
    fn every_rule_is_checked() {
        finds("a.rs", "fn main() {}\n", &["a.rs:1:"]);
        finds("a.rs", "//!\n", &["a.rs:1:"]);
        finds("a/mod.rs", "//! A.\n", &["a/mod.rs:1:"]);
        finds("a.rs", &format!("//! A.\n{}", "\n".repeat(500)), &["a.rs:500:"]);
        finds("a.rs", &format!("//! A.\n{}", "\n".repeat(499)), &[]);
        for (word, _) in FORBIDDEN {
            finds("a.rs", &format!("//! A.\n{word}"), &["a.rs:2:"]);
        }
        for path in MACHINE_PATHS {
            finds("a.md", &format!("\nsee {path}x"), &["a.md:2:"]);
            finds("a.bin", path, &[]);
        }
    }
}
