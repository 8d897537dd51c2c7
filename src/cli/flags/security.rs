//! Flags of who may ask for what.

use clap::Args;
use fleet::secret::Secret;

/// Who may ask for what. Wherever a key is taken, `@FILE` names a file that holds it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityFlags {
    /// Key that clients send as `Authorization: Bearer KEY`; also the key of the workers in --worker-urls, and of the
    /// control plane unless that has credentials of its own. @FILE reads it from a file
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<Secret>,
    /// A further key for inference, of one tenant; may be given again. @FILE reads several, one a line
    #[arg(long, value_name = "TENANT:KEY")]
    pub(crate) tenant_api_key: Vec<Secret>,
    /// Keys of the control plane, with role admin or user. @FILE reads them from a file, one a line
    #[arg(
        long,
        num_args = 1..,
        value_delimiter = ',',
        env = "CONTROL_PLANE_API_KEYS",
        hide_env_values = true,
        value_name = "ID:NAME:ROLE:KEY"
    )]
    pub(crate) control_plane_api_keys: Vec<Secret>,
    /// Issuer of signed tokens (JWT) that open the control plane
    #[arg(long, env = "JWT_ISSUER", value_name = "URL")]
    pub(crate) jwt_issuer: Option<String>,
    /// Audience that a token must be for
    #[arg(long, env = "JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,
    /// Where the issuer's keys are [default: what the issuer's discovery document says]
    #[arg(long, env = "JWT_JWKS_URI", value_name = "URL")]
    pub(crate) jwt_jwks_uri: Option<String>,
    /// The claim that holds a token's roles [default: the first there is of roles, role, groups, group]
    #[arg(long, value_name = "CLAIM")]
    pub(crate) jwt_role_claim: Option<String>,
    /// Which role a value of that claim stands for; `admin` and `user` stand for themselves
    #[arg(long, num_args = 1.., value_name = "VALUE=ROLE")]
    pub(crate) jwt_role_mapping: Vec<String>,
    /// Record calls of the control plane also where it has no credentials of its own
    #[arg(long)]
    pub(crate) control_plane_audit_enabled: bool,
    /// Record no calls of the control plane
    #[arg(long, conflicts_with = "control_plane_audit_enabled")]
    pub(crate) disable_audit_logging: bool,
    /// Origins whose pages may read answers, such as https://chat.example [default: any]
    #[arg(long, num_args = 0.., value_name = "ORIGIN")]
    pub(crate) cors_allowed_origins: Vec<String>,
    /// Address of the control plane's own listener
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST", requires = "admin_port")]
    pub(crate) admin_host: String,
    /// Port of the control plane's own listener; the main one then serves no control plane
    #[arg(long, value_name = "PORT")]
    pub(crate) admin_port: Option<u16>,
    /// Accept workers at link-local addresses and at those of clouds' metadata services
    #[arg(long)]
    pub(crate) allow_link_local_workers: bool,
}
