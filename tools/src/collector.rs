//! `tools collector`: takes spans over OTLP/gRPC, throws them away, and says how many bytes came.

use std::net::TcpListener;

use argh::FromArgs;

/// Take the spans of a gateway, for measurements.
#[derive(FromArgs)]
#[argh(subcommand, name = "collector")]
pub(crate) struct Args {
    /// port on 127.0.0.1 to listen on [default: 4317]
    #[argh(option, default = "4317")]
    port: u16,
}

/// Takes spans until it is ended; false when it cannot listen.
pub(crate) fn run(args: &Args) -> bool {
    match TcpListener::bind(("127.0.0.1", args.port)) {
        Ok(listener) => {
            testkit::collector::serve(&listener, |call| println!("a call of {} bytes", call.len()));
            true
        }
        Err(error) => {
            println!("cannot listen on port {}: {error}", args.port);
            false
        }
    }
}
