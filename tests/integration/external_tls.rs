//! An external Temporal behind TLS, with credentials and namespaces: ready only
//! when one can work with it, and why not in one sentence for each cause.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::support::frontend::{DESCRIBE, HEALTH, SYSTEM_INFO};
use crate::support::json::{self, Value};
use crate::support::*;

const KEY: &str = "sesame-0123456789-secret";

/// An authority, whose certificate lies in the home's `ca.pem`.
pub struct Pki {
    pub authority: Authority,
}

impl Pki {
    pub fn new(home: &Home) -> Pki {
        let authority = Authority::new();
        authority.write_pem(&home.root().join("ca.pem"));
        Pki { authority }
    }

    /// How a server with a good certificate speaks TLS.
    pub fn good(&self) -> Option<Arc<ServerConfig>> {
        self.answering_to(&["localhost"])
    }

    pub fn answering_to(&self, names: &[&str]) -> Option<Arc<ServerConfig>> {
        Some(self.authority.identity(names).server(&Tls { protocols: &["h2"], clients: None }))
    }

    /// One that wants certificates of the same authority.
    pub fn mutual(&self) -> Option<Arc<ServerConfig>> {
        let tls = Tls { protocols: &["h2"], clients: Some(&self.authority) };
        Some(self.authority.identity(&["localhost"]).server(&tls))
    }
}

/// `local run`, which ends by itself, on this frontend.
pub fn run<'h>(home: &'h Home, frontend: &Frontend, options: &[&str]) -> Stigmer<'h> {
    home.stigmer(["local", "run", "--temporal-host", &frontend.address()]).args(options).args(["--", "true"])
}

pub const CA: [&str; 2] = ["--tls-ca-path", "ca.pem"];

#[track_caller]
fn refuses(outcome: &Outcome<'_>, frontend: &Frontend, cause: &str, hint: &str) {
    let expected = format!("cannot use the external Temporal {} (from --temporal-host): {cause}", frontend.address());
    assert_eq!((outcome.code(), outcome.error()), (1, expected.as_str()), "{}", outcome.describe());
    assert!(outcome.hint().is_some_and(|shown| shown.contains(hint)), "{hint}\n{}", outcome.describe());
    outcome.stdout_lacks("Ready").stderr_lacks("serving (");
}

#[test]
fn one_behind_tls_is_verified_and_said_to_be_so() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.good());
    let address = frontend.address();
    let mut daemon = home.stigmer(["local", "start", "--temporal-host", &address]).args(CA).spawn();
    daemon.wait_for_stdout("Ready.\n");
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [•] Using external Temporal: {address} (from --temporal-host)\n\
         [✓] External Temporal is serving (TLS 1.3, server 1.31.2, namespace default)\n\
         [•] Skipping local Temporal startup\n\
         [✓] Stigmer Daemon Ready.\n"
    );
    assert_eq!((daemon.stdout(), daemon.stderr()), (expected, String::new()));
    let status = home.stigmer(["local", "status", "--json"]).run();
    let state = json::object(&status.success().stdout);
    assert_eq!((state["mode"].text(), state["temporal_version"].text()), ("external", "1.31.2"));
    assert_eq!((&state["ready"], state.contains_key("lost_why")), (&Value::Bool(true), false));
    home.stigmer(["local", "status"]).run().success().stdout_has("TLS 1.3").stdout_has("namespace  default");
    home.stigmer(["local", "stop"]).run().success();
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
fn tls_is_found_out_and_nothing_but_a_greeting_goes_over_cleartext() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.good());
    let script = "echo $TEMPORAL_TLS $TEMPORAL_NAMESPACE $TEMPORAL_ADDRESS";
    let run = home.stigmer(["local", "run", "--temporal-host", &frontend.address(), "--", "sh", "-c", script]);
    let outcome = run.env("SSL_CERT_FILE", "ca.pem").env("TEMPORAL_GRPC_META_TENANT", "acme").run();
    assert_eq!(outcome.success().stdout, format!("true default {}\n", frontend.address()));
    let cleartext = frontend.cleartext();
    assert!(cleartext.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "{cleartext:?}");
    assert_eq!(cleartext.len(), 24 + 9, "more than the greeting: {cleartext:?}");

    // Where TLS is demanded, the other side hears not even that.
    let frontend = Frontend::new(pki.good());
    self::run(&home, &frontend, &["--tls"]).env("SSL_CERT_FILE", "ca.pem").run().success();
    assert_eq!(frontend.cleartext(), b"");
    // Nor is TLS tried where cleartext serves.
    let clear = Frontend::new(None);
    self::run(&home, &clear, &[]).run().success().stderr_lacks("TLS");
}

#[test]
fn a_namespace_goes_with_its_own_call_and_metadata_with_all() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.good());
    let run = run(&home, &frontend, &["-n", "orders", "-n", "billing", CA[0], CA[1], "--tls-server-name", "localhost"]);
    let run = run.env("TEMPORAL_API_KEY", KEY).env("TEMPORAL_GRPC_META_X_TENANT", "acme");
    run.env("TEMPORAL_GRPC_META_EMPTY", "").run().success().stderr_has(", namespace orders, namespace billing)");
    let calls = frontend.calls();
    let paths: Vec<_> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths, [HEALTH, SYSTEM_INFO, DESCRIBE, DESCRIBE]);
    for call in &calls {
        assert_eq!(call.field("authorization"), Some(format!("Bearer {KEY}").as_str()), "{call:?}");
        assert_eq!((call.field("x-tenant"), call.field("empty")), (Some("acme"), None), "{call:?}");
        assert_eq!((call.field(":scheme"), call.field(":authority")), (Some("https"), Some("localhost")), "{call:?}");
    }
    let namespaces: Vec<_> = calls.iter().map(|call| call.field("temporal-namespace")).collect();
    assert_eq!(namespaces, [None, None, Some("orders"), Some("billing")]);
}

#[test]
fn a_client_certificate_is_given_by_path_or_by_data() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.mutual());
    let good = pki.authority.identity(&["client"]);
    good.write(home.root(), "good");
    let with = |certificate: &str, key: &str| {
        run(&home, &frontend, &[CA[0], CA[1], "--tls-cert-path", certificate, "--tls-key-path", key]).run()
    };
    with("good.crt", "good.key").success();
    let by_data = run(&home, &frontend, &CA).env("TEMPORAL_TLS_CLIENT_CERT_DATA", good.certificate_pem());
    by_data.env("TEMPORAL_TLS_CLIENT_KEY_DATA", good.key_pem()).run().success();
}

#[test]
fn a_name_is_expected_or_none_and_the_output_says_so() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let named = Frontend::new(pki.answering_to(&["a.example"]));
    let run_as = |name| run(&home, &named, &[CA[0], CA[1], "--tls-server-name", name]).run();
    run_as("a.example").success();
    run_as("b.example").fails_with(&["its certificate is for a.example, not for b.example"]);
    let unverified = run(&home, &named, &["--tls-disable-host-verification"]).run();
    unverified.success().stderr_has("[!] --tls-disable-host-verification: whoever answers there is trusted");
}

#[test]
fn what_was_decided_about_tls_is_kept_to() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let (clear, encrypted) = (Frontend::new(None), Frontend::new(pki.good()));
    run(&home, &clear, &[]).env("TEMPORAL_API_KEY", KEY).run().fails_with(&["it does not speak TLS"]);
    assert_eq!(clear.calls().len(), 0);
    run(&home, &encrypted, &CA).env("TEMPORAL_TLS", "False").run().fails_with(&["which TEMPORAL_TLS=false forbids"]);
    assert_eq!(encrypted.cleartext().len(), 24 + 9);
    run(&home, &clear, &CA).env("TEMPORAL_TLS", "0").run().success();
}

#[test]
fn what_a_server_may_forbid_or_lack_is_no_reason_to_fail() {
    let home = Home::new();
    let pki = Pki::new(&home);
    for (path, code, shown) in [
        (HEALTH, 12, "(TLS 1.3, server 1.31.2, namespace default)"),
        (HEALTH, 5, "(TLS 1.3, server 1.31.2, namespace default)"),
        (HEALTH, 7, "(TLS 1.3, server 1.31.2, namespace default)"),
        (SYSTEM_INFO, 12, "(TLS 1.3, namespace default)"),
        (DESCRIBE, 12, "(TLS 1.3, server 1.31.2, namespace default)"),
        (DESCRIBE, 7, "(TLS 1.3, server 1.31.2)"),
    ] {
        let frontend = Frontend::new(pki.good());
        frontend.answer(path, Answer::Status(code, "no".into()));
        let outcome = run(&home, &frontend, &CA).env("TEMPORAL_API_KEY", KEY).run();
        outcome.success().stderr_has(&format!("External Temporal is serving {shown}\n"));
        let warning = "[!] These credentials may not ask whether namespace default is there (PERMISSION_DENIED: no)";
        assert_eq!(outcome.stderr.contains(warning), (path, code) == (DESCRIBE, 7), "{}", outcome.describe());
    }
}

#[test]
fn answers_are_understood_in_every_form_and_at_every_cut() {
    let home = Home::new();
    let pki = Pki::new(&home);
    // Status 16 with "Request unauthorized.", Huffman-coded and indexed.
    let huffman =
        "885f8b1d75d0620d263d4c4d656440889acac8b21234da8f820b9f40899acac8b5254207317f8fda5ed6950952da876a673d86f65917";
    let block: Vec<u8> =
        (0..huffman.len()).step_by(2).map(|at| u8::from_str_radix(&huffman[at..at + 2], 16).unwrap()).collect();
    for at_a_time in [1, 2, 7, 9, 10, usize::MAX] {
        for tls in [None, pki.good()] {
            let options: &[&str] = if tls.is_some() { &CA } else { &[] };
            let frontend = Frontend::writing(tls, at_a_time);
            run(&home, &frontend, options).run().success();
            frontend.answer(SYSTEM_INFO, Answer::Block(block.clone()));
            let outcome = run(&home, &frontend, options).run();
            let cause = "it demands credentials (UNAUTHENTICATED: Request unauthorized.)";
            refuses(&outcome, &frontend, cause, "TEMPORAL_API_KEY");
        }
    }
}

#[test]
fn one_that_does_not_serve_yet_is_asked_until_it_does() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.good());
    frontend.answer(HEALTH, Answer::Ok(vec![8, 2]));
    let start = home.stigmer(["local", "start", "--temporal-host", &frontend.address()]).args(CA);
    let mut daemon = start.spawn();
    home.wait_for("a third question", || frontend.calls().len() > 2);
    frontend.answer(HEALTH, Answer::Ok(vec![8, 1]));
    daemon.wait_for_stdout("Ready.\n");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    frontend.answer(HEALTH, Answer::Status(14, "starting".into()));
    let outcome = run(&home, &frontend, &CA).run();
    refuses(&outcome, &frontend, "it answers, but did not serve within 5 s", "wait");
    home.assert_quiet();
}

#[test]
fn secrets_are_nowhere_to_be_seen() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.mutual());
    let client = pki.authority.identity(&["client"]);
    let secret_line = client.key_pem().lines().nth(1).unwrap().to_owned();
    let with_secrets = |stigmer: Stigmer<'_>| {
        let stigmer = stigmer.env("TEMPORAL_API_KEY", KEY).env("TEMPORAL_GRPC_META_TOKEN", "token-9876");
        let stigmer = stigmer.env("TEMPORAL_TLS_CLIENT_CERT_DATA", client.certificate_pem());
        let outcome = stigmer.env("TEMPORAL_TLS_CLIENT_KEY_DATA", client.key_pem()).run();
        outcome.stdout.clone() + &outcome.stderr
    };
    let start = || home.stigmer(["local", "start", "--detach", "--temporal-host", &frontend.address()]).args(CA);
    let mut seen = with_secrets(start());
    assert!(seen.contains("Ready."), "{seen}");
    let pid = home.state_field("daemon_pid").unwrap();
    seen += &std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A server that repeats what it was sent.
    frontend.answer(SYSTEM_INFO, Answer::Status(16, format!("Bearer {KEY} and token-9876 are wrong")));
    seen += &home.stigmer(["local", "status"]).run().exits_with(1).stdout;
    seen += &home.stigmer(["local", "status", "--json"]).run().stdout;
    seen += &with_secrets(run(&home, &frontend, &CA));
    assert!(seen.contains("(UNAUTHENTICATED: *** and *** are wrong)"), "{seen}");
    for file in ["run/daemon.state", "logs/daemon.log"] {
        seen += &std::fs::read_to_string(home.path().join(file)).unwrap();
    }
    home.stigmer(["local", "stop"]).run().success();
    for (name, value) in [("TEMPORAL_API_KEY", "line\nbreak-secret"), ("TEMPORAL_GRPC_META_X", "tab\tsecret")] {
        let outcome = run(&home, &frontend, &CA).env(name, value).run();
        assert_eq!(outcome.exits_with(2).error(), format!("{name} holds a character that no header can carry"));
        seen += &outcome.stderr;
    }
    for secret in [KEY, "token-9876", &secret_line, "break-secret", "tab\tsecret"] {
        assert!(!seen.contains(secret), "{secret}\n{seen}");
    }
    home.assert_quiet();
}

#[test]
fn settings_that_cannot_be_meant_are_usage_errors() {
    let home = Home::new();
    let clear = Frontend::new(None);
    for (options, variables, words) in [
        (&[][..], &[("TEMPORAL_TLS", "yes")][..], "TEMPORAL_TLS takes true or false, not 'yes'"),
        (&[], &[("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "2")], "takes true or false"),
        (&["--tls-cert-path", "x"], &[], "--tls-cert-path gives a client certificate, but its key is missing"),
        (
            &[],
            &[("TEMPORAL_TLS_CLIENT_KEY_DATA", "x")],
            "TEMPORAL_TLS_CLIENT_KEY_DATA gives a client key, but its certificate is missing",
        ),
        (
            &[],
            &[("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "x"), ("TEMPORAL_TLS_SERVER_CA_CERT_DATA", "y")],
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH and TEMPORAL_TLS_SERVER_CA_CERT_DATA are both set",
        ),
        (
            &[],
            &[("TEMPORAL_API_KEY", KEY), ("TEMPORAL_TLS", "false")],
            "TEMPORAL_API_KEY cannot go over cleartext, which TEMPORAL_TLS=false demands",
        ),
        (&["--tls-server-name", "a:1"], &[], "--tls-server-name takes a host name"),
        (&["--tls=true"], &[], "takes no value"),
    ] {
        let run = variables.iter().fold(run(&home, &clear, options), |run, (name, value)| run.env(name, value));
        let outcome = run.run();
        assert!(outcome.exits_with(2).error().contains(words), "{words}\n{}", outcome.describe());
    }
    assert_eq!(clear.calls().len(), 0);
    // Without an external Temporal a flag is a mistake; a variable is for others.
    for flag in ["--tls", "--tls-ca-path=x", "--tls-disable-host-verification"] {
        let outcome = home.stigmer(["local", "start", flag]).run();
        let expected = format!("{} is for an external Temporal, and none is given", flag.split('=').next().unwrap());
        assert_eq!(outcome.exits_with(2).error(), expected);
    }
}

#[test]
fn flags_reach_the_command_as_the_variables_of_its_clients() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.mutual());
    pki.authority.identity(&["client"]).write(home.root(), "client");
    let options = ["--tls-cert-path", "client.crt", "--tls-key-path", "client.key", "--tls-server-name", "localhost"];
    let run = home.stigmer(["local", "run", "--temporal-host", &frontend.address(), "-n", "orders"]).args(CA);
    let run = run.args(options).args(["--", "env"]).env("TEMPORAL_TLS_SERVER_CA_CERT_DATA", "another's");
    let outcome = run.env("TEMPORAL_API_KEY", KEY).run();
    let path = |name: &str| home.root().join(name).display().to_string();
    for line in [
        format!("TEMPORAL_ADDRESS={}", frontend.address()),
        "TEMPORAL_NAMESPACE=orders".into(),
        "TEMPORAL_TLS=true".into(),
        format!("TEMPORAL_TLS_SERVER_CA_CERT_PATH={}", path("ca.pem")),
        format!("TEMPORAL_TLS_CLIENT_CERT_PATH={}", path("client.crt")),
        format!("TEMPORAL_TLS_CLIENT_KEY_PATH={}", path("client.key")),
        "TEMPORAL_TLS_SERVER_NAME=localhost".into(),
        format!("TEMPORAL_API_KEY={KEY}"),
    ] {
        assert!(outcome.success().stdout.lines().any(|shown| shown == line), "{line}\n{}", outcome.describe());
    }
    outcome.stdout_lacks("TEMPORAL_TLS_SERVER_CA_CERT_DATA");
}

#[test]
fn one_that_is_lost_and_comes_back_is_reported_by_the_daemon() {
    let home = Home::new();
    let pki = Pki::new(&home);
    let frontend = Frontend::new(pki.good());
    let address = frontend.address();
    let start = home.stigmer(["local", "start", "--temporal-host", &address]).args(CA).env("TEMPORAL_API_KEY", KEY);
    let mut daemon = start.spawn();
    daemon.wait_for_stdout("Ready.\n");
    frontend.answer(HEALTH, Answer::Status(16, "expired".into()));
    let why = "it refuses the key in TEMPORAL_API_KEY (UNAUTHENTICATED: expired)";
    let status = home.stigmer(["local", "status"]).run();
    status.exits_with(1).stdout_has("External Temporal is lost, for ").stdout_has(why);
    daemon.wait_for_stdout(&format!("[!] External Temporal {address} is lost: {why}; asking every 30 s\n"));
    let status = home.stigmer(["local", "status", "--json"]).run();
    let state = json::object(&status.exits_with(1).stdout);
    assert_eq!((&state["running"], &state["ready"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(state["lost_why"].text(), why);
    assert!(state["lost_seconds"].number() < 60);
    frontend.answer(HEALTH, Answer::Ok(vec![8, 1]));
    home.stigmer(["local", "status"]).run().success().stdout_has("External Temporal is reachable and ready");
    daemon.wait_for_stdout(&format!("[✓] External Temporal {address} is back after "));
    // Twenty who ask at once are all answered.
    let asking: Vec<_> = (0..20).map(|_| home.stigmer(["local", "status"]).spawn()).collect();
    for status in asking {
        status.wait().success();
    }
    home.stigmer(["local", "stop"]).run().success();
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
fn a_profile_is_not_read_and_the_output_says_so() {
    let home = Home::new();
    let frontend = Frontend::new(None);
    let outcome = run(&home, &frontend, &[]).env("TEMPORAL_PROFILE", "cloud").run();
    outcome.success().stderr_has("[!] TEMPORAL_PROFILE is ignored: stigmer reads no temporal.toml\n");
}

#[test]
fn the_daemon_asks_again_by_itself() {
    let home = Home::new();
    let frontend = Frontend::new(None);
    let mut daemon = home.stigmer(["local", "start", "--temporal-host", &frontend.address()]).spawn();
    daemon.wait_for_stdout("Ready.\n");
    let asked = frontend.calls().len();
    home.wait_for("the daemon to ask again", || frontend.calls().len() > asked);
    frontend.answer(HEALTH, Answer::Ok(vec![8, 2]));
    daemon.signal(libc::SIGTERM);
    daemon.wait_within(Duration::from_secs(10)).success();
    home.assert_quiet();
}

#[test]
fn a_daemon_that_is_suspended_is_not_called_ready() {
    let home = Home::new();
    let frontend = Frontend::new(None);
    let mut daemon = home.stigmer(["local", "start", "--temporal-host", &frontend.address()]).spawn();
    daemon.wait_for_stdout("Ready.\n");
    process::suspend(daemon.id());
    let status = home.stigmer(["local", "status"]).run();
    daemon.signal(libc::SIGCONT);
    status.exits_with(1).stdout_has("suspended");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    home.assert_quiet();
}
