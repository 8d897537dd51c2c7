//! What the flags of traces mean.

use super::require;
use crate::Failure;
use crate::cli::TraceFlags;

/// The collector of spans; none without traces.
pub(super) fn collector(flags: &TraceFlags) -> Result<Option<String>, Failure> {
    let endpoint = &flags.otlp_traces_endpoint;
    let is_address = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host =
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte));
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    require(is_address, "--otlp-traces-endpoint must be HOST:PORT")?;
    Ok(flags.enable_trace.then(|| endpoint.clone()))
}
