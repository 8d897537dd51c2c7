//! Flags of traces.

use clap::Args;

/// Where spans are exported to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceFlags {
    /// Export a span of every request (OpenTelemetry), and pass W3C trace context on to workers
    #[arg(long)]
    pub(crate) enable_trace: bool,
    /// The collector, which takes OTLP over gRPC
    #[arg(long, default_value = "localhost:4317", value_name = "HOST:PORT")]
    pub(crate) otlp_traces_endpoint: String,
}
