//! Credentials and what they open, as a table.

use super::*;

fn principal(name: &str, role: Role) -> Principal {
    Principal { name: name.into(), method: format!("api_key:{name}").into(), role }
}

/// What the guard of `config` says to an `Authorization` value: who passed, or the status.
#[track_caller]
fn check(config: &GuardConfig, access: Access, value: Option<&str>) -> Result<String, u16> {
    let authorization = value.map_or(Authorization::Other, |value| Authorization::parse(value.as_bytes()));
    match Guard::new(config.clone()).check(access, authorization) {
        Check::Passed(Caller { tenant: Some(tenant), .. }) => Ok(tenant.to_string()),
        Check::Passed(Caller { principal: Some(principal), .. }) => Ok(principal.name.to_string()),
        Check::Passed(_) => Ok(String::new()),
        Check::Signed(token) => Ok(format!("signed {}", &*token)),
        Check::Refused(error, _) => Err(error.code.status()),
    }
}

const GATEWAY: Option<&str> = Some("Bearer sk-1");
const TENANT: Option<&str> = Some("Bearer sk-blue");
const OPS: Option<&str> = Some("Bearer sk-ops");
const READER: Option<&str> = Some("Bearer sk-reader");
const SIGNED: Option<&str> = Some("Bearer a.b.c");

fn with_key() -> GuardConfig {
    GuardConfig { api_key: Some("sk-1".into()), ..GuardConfig::default() }
}

fn with_tenants() -> GuardConfig {
    GuardConfig { tenant_keys: vec![("blue".into(), "sk-blue".into())], ..with_key() }
}

fn with_principals() -> GuardConfig {
    let keys = [("ops", Role::Admin, "sk-ops"), ("reader", Role::User, "sk-reader")];
    let control_keys = keys.map(|(name, role, key)| (principal(name, role), key.into())).to_vec();
    GuardConfig { control_keys, ..with_key() }
}

#[test]
fn credentials_open_what_they_are_for() {
    use Access::Control;
    use Access::Inference;
    let open = GuardConfig::default();
    let tokens = GuardConfig { accepts_tokens: true, ..with_principals() };
    let only_tokens = GuardConfig { accepts_tokens: true, ..GuardConfig::default() };
    for (config, access, value, expect) in [
        (&open, Inference, None, Ok("")),
        (&open, Inference, GATEWAY, Ok("")),
        (&open, Control, None, Ok("anonymous")),
        (&with_key(), Inference, None, Err(401)),
        (&with_key(), Inference, GATEWAY, Ok("")),
        (&with_key(), Inference, Some("bearer  sk-1 "), Ok("")),
        (&with_key(), Inference, Some("Bearer sk-2"), Err(401)),
        (&with_key(), Inference, Some("Bearer "), Err(401)),
        (&with_key(), Inference, Some("Basic sk-1"), Err(401)),
        (&with_key(), Inference, Some("sk-1"), Err(401)),
        (&with_key(), Control, None, Err(401)),
        (&with_key(), Control, GATEWAY, Ok("gateway")),
        (&with_key(), Control, SIGNED, Err(401)),
        (&with_tenants(), Inference, GATEWAY, Ok("")),
        (&with_tenants(), Inference, TENANT, Ok("blue")),
        (&with_tenants(), Control, TENANT, Err(401)),
        (&with_principals(), Inference, GATEWAY, Ok("")),
        (&with_principals(), Inference, OPS, Err(401)),
        (&with_principals(), Control, GATEWAY, Err(401)),
        (&with_principals(), Control, OPS, Ok("ops")),
        (&with_principals(), Control, READER, Err(403)),
        (&with_principals(), Control, SIGNED, Err(401)),
        (&tokens, Control, SIGNED, Ok("signed a.b.c")),
        (&tokens, Control, OPS, Ok("ops")),
        (&tokens, Control, Some("Bearer a.b.c.d"), Err(401)),
        (&tokens, Inference, SIGNED, Err(401)),
        (&only_tokens, Inference, None, Ok("")),
        (&only_tokens, Control, None, Err(401)),
        (&only_tokens, Control, OPS, Err(401)),
    ] {
        assert_eq!(
            check(config, access, value),
            expect.map(str::to_owned),
            "{access:?} {value:?} {config:?}"
        );
    }
}

#[test]
fn a_token_may_not_be_longer_than_heads_are() {
    let tokens = GuardConfig { accepts_tokens: true, ..GuardConfig::default() };
    let long = format!("Bearer {}.b.c", "a".repeat(limits::TOKEN_BYTES_MAX));
    assert_eq!(check(&tokens, Access::Control, Some(&long)), Err(401));
}

#[test]
fn each_door_serves_its_own() {
    let one = Guard::new(GuardConfig::default());
    let two = Guard::new(GuardConfig { has_admin_door: true, ..GuardConfig::default() });
    for (guard, door, path, expect) in [
        (&one, Door::Main, "/workers", Endpoint::Workers),
        (&one, Door::Main, "/generate", Endpoint::Generate),
        (&two, Door::Main, "/workers", Endpoint::Unknown),
        (&two, Door::Main, "/generate", Endpoint::Generate),
        (&two, Door::Main, "/health", Endpoint::Health),
        (&two, Door::Main, "/get_server_info", Endpoint::GetServerInfo),
        (&two, Door::Admin, "/workers", Endpoint::Workers),
        (&two, Door::Admin, "/health", Endpoint::Health),
        (&two, Door::Admin, "/generate", Endpoint::Unknown),
    ] {
        assert_eq!(guard.at_door(door, Endpoint::resolve(path)), expect, "{door:?} {path}");
    }
}

#[test]
fn a_guard_shows_no_key() {
    let config = GuardConfig { tenant_keys: with_tenants().tenant_keys, ..with_principals() };
    for text in [format!("{config:?}"), format!("{:?}", Guard::new(config))] {
        assert!(!text.contains("sk-"), "{text}");
    }
}

#[test]
fn batches_show_their_own_key_and_a_tenant_that_has_one() {
    let with_batches = |config| GuardConfig { batch_key: Some("secret".into()), ..config };
    let check =
        |config: &GuardConfig, shown: &str| match Guard::new(config.clone()).check_batch(shown.as_bytes()) {
            Check::Passed(caller) => Ok(caller.tenant.map(|tenant| tenant.to_string())),
            Check::Signed(_) => Err("signed"),
            Check::Refused(error, _) => Err(error.code.code()),
        };
    const REFUSED: Result<Option<String>, &str> = Err("batch_not_allowed");
    let blue = || Ok(Some("blue".to_owned()));
    for (config, shown, expect) in [
        (GuardConfig::default(), "secret", Ok(None)),
        (GuardConfig::default(), "secret blue", blue()),
        (with_tenants(), "secret", Ok(None)),
        (with_tenants(), "secret blue", blue()),
        (with_tenants(), "secret red", REFUSED),
        (with_tenants(), "secret ", REFUSED),
        (with_tenants(), "other blue", REFUSED),
        (with_tenants(), "", REFUSED),
    ] {
        assert_eq!(check(&with_batches(config), shown), expect, "{shown:?}");
    }
    assert_eq!(check(&with_tenants(), "secret blue"), REFUSED, "there are none");
}

#[test]
fn files_and_batches_are_paths_only_where_they_are_served() {
    for path in ["/v1/files", "/v1/files/file-1/content", "/v1/batches", "/v1/batches/batch_1/cancel"] {
        let config = GuardConfig { batch_key: Some("secret".into()), ..with_key() };
        assert_ne!(
            Guard::new(config.clone()).at_door(Door::Main, Endpoint::resolve(path)),
            Endpoint::Unknown
        );
        assert_eq!(Guard::new(config).at_door(Door::Admin, Endpoint::resolve(path)), Endpoint::Unknown);
        assert_eq!(Guard::new(with_key()).at_door(Door::Main, Endpoint::resolve(path)), Endpoint::Unknown);
    }
}
