//! The service manager's side: what it is told, and sockets that it opened.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use testkit::client::Client;
use testkit::gateway::Launch;
use testkit::gateway::Signal;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    sockets_that_are_given_are_served_by_every_shard
}

/// A service manager that listens.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    heard: VecDeque<String>,
}

impl Manager {
    fn new() -> Manager {
        let path = place::temporary("notify");
        let socket = UnixDatagram::bind(&path).expect("the temporary directory can be written");
        socket.set_read_timeout(Some(wait::DEADLINE)).expect("a socket");
        Manager { path, socket, heard: VecDeque::new() }
    }

    fn given_to(&self, launch: Launch) -> Launch {
        launch.env("NOTIFY_SOCKET", self.path.display())
    }

    /// The next word that is not about the watchdog.
    #[track_caller]
    fn next(&mut self) -> String {
        loop {
            let word = self.heard.pop_front().unwrap_or_else(|| self.hear());
            if word != "WATCHDOG=1" {
                return word;
            }
        }
    }

    #[track_caller]
    fn hear(&self) -> String {
        let mut buf = [0; 512];
        let len = self.socket.recv(&mut buf).expect("the gateway says something");
        String::from_utf8_lossy(&buf[..len]).into_owned()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn the_manager_hears_of_start_reload_upgrade_and_end() {
    let mut manager = Manager::new();
    let handover = place::temporary("handover");
    let launch = manager.given_to(PLAIN.launch()).flag("--handover-socket", handover.display());
    let mut gateway = launch.spawn();
    assert_eq!(manager.next(), "READY=1");
    gateway.signal(Signal::HUP);
    let reloading = manager.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next(), "READY=1");
    let mut next = launch.spawn();
    assert_eq!(manager.next(), format!("MAINPID={}", next.pid()));
    assert_eq!(manager.next(), "READY=1");
    // The one that was replaced says nothing of its end: the service goes on.
    gateway.wait_exit();
    next.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1");
    next.wait_exit();
}

#[test]
fn the_watchdog_is_fed_while_all_threads_go_on() {
    let manager = Manager::new();
    let launch = manager.given_to(Setup { shards: 2, ..PLAIN }.launch()).env("WATCHDOG_USEC", 600_000);
    let gateway = launch.spawn();
    assert_eq!(manager.hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    // A process that stands still says nothing.
    gateway.signal(Signal::STOP);
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let mut buf = [0; 64];
    wait::until("it is silent", || manager.socket.recv(&mut buf).is_err());
    gateway.signal(Signal::CONT);
    manager.socket.set_read_timeout(Some(wait::DEADLINE)).expect("a socket");
    assert_eq!(manager.hear(), "WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let launch = PLAIN.launch().env("WATCHDOG_USEC", 200_000).env("WATCHDOG_PID", 1);
    let gateway = manager.given_to(launch).spawn();
    assert_eq!(manager.hear(), "READY=1");
    gateway.signal(Signal::TERM);
    assert_eq!(manager.hear(), "STOPPING=1");
}

fn sockets_that_are_given_are_served_by_every_shard(setup: Setup) {
    let worker = Worker::answering();
    let listener = TcpListener::bind((place::own_ip(), 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    let given = listener.try_clone().expect("descriptors are left");
    let launch = setup.launch().worker(worker.url()).given(given);
    let mut gateway = launch.spawn();
    wait::until("it serves where it was told to", || {
        Client::try_connect(addr).is_ok_and(|mut client| client.ask(&chat("hello")).status == 200)
    });
    let clients: Vec<Client> = (0..20).map(|_| Client::connect(addr)).collect();
    for mut client in clients {
        assert_eq!(client.ask(&chat("hello")).status, 200);
    }
    assert!(Client::try_connect(gateway.addr()).is_err(), "it does not listen where it would have");
    gateway.signal(Signal::TERM);
    // The socket stays the manager's: who connects waits there for the next process.
    gateway.wait_exit();
    let mut client = Client::connect(addr);
    client.send(&chat("hello").bytes());
    let _next = launch.spawn();
    assert!([200, 503].contains(&client.response().status));
}
