//! Runs a simulated engine, for trying the load generator: `engine PORT [fast]`.

use std::time::Duration;

use engine_sim::EngineConfig;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let port = arguments.get(1).and_then(|port| port.parse().ok()).unwrap_or(8_000);
    let config = EngineConfig { port, ..EngineConfig::default() };
    if arguments.iter().any(|word| word == "fast") {
        let (base_ttft, prefill_tokens_per_s, decode_tokens_per_s) = (Duration::ZERO, 0.0, 0.0);
        return engine_sim::run(EngineConfig {
            base_ttft,
            prefill_tokens_per_s,
            decode_tokens_per_s,
            ..config
        });
    }
    engine_sim::run(config)
}
