//! Signed tokens: who they let in, and the issuer's keys as they come, change and fail to come.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::issuer::Issuer;
use testkit::issuer::Key;
use testkit::issuer::unix_s;
use testkit::wait;

use crate::security::with_key;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::on_every_setup;

on_every_setup! {
    tokens_let_in_by_role
}

fn launch(setup: Setup, issuer: &Issuer) -> Launch {
    setup.launch().flag("--jwt-issuer", issuer.url()).flag("--jwt-audience", "ringway")
}

fn list(gateway: &Gateway, token: &str) -> Response {
    gateway.ask(&with_key(Request::get("/workers"), token))
}

#[track_caller]
fn check_refused(response: &Response, status: u16, message: &str) {
    assert_eq!((response.status, response.json()["error"]["message"].as_str()), (status, Some(message)));
    let how = (status == 401).then_some("Bearer realm=\"control-plane\"");
    assert_eq!(response.headers.get("www-authenticate"), how);
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn tokens_let_in_by_role(setup: Setup) {
    let key = Key::new("k1");
    let issuer = Issuer::start(&[&key]);
    let gateway = launch(setup, &issuer)
        .flag("--jwt-role-mapping", "platform-team=admin")
        .flag("--control-plane-api-keys", "ops:Ops:admin:sk-ops")
        .start_listening();
    let good = issuer.claims("ada", "admin");
    assert_eq!(list(&gateway, &key.sign(&good)).status, 200);
    assert_eq!(list(&gateway, &key.sign(&issuer.claims("ada", "platform-team"))).status, 200);
    assert_eq!(list(&gateway, "sk-ops").status, 200);
    let user = list(&gateway, &key.sign(&issuer.claims("bob", "user")));
    check_refused(&user, 403, "Admin role required for control plane access");
    check_refused(&list(&gateway, ""), 401, "Missing or invalid Authorization header");
    check_refused(&list(&gateway, "sk-other"), 401, "Invalid authentication token");
    let expired = changed(good.clone(), "exp", json!(unix_s() - 31));
    check_refused(&list(&gateway, &key.sign(&expired)), 401, "Invalid JWT: it has expired");
    let other = changed(good.clone(), "aud", json!("other"));
    check_refused(&list(&gateway, &key.sign(&other)), 401, "Invalid JWT: it is for another audience");
    let forged = Key::new("k1").sign(&good);
    check_refused(&list(&gateway, &forged), 401, "Invalid JWT: its signature is not valid");
    check_refused(&list(&gateway, "a.b.c"), 401, "Invalid JWT: it cannot be read");
    // What comes behind a token that takes a moment to verify is not lost.
    let mut client = gateway.client();
    let body = "{\"url\":\"nonsense\"}".to_owned() + &" ".repeat(100_000);
    let add = with_key(Request::json("/workers", body), &key.sign(&good)).bytes();
    let ask = with_key(Request::get("/list_workers"), &key.sign(&good)).bytes();
    client.send(&[add, ask].concat());
    assert_eq!((client.response().status, client.response().status), (400, 200));
    assert_eq!(gateway.get("/health").status, 200);
}

#[test]
fn keys_are_found_again_when_they_change_and_kept_when_they_cannot_be() {
    let (first, second, third) = (Key::new("k1"), Key::new("k2"), Key::new("k3"));
    let issuer = Issuer::start(&[&first]);
    let gateway = launch(PLAIN, &issuer).start_listening();
    let claims = issuer.claims("ada", "admin");
    assert_eq!(issuer.asked(), 1);
    assert_eq!(list(&gateway, &first.sign(&claims)).status, 200);
    assert_eq!(issuer.asked(), 1, "a known key is not asked for");
    issuer.publish(&[&first, &second]);
    assert_eq!(list(&gateway, &second.sign(&claims)).status, 200);
    assert_eq!(issuer.asked(), 2);
    // Once in a while is enough, whoever makes up keys.
    issuer.publish(&[&third]);
    let unknown = "Invalid JWT: its key is not one of the issuer's";
    for _ in 0..3 {
        check_refused(&list(&gateway, &third.sign(&claims)), 401, unknown);
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(list(&gateway, &first.sign(&claims)).status, 200);
}

#[test]
fn an_issuer_that_fails_later_takes_nobodys_keys_away() {
    let (key, unknown) = (Key::new("k1"), Key::new("k2"));
    let issuer = Issuer::start(&[&key]);
    let gateway = launch(PLAIN, &issuer).start_listening();
    let claims = issuer.claims("ada", "admin");
    issuer.set_down(true);
    assert_eq!(list(&gateway, &unknown.sign(&claims)).status, 401);
    wait::until("it is logged", || gateway.has_logged(&["WARN", "could not be fetched", "HTTP 503"]));
    assert_eq!(list(&gateway, &key.sign(&claims)).status, 200);
}

#[test]
fn without_the_issuers_keys_there_is_no_start() {
    let issuer = Issuer::start(&[]);
    let refuse = |launch: Launch, why: &str| {
        let ended = launch.run_to_end();
        assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{ended:?}");
        assert!(ended.stderr[0].contains(why), "{ended:?}");
    };
    refuse(launch(PLAIN, &issuer), "no RSA or EC key");
    let nowhere = issuer.url() + "/elsewhere";
    refuse(launch(PLAIN, &issuer).flag("--jwt-jwks-uri", nowhere), "HTTP 404");
    issuer.set_down(true);
    refuse(launch(PLAIN, &issuer), "HTTP 503");
    let refusing =
        format!("http://127.0.0.1:{}/keys", testkit::place::free_port([127, 0, 0, 1].into()).port());
    refuse(launch(PLAIN, &issuer).flag("--jwt-jwks-uri", refusing), "refused");
    refuse(PLAIN.launch().flag("--jwt-issuer", issuer.url()), "need each other");
}
