//! Flags of the SGLang router whose features do not exist here yet. Each is refused by name.

/// Flags of SGLang's router (both front ends) that are known and not built.
const UNBUILT: &[&str] = &[
    "--chat-template",
    "--enable-mesh",
    "--enable-wasm",
    "--history-backend",
    "--mcp-config-path",
    "--mesh-host",
    "--mesh-peer-urls",
    "--mesh-port",
    "--mesh-server-name",
    "--model-path",
    "--oracle-connect-descriptor",
    "--oracle-dsn",
    "--oracle-password",
    "--oracle-pool-max",
    "--oracle-pool-min",
    "--oracle-pool-timeout-secs",
    "--oracle-tns-alias",
    "--oracle-user",
    "--oracle-username",
    "--oracle-wallet-path",
    "--postgres-db-url",
    "--postgres-pool-max",
    "--postgres-pool-max-size",
    "--priority-scheduler-tenant-metric-top-n",
    "--reasoning-parser",
    "--redis-pool-max",
    "--redis-pool-max-size",
    "--redis-retention-days",
    "--redis-url",
    "--router-selector",
    "--runtime",
    "--tokenizer-cache-enable-l0",
    "--tokenizer-cache-enable-l1",
    "--tokenizer-cache-l0-max-entries",
    "--tokenizer-cache-l1-max-memory",
    "--tokenizer-path",
    "--tool-call-parser",
];

/// The unbuilt flag that `argument` is, if it is one, with or without `=value`.
pub(crate) fn find(argument: &str) -> Option<&'static str> {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    UNBUILT.iter().copied().find(|unbuilt| *unbuilt == name)
}
