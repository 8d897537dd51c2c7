//! Starting the process that takes over (SIGUSR2): the program at the same path, which may be a newer one by now, with
//! the same arguments. It stays among this one's processes, where a service manager wants the service to be.

use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use tokio::signal::unix::Signal;
use tracing::info;
use tracing::warn;

/// Starts a successor at every signal. `argv` is this process's command line.
pub(crate) async fn watch(argv: Vec<String>, mut signals: Signal) {
    // As it is now: once the file is replaced, the system calls this one deleted.
    let Ok(program) = std::env::current_exe() else {
        return warn!("it is not known which program this is: SIGUSR2 has no effect");
    };
    while signals.recv().await.is_some() {
        start(&program, &argv);
    }
}

fn start(program: &PathBuf, argv: &[String]) {
    let arguments = argv.iter().skip(1);
    match Command::new(program).args(arguments).stdin(Stdio::null()).spawn() {
        Ok(mut child) => {
            info!(pid = child.id(), program = %program.display(), "a successor was started");
            // It outlives this process, or else it is told why it did not.
            let waiting = std::thread::Builder::new().name("successor".to_owned()).spawn(move || {
                if let Ok(status) = child.wait() {
                    warn!(%status, "the successor has ended: this process goes on");
                }
            });
            drop(waiting);
        }
        Err(error) => warn!(%error, program = %program.display(), "a successor cannot be started"),
    }
}
