//! The order of the crates: who may know whom.

/// Each crate of ours with those it may depend on, leaves first.
const LAYERS: [(&str, &[&str]); 14] = [
    ("wire", &[]),
    ("api", &["wire"]),
    ("engine", &[]),
    ("otlp", &[]),
    ("fleet", &[]),
    ("text", &["api"]),
    ("policy", &["fleet"]),
    ("shard", &["wire", "api", "engine", "otlp", "text", "fleet", "policy"]),
    ("engine-sim", &["wire", "api"]),
    ("bench", &["wire", "api", "engine-sim"]),
    ("replay", &["fleet", "policy"]),
    ("testkit", &["wire", "api"]),
    ("tools", &["testkit"]),
    (
        "ringway",
        &["wire", "api", "engine", "otlp", "text", "fleet", "policy", "shard", "engine-sim", "replay"],
    ),
];
/// What only tests may use beyond that.
const TESTS: [&str; 2] = ["testkit", "engine-sim"];
/// The fuzz targets, a workspace of their own, feed parsers.
const FUZZ: (&str, &[&str]) = ("fuzz", &["wire", "api", "engine", "text"]);

/// Reads a `Cargo.toml`.
pub(super) fn check(name: &str, text: &str, findings: &mut Vec<String>) {
    let mut section = "";
    let mut package = None;
    let mut used = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            continue;
        }
        let Some(key) = line.split(['=', '.', ' ']).next().filter(|key| !key.is_empty()) else { continue };
        match section {
            "package" if key == "name" => package = line.split('"').nth(1),
            "dependencies" | "build-dependencies" => used.push((at + 1, key, false)),
            "dev-dependencies" => used.push((at + 1, key, true)),
            _ => {}
        }
    }
    let Some(package) = package else { return };
    let known = LAYERS.iter().find(|(layer, _)| *layer == package);
    let Some((_, allowed)) = known.or_else(|| is_fuzz(name).then_some(&FUZZ)) else {
        findings.push(format!("{name}:1: the crate {package} has no place in the order of crates"));
        return;
    };
    for (line, key, is_test) in used {
        let is_ours = LAYERS.iter().any(|(layer, _)| *layer == key);
        let is_allowed = allowed.contains(&key) || (is_test && TESTS.contains(&key));
        if is_ours && !is_allowed {
            findings.push(format!("{name}:{line}: {package} must not depend on {key}"));
        }
    }
}

fn is_fuzz(name: &str) -> bool {
    name.starts_with("tools/fuzz/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(package: &str, dependencies: &str, expect: &[&str]) {
        let text = format!("[package]\nname = \"{package}\"\n{dependencies}");
        let mut findings = Vec::new();
        check("x/Cargo.toml", &text, &mut findings);
        let found: Vec<&str> = findings.iter().filter_map(|finding| finding.split(": ").nth(1)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn dependencies_point_down() {
        finds("policy", "[dependencies]\nfleet.workspace = true\nserde.workspace = true\n", &[]);
        finds("policy", "[dependencies]\nshard = { path = \"..\" }\n", &["policy must not depend on shard"]);
        finds("wire", "[build-dependencies]\napi.workspace = true\n", &["wire must not depend on api"]);
        finds("bench", "[dependencies]\nringway.workspace = true\n", &["bench must not depend on ringway"]);
    }

    #[test]
    fn tests_may_use_the_kit_and_nothing_above() {
        finds("ringway", "[dev-dependencies]\ntestkit.workspace = true\n", &[]);
        finds(
            "ringway",
            "[dependencies]\ntestkit.workspace = true\n",
            &["ringway must not depend on testkit"],
        );
        finds(
            "shard",
            "[dev-dependencies]\nringway.workspace = true\n",
            &["shard must not depend on ringway"],
        );
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        finds("more", "", &["the crate more has no place in the order of crates"]);
    }

    #[test]
    fn layers_are_listed_leaves_first() {
        for (at, (layer, allowed)) in LAYERS.iter().enumerate() {
            for below in *allowed {
                let place = LAYERS.iter().position(|(name, _)| name == below);
                assert!(place.is_some_and(|place| place < at), "{layer} stands above {below}");
            }
        }
    }
}
