//! Security flags that cannot be used, and what the others come to.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: SecurityFlags,
}

fn lowered(line: &str) -> Result<SecurityConfig, Failure> {
    let argv = std::iter::once("ringway").chain(line.split_whitespace());
    lower(&Line::try_parse_from(argv).expect(line).flags, false)
}

#[test]
fn each_bad_flag_is_one_line_that_shows_no_key() {
    for (line, expect) in [
        ("--api-key sk-é", "--api-key must be printable ASCII"),
        ("--api-key @/no/such/sk-file", "--api-key: cannot read /no/such/sk-file: No such file"),
        ("--tenant-api-key blue:sk-1", "--tenant-api-key needs --api-key"),
        ("--api-key sk-0 --tenant-api-key sk-1", "entry 1 is not TENANT:KEY"),
        ("--api-key sk-0 --tenant-api-key a:sk-1 --tenant-api-key b\u{e9}:sk-2", "entry 2 is not TENANT:KEY"),
        ("--api-key sk-0 --tenant-api-key blue:sk-0", "two entries have the same key"),
        ("--control-plane-api-keys sk-1", "entry 1 is not ID:NAME:ROLE:KEY"),
        ("--control-plane-api-keys a:Ops:admin:", "entry 1 is not ID:NAME:ROLE:KEY"),
        ("--control-plane-api-keys a:Ops:root:sk-1", "the role of entry 1 is not admin or user"),
        ("--control-plane-api-keys a:A:admin:sk-1 a:B:user:sk-2", "the id of entry 2 is given twice"),
        ("--control-plane-api-keys a:A:admin:sk-1 b:B:user:sk-1", "two entries have the same key"),
        ("--jwt-issuer https://i.example", "need each other"),
        ("--jwt-audience a", "need each other"),
        ("--jwt-issuer https://i.example --jwt-audience=", "need each other"),
        ("--jwt-jwks-uri https://i.example", "--jwt-jwks-uri needs --jwt-issuer"),
        ("--jwt-role-mapping ops=admin", "--jwt-role-mapping needs --jwt-issuer"),
        ("--jwt-issuer http://i.example --jwt-audience a", "--jwt-issuer: the URL must be https"),
        (
            "--jwt-issuer i --jwt-audience a --jwt-jwks-uri https://10.0.0.1/keys",
            "--jwt-jwks-uri: the URL must not name a private",
        ),
        (
            "--jwt-issuer https://i.example --jwt-audience a --jwt-role-mapping ops=root",
            "--jwt-role-mapping takes VALUE=admin",
        ),
        (
            "--jwt-issuer https://i.example --jwt-audience a --jwt-role-claim=",
            "--jwt-role-claim must not be empty",
        ),
        ("--cors-allowed-origins chat.example", "is not an origin"),
        ("--cors-allowed-origins https://chat.example/", "is not an origin"),
        ("--cors-allowed-origins null", "is not an origin"),
        ("--admin-port 0", "--admin-port must be above 0"),
        ("--admin-port 1 --admin-host nowhere.example", "--admin-host"),
    ] {
        let failure = lowered(line).expect_err(line).to_string();
        assert!(failure.contains(expect), "{line}: {failure}");
        let shown = failure.replace("/no/such/sk-file", "");
        assert!(!shown.contains("sk-") && !failure.contains('\n'), "{failure}");
    }
}

#[test]
fn the_two_audit_switches_exclude_each_other() {
    let argv = ["ringway", "--control-plane-audit-enabled", "--disable-audit-logging"];
    assert!(Line::try_parse_from(argv).is_err());
    assert!(Line::try_parse_from(["ringway", "--admin-host", "::1"]).is_err(), "a host needs a port");
}

#[test]
fn a_role_claim_that_is_named_is_the_only_one() {
    let tokens = "--jwt-issuer https://i.example --jwt-audience a";
    for (line, expect) in [
        (tokens.to_owned(), &["roles", "role", "groups", "group"][..]),
        (format!("{tokens} --jwt-role-claim permissions"), &["permissions"]),
        (format!("{tokens} --jwt-role-claim roles"), &["roles"]),
    ] {
        let config = lowered(&line).expect(&line);
        assert_eq!(config.tokens.expect("accepted").role_claims, expect, "{line}");
    }
}

#[test]
fn nothing_is_shown_of_what_was_given() {
    let line = "--api-key sk-0 --tenant-api-key blue:sk-1 --control-plane-api-keys a:Ops:admin:sk:2";
    let argv = std::iter::once("ringway").chain(line.split_whitespace());
    let flags = Line::try_parse_from(argv).expect(line);
    let config = lower(&flags.flags, false).expect(line);
    let text = format!("{flags:?} {config:?}");
    assert!(!text.contains("sk-") && !text.contains("sk:2"), "{text}");
    assert_eq!(config.api_key.as_deref(), Some("sk-0"));
}

#[test]
fn keys_may_stand_in_files() {
    let path = std::env::temp_dir().join(format!("ringway-keys-{}", std::process::id()));
    std::fs::write(&path, "# who may\n\nblue:sk-1\n  green:sk-2  \n").expect("written");
    let shown = path.display();
    let flags = SecurityFlags {
        tenant_api_key: vec![format!("@{shown}").into(), "red:sk-3".into()],
        ..Line::try_parse_from(["ringway"]).expect("no flags").flags
    };
    let keys = tenant_keys(&flags).expect("readable");
    let keys: Vec<(&str, &str)> = keys.iter().map(|(tenant, key)| (&**tenant, &**key)).collect();
    assert_eq!(keys, [("blue", "sk-1"), ("green", "sk-2"), ("red", "sk-3")]);
    let two = SecurityFlags { api_key: Some(format!("@{shown}").into()), ..flags };
    assert_eq!(api_key(&two).expect_err("two lines").to_string(), "--api-key takes one key");
    // A file that was emptied opens nothing.
    std::fs::write(&path, "# nobody\n").expect("written");
    let refusal = format!("--api-key: {shown} holds no key");
    assert_eq!(api_key(&two).expect_err("no line").to_string(), refusal);
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn any_origin_is_no_list() {
    let list = |given: &[&str]| origins(&given.iter().map(|&origin| origin.to_owned()).collect::<Vec<_>>());
    assert_eq!(list(&["https://A.example:8443", "*"]), Ok(Vec::new()));
    assert_eq!(list(&["HTTPS://A.example:8443"]), Ok(vec!["https://a.example:8443".to_owned()]));
}
