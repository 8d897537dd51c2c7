//! What the security flags mean.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fleet::access::Principal;
use fleet::access::Role;
use fleet::secret::Secret;
use shard::guard::Guard;
use shard::guard::GuardConfig;

use crate::Failure;
use crate::auth::AuthConfig;
use crate::auth::TokenUrl;
use crate::batches;
use crate::cli::SecurityFlags;
use crate::config::host;
use crate::config::nonzero_port;
use crate::config::require;
use crate::control::is_key;

/// Keys of one kind: more than a gateway has tenants, and some MiB.
const KEYS_MAX: usize = 65_536;
/// Origins; each request that names one looks at all of them.
const ORIGINS_MAX: usize = 256;
/// Claims that may hold a token's roles where none is named, as in SGLang's gateway.
const ROLE_CLAIMS: [&str; 4] = ["roles", "role", "groups", "group"];
/// Largest file of keys.
const KEY_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What the process guards itself by.
#[derive(Debug)]
pub(crate) struct SecurityConfig {
    /// Inherited by the workers of the command line.
    pub(crate) api_key: Option<Secret>,
    pub(crate) guard: Arc<Guard>,
    /// How tokens are verified, if they are accepted.
    pub(crate) tokens: Option<AuthConfig>,
    /// Where the control plane is served alone.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) allows_link_local: bool,
    /// Whether not everybody who reaches the main listener may use the control plane.
    pub(crate) is_control_closed: bool,
}

/// Validates the flags. Where there are batches, their requests are let in too.
pub(crate) fn lower(flags: &SecurityFlags, has_batches: bool) -> Result<SecurityConfig, Failure> {
    let api_key = api_key(flags)?;
    let tenant_keys = tenant_keys(flags)?;
    let control_keys = control_keys(flags)?;
    let tokens = tokens(flags)?;
    let has_principals = tokens.is_some() || !control_keys.is_empty();
    require(
        tenant_keys.is_empty() || api_key.is_some() || has_principals,
        "--tenant-api-key needs --api-key or --control-plane-api-keys: anybody could use the control plane",
    )?;
    let inference = api_key.iter().chain(tenant_keys.iter().map(|(_, key)| key));
    require_different("--tenant-api-key", inference)?;
    require_different("--control-plane-api-keys", control_keys.iter().map(|(_, key)| key))?;
    let admin = flags
        .admin_port
        .map(|port| {
            Ok(SocketAddr::new(host("--admin-host", &flags.admin_host)?, nonzero_port("--admin-port", port)?))
        })
        .transpose()?;
    let is_audited = !flags.disable_audit_logging && (has_principals || flags.control_plane_audit_enabled);
    let guard = Guard::new(GuardConfig {
        is_cors_silent: false,
        api_key: api_key.clone(),
        tenant_keys,
        control_keys,
        accepts_tokens: tokens.is_some(),
        cors_origins: origins(&flags.cors_allowed_origins)?,
        has_admin_door: admin.is_some(),
        is_audited,
        batch_key: has_batches.then(batches::key),
    });
    Ok(SecurityConfig {
        is_control_closed: api_key.is_some() || has_principals || admin.is_some(),
        api_key,
        guard: Arc::new(guard),
        tokens,
        admin,
        allows_link_local: flags.allow_link_local_workers,
    })
}

fn api_key(flags: &SecurityFlags) -> Result<Option<Secret>, Failure> {
    let Some(given) = &flags.api_key else { return Ok(None) };
    let mut keys = read("--api-key", std::slice::from_ref(given))?;
    require(keys.len() == 1, "--api-key takes one key")?;
    let key = keys.remove(0);
    require(is_key(&key), "--api-key must be printable ASCII without spaces")?;
    Ok(Some(key))
}

fn tenant_keys(flags: &SecurityFlags) -> Result<Vec<(Arc<str>, Secret)>, Failure> {
    const FLAG: &str = "--tenant-api-key";
    let entry = |at: usize, entry: &Secret| {
        let wrong = || Failure::usage(format!("{FLAG}: entry {} is not TENANT:KEY", at + 1));
        let (tenant, key) = entry.split_once(':').ok_or_else(wrong)?;
        if !is_name(tenant) || !is_key(key) {
            return Err(wrong());
        }
        Ok((tenant.into(), key.into()))
    };
    read(FLAG, &flags.tenant_api_key)?.iter().enumerate().map(|(at, given)| entry(at, given)).collect()
}

fn control_keys(flags: &SecurityFlags) -> Result<Vec<(Principal, Secret)>, Failure> {
    const FLAG: &str = "--control-plane-api-keys";
    let mut ids = HashSet::new();
    let mut entry = |at: usize, entry: &Secret| {
        let at = at + 1;
        let wrong = || Failure::usage(format!("{FLAG}: entry {at} is not ID:NAME:ROLE:KEY"));
        let mut parts = entry.splitn(4, ':');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or_else(wrong);
        let (id, name, role, key) = (part()?, part()?, part()?, part()?);
        if !is_name(id) || !is_key(key) || name.chars().any(char::is_control) {
            return Err(wrong());
        }
        let role = Role::parse(role)
            .ok_or_else(|| Failure::usage(format!("{FLAG}: the role of entry {at} is not admin or user")))?;
        require(ids.insert(id.to_owned()), &format!("{FLAG}: the id of entry {at} is given twice"))?;
        let principal = Principal { name: name.into(), method: format!("api_key:{id}").into(), role };
        Ok((principal, Secret::from(key)))
    };
    read(FLAG, &flags.control_plane_api_keys)?
        .iter()
        .enumerate()
        .map(|(at, given)| entry(at, given))
        .collect()
}

fn tokens(flags: &SecurityFlags) -> Result<Option<AuthConfig>, Failure> {
    let (issuer, audience) = match (&flags.jwt_issuer, &flags.jwt_audience) {
        (Some(issuer), Some(audience)) if !issuer.is_empty() && !audience.is_empty() => (issuer, audience),
        (None, None) => {
            require(flags.jwt_jwks_uri.is_none(), "--jwt-jwks-uri needs --jwt-issuer and --jwt-audience")?;
            require(
                flags.jwt_role_mapping.is_empty(),
                "--jwt-role-mapping needs --jwt-issuer and --jwt-audience",
            )?;
            return Ok(None);
        }
        _ => return Err(Failure::usage("--jwt-issuer and --jwt-audience need each other")),
    };
    let url = |flag: &str, text: &str| {
        TokenUrl::parse(text).map_err(|error| Failure::usage(format!("{flag}: {error}")))
    };
    let jwks_uri = match &flags.jwt_jwks_uri {
        Some(uri) => Some(url("--jwt-jwks-uri", uri)?),
        None => {
            url("--jwt-issuer", issuer)?;
            None
        }
    };
    let mapping = |text: &String| {
        let (value, role) = text.rsplit_once('=')?;
        Some((value.to_owned(), Role::parse(role)?))
    };
    let role_mapping: Option<BTreeMap<String, Role>> = flags.jwt_role_mapping.iter().map(mapping).collect();
    Ok(Some(AuthConfig {
        issuer: issuer.clone(),
        audience: audience.clone(),
        jwks_uri,
        role_claims: role_claims(flags.jwt_role_claim.as_deref())?,
        role_mapping: role_mapping
            .ok_or_else(|| Failure::usage("--jwt-role-mapping takes VALUE=admin and VALUE=user"))?,
    }))
}

/// The claims that may hold roles. One that is named is the only one: whoever may fill in another must not become more
/// by it.
fn role_claims(named: Option<&str>) -> Result<Vec<String>, Failure> {
    match named {
        Some("") => Err(Failure::usage("--jwt-role-claim must not be empty")),
        Some(claim) => Ok(vec![claim.to_owned()]),
        None => Ok(ROLE_CLAIMS.map(str::to_owned).to_vec()),
    }
}

/// Keys as given, or from the files that are named instead.
fn read(flag: &str, given: &[Secret]) -> Result<Vec<Secret>, Failure> {
    let mut keys = Vec::new();
    for value in given {
        let Some(path) = value.strip_prefix('@') else {
            keys.push(value.clone());
            continue;
        };
        let unreadable = |why: String| Failure::usage(format!("{flag}: cannot read {path}: {why}"));
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > KEY_FILE_BYTES_MAX {
            return Err(unreadable(format!("it has more than {KEY_FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let before = keys.len();
        keys.extend(lines.map(Secret::from));
        // A file that was emptied, perhaps for a moment, must not open what its keys were for.
        require(keys.len() > before, &format!("{flag}: {path} holds no key"))?;
    }
    require(keys.len() <= KEYS_MAX, &format!("{flag} takes {KEYS_MAX} keys at most"))?;
    Ok(keys)
}

/// Whether a name can stand in logs and labels as it is.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A key that stands for two things would stand for either.
fn require_different<'a>(flag: &str, keys: impl Iterator<Item = &'a Secret>) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for key in keys {
        require(seen.insert(&**key), &format!("{flag}: two entries have the same key"))?;
    }
    Ok(())
}

/// Origins as browsers send them; none for any.
fn origins(given: &[String]) -> Result<Vec<String>, Failure> {
    require(given.len() <= ORIGINS_MAX, &format!("--cors-allowed-origins takes {ORIGINS_MAX} at most"))?;
    if given.iter().any(|origin| origin == "*") {
        return Ok(Vec::new());
    }
    let origin = |given: &String| {
        let origin = given.to_ascii_lowercase();
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        let message =
            format!("--cors-allowed-origins {given:?} is not an origin such as https://chat.example:8443");
        require(!host.is_empty() && host.bytes().all(is_host) && origin.is_ascii(), &message)?;
        Ok(origin)
    };
    given.iter().map(origin).collect()
}

#[cfg(test)]
mod tests;
