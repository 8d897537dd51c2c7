//! Log output: text or JSON on standard output, and daily files, written by threads of their own so that a log line
//! never blocks a shard. Under more lines than they can write, lines are dropped and the shards go on.

mod lines;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Layered;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Failure;
use crate::config::LogConfig;
use crate::logs::lines::Lines;
use crate::logs::lines::Writing;

/// Daily files are named `ringway.YYYY-MM-DD`.
const FILE_PREFIX: &str = "ringway";

/// Keeps lines being written; dropping it writes what still waits.
#[derive(Debug)]
pub(crate) struct Logs {
    _writers: Vec<Writing>,
    filter: Filter,
}

/// What is logged, which may change.
#[derive(Clone)]
pub(crate) struct Filter(reload::Handle<EnvFilter, Layered<Vec<BoxedLayer>, Registry>>);

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

impl Logs {
    /// What is logged.
    pub(crate) fn filter(&self) -> Filter {
        self.filter.clone()
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    /// Logs what `config` says, unless the environment says something else.
    pub(crate) fn set(&self, config: &LogConfig) {
        // It fails when somebody else's output is in use, as in tests.
        let _ = self.0.reload(filter(config));
    }
}

/// Installs the process's log output.
///
/// # Errors
/// When the log directory cannot be written.
pub(crate) fn init(config: &LogConfig) -> Result<Logs, Failure> {
    let (filter, handle) = reload::Layer::new(filter(config));
    let no_thread = |error| Failure::runtime(format!("no thread to write logs: {error}"));
    let (standard_output, writing) = Lines::begin(std::io::stdout()).map_err(no_thread)?;
    let mut writers = vec![writing];
    let mut layers = vec![layer(config.is_json, standard_output)];
    if let Some(dir) = &config.dir {
        let files = tracing_appender::rolling::Builder::new()
            .rotation(tracing_appender::rolling::Rotation::DAILY)
            .filename_prefix(FILE_PREFIX)
            .build(dir)
            .map_err(|error| Failure::usage(format!("--log-dir {}: {error}", dir.display())))?;
        let (files, writing) = Lines::begin(files).map_err(no_thread)?;
        writers.push(writing);
        layers.push(layer(config.is_json, files));
    }
    // A second router in one process, as tests start them, shares the first one's output.
    let _ = tracing_subscriber::registry().with(layers).with(filter).try_init();
    Ok(Logs { _writers: writers, filter: Filter(handle) })
}

fn filter(config: &LogConfig) -> EnvFilter {
    let level = config.level;
    let access = if config.has_access { "" } else { ",access=off" };
    // Whether calls are recorded is not a matter of how much else is said.
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},audit=info{access}")))
}

fn layer<W>(is_json: bool, writer: W) -> BoxedLayer
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_thread_names(true);
    if is_json { layer.json().flatten_event(true).boxed() } else { layer.boxed() }
}
