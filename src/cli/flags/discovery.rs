//! Flags of sources that say who the workers are.

use std::path::PathBuf;

use clap::Args;

/// Where workers are found.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Discovery")]
pub(crate) struct DiscoveryFlags {
    /// Find workers among the pods of a Kubernetes cluster: the one that this process runs in, or the one of KUBECONFIG
    #[arg(long)]
    pub(crate) service_discovery: bool,
    /// Labels of the pods that are workers, as key=value
    #[arg(long, num_args = 1.., value_name = "LABEL")]
    pub(crate) selector: Vec<String>,
    /// Port at which pods serve
    #[arg(long, default_value_t = 80, value_name = "PORT")]
    pub(crate) service_discovery_port: u16,
    /// Namespace to look in [default: all of them, which takes rights for the whole cluster]
    #[arg(long, value_name = "NAME")]
    pub(crate) service_discovery_namespace: Option<String>,
    /// With --pd-disaggregation: labels of the pods that are prefill workers
    #[arg(long, num_args = 1.., value_name = "LABEL")]
    pub(crate) prefill_selector: Vec<String>,
    /// With --pd-disaggregation: labels of the pods that are decode workers
    #[arg(long, num_args = 1.., value_name = "LABEL")]
    pub(crate) decode_selector: Vec<String>,
    /// A list of workers, JSON or YAML, that is watched: URLs, or objects as in POST /workers
    #[arg(long, value_name = "PATH")]
    pub(crate) worker_file: Option<PathBuf>,
    /// Names that stand for workers, asked for again as they age: http://name:port for each of its addresses,
    /// srv://_service._proto.domain for each target of its service records
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub(crate) worker_dns: Vec<String>,
    /// The server that is asked for these names [default: those of the system]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) dns_server: Option<std::net::SocketAddr>,
}
