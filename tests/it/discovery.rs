//! Workers found without a cluster: by a watched list, and by names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use testkit::client::Request;
use testkit::dns::Dns;
use testkit::dns::Record;
use testkit::gateway::Gateway;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::binary;

/// URLs of all workers.
fn fleet(gateway: &Gateway) -> BTreeSet<String> {
    gateway.workers().iter().map(|worker| worker["url"].as_str().expect("a URL").to_owned()).collect()
}

#[track_caller]
fn expect(gateway: &Gateway, urls: &[String]) {
    let expect: BTreeSet<String> = urls.iter().cloned().collect();
    wait::until(&format!("the fleet is {expect:?}"), || fleet(gateway) == expect);
}

fn folder() -> PathBuf {
    let path = place::temporary("list");
    fs::create_dir(&path).expect("a place for files");
    path
}

/// Replaces a file as editors do: written aside, then renamed over it.
fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).expect("a place for files");
    fs::rename(aside, path).expect("in the same folder");
}

#[test]
fn a_list_is_followed_and_a_bad_one_changes_nothing() {
    let [a, b, own] = [Worker::answering(), Worker::answering(), Worker::answering()];
    let path = folder().join("workers.yaml");
    fs::write(&path, format!("- {}\n", a.url())).expect("a place for files");
    let gateway = binary().flag("--worker-file", path.display()).start_listening();
    expect(&gateway, &[a.url()]);
    let added = format!("/add_worker?url={}", own.url());
    assert_eq!(gateway.ask(&Request::new("POST", &added)).status, 200);
    replace(&path, &format!("[\"{}\", {{\"url\": \"{}\", \"worker_type\": \"prefill\"}}]", a.url(), b.url()));
    expect(&gateway, &[a.url(), b.url(), own.url()]);
    for (bad, told) in [
        (String::new(), "it is empty"),
        (format!("- {}\n- url: {}\n  prioritty: 1\n", a.url(), b.url()), "\"prioritty\" is no field"),
        (format!("- {}\n- {}\n", a.url(), a.url()), "is there twice"),
        ("- [\n".to_owned(), "line"),
    ] {
        replace(&path, &bad);
        wait::until(told, || gateway.has_logged(&["WARN", "the one before it stays", told]));
    }
    assert_eq!(fleet(&gateway).len(), 3);
    // Written in place, and to nothing but what others have added.
    fs::write(&path, "workers: []\n").expect("a place for files");
    expect(&gateway, &[own.url()]);
}

#[test]
fn a_mounted_list_is_followed_when_its_link_turns() {
    let [a, b] = [Worker::answering(), Worker::answering()];
    // As Kubernetes mounts a ConfigMap: the file leads through a link that is replaced.
    let folder = folder();
    for (name, worker) in [("first", &a), ("second", &b)] {
        fs::create_dir(folder.join(name)).expect("a place for files");
        fs::write(folder.join(name).join("workers"), format!("[\"{}\"]", worker.url())).expect("a place");
    }
    std::os::unix::fs::symlink("first", folder.join("..data")).expect("links");
    std::os::unix::fs::symlink("..data/workers", folder.join("workers")).expect("links");
    let gateway = binary().flag("--worker-file", folder.join("workers").display()).start_listening();
    expect(&gateway, &[a.url()]);
    std::os::unix::fs::symlink("second", folder.join("..new")).expect("links");
    fs::rename(folder.join("..new"), folder.join("..data")).expect("in the same folder");
    expect(&gateway, &[b.url()]);
}

#[test]
fn addresses_of_a_name_come_and_go() {
    let dns = Dns::start(1);
    let addresses = |all: &[&str]| {
        all.iter().map(|one| Record::Address(one.parse().expect("an address"))).collect::<Vec<_>>()
    };
    let urls = |all: &[&str]| all.iter().map(|one| format!("http://{one}:9")).collect::<Vec<_>>();
    dns.set("engines.test", &addresses(&["127.7.0.1", "127.7.0.2", "::1"]));
    let launch = binary().flag("--worker-dns", "http://engines.test:9").flag("--dns-server", dns.addr());
    let gateway = launch.start_listening();
    expect(&gateway, &urls(&["127.7.0.1", "127.7.0.2", "[::1]"]));
    dns.set("engines.test", &addresses(&["127.7.0.2", "127.7.0.3"]));
    expect(&gateway, &urls(&["127.7.0.2", "127.7.0.3"]));
    // A server that fails takes nobody away; one that says there is nobody, after a while.
    dns.set_code(Some(2));
    wait::until("the log says so", || gateway.has_logged(&["WARN", "engines.test", "what was known"]));
    let asked = dns.asked();
    wait::until("it is asked again", || dns.asked() > asked + 6);
    assert_eq!(fleet(&gateway).len(), 2);
    dns.set_code(Some(3));
    expect(&gateway, &[]);
    dns.set_code(None);
    expect(&gateway, &urls(&["127.7.0.2", "127.7.0.3"]));
}

#[test]
fn targets_of_service_records_are_workers_beside_addresses() {
    let dns = Dns::start(1);
    let service = |port, target: &str| Record::Service(port, target.to_owned());
    dns.set("_http._tcp.engines.test", &[service(9, "a.engines.test"), service(10, "b.engines.test")]);
    dns.set("more.test", &[Record::Address("127.7.1.1".parse().expect("an address"))]);
    let launch = binary().flag("--worker-dns", "srv://_http._tcp.engines.test").switch("http://more.test:9");
    let gateway = launch.flag("--dns-server", dns.addr()).start_listening();
    let of = |all: &[&str]| all.iter().map(|url| format!("http://{url}")).collect::<Vec<_>>();
    expect(&gateway, &of(&["a.engines.test:9", "b.engines.test:10", "127.7.1.1:9"]));
    dns.set("_http._tcp.engines.test", &[service(11, "b.engines.test")]);
    expect(&gateway, &of(&["b.engines.test:11", "127.7.1.1:9"]));
}

#[test]
fn what_cannot_be_used_is_told_at_start() {
    let bad = folder().join("workers");
    fs::write(&bad, "- url: http://a:1\n  cost: cheap\n").expect("a place for files");
    for (flag, value, told) in [
        ("--worker-file", bad.display().to_string(), "entry 1: cost must be a number"),
        ("--worker-file", "/nonexistent/list".to_owned(), "cannot read it"),
        ("--worker-dns", "engines.test".to_owned(), "it must be http://name:port or srv://"),
        ("--worker-dns", "https://engines.test:1".to_owned(), "give them by --worker-urls"),
        ("--dns-server", "127.0.0.1:53".to_owned(), "--dns-server needs --worker-dns"),
    ] {
        let ended = binary().flag(flag, &value).run_to_end();
        let said = ended.stderr.join("\n");
        assert!(ended.code != Some(0) && said.contains(told) && ended.stderr.len() == 1, "{value}: {said}");
    }
}
