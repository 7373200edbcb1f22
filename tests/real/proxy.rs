//! The real Temporal behind TLS, client certificates and a key, as companies
//! run it, with haproxy before it; and the SDK through it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::*;
use crate::tools::*;

const KEY: &str = "sesame-0123456789";

/// A haproxy before the Temporal at a port, ended when it is dropped.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A frontend for each `(port, bind options, further line)`. None without haproxy.
fn haproxy(directory: &Path, temporal: u16, frontends: &[(u16, &str, &str)]) -> Option<HaProxy> {
    let missing = ["/usr/sbin/haproxy", "/usr/bin/haproxy"].iter().all(|path| !Path::new(path).exists());
    if missing {
        let why = "haproxy is missing (on Debian: haproxy)";
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "cannot test TLS to Temporal: {why}");
        // Past libtest, which shows nothing of a test that passes.
        let text = format!("\n*** SKIPPED: the real Temporal behind TLS was NOT tested: {why} ***\n\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
        return None;
    }
    let mut text = "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n".to_owned();
    for (port, bind, line) in frontends {
        text += &format!("frontend f{port}\n bind 127.0.0.1:{port} ssl {bind} alpn h2\n {line}\n default_backend t\n");
    }
    text += &format!("backend t\n server s 127.0.0.1:{temporal} proto h2\n");
    let path = directory.join("haproxy.cfg");
    fs::write(&path, text).unwrap();
    let child = Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&path).stdin(Stdio::null()).spawn().unwrap();
    let proxy = HaProxy(child);
    wait_for("haproxy to listen", LIMIT, || frontends.iter().all(|(port, ..)| answers(*port)));
    Some(proxy)
}

/// A worker, run by `stigmer local run` with these options and variables.
fn work<'h>(home: &'h Home, tools: &Tools, port: u16, options: &[&str], variables: &[(&str, &str)]) -> Outcome<'h> {
    let run = home.stigmer(["local", "run", "--temporal-host", &format!("localhost:{port}")]).args(options);
    let run = run.args(["--"]).args([tools.python.clone(), PathBuf::from("-B"), here("worker_test.py")]);
    variables.iter().fold(run, |run, (name, value)| run.env(name, value)).run()
}

const CA: [&str; 2] = ["--tls-ca-path", "ca.pem"];

/// An authority's, and those that it signed: of two servers and a client.
fn write_certificates(directory: &Path) {
    let authority = Authority::new();
    authority.write_pem(&directory.join("ca.pem"));
    for (name, host) in [("server", "localhost"), ("named", "temporal.internal")] {
        let identity = authority.identity(&[host]);
        fs::write(directory.join(format!("{name}.pem")), identity.certificate_pem() + &identity.key_pem()).unwrap();
    }
    authority.identity(&["client"]).write(directory, "client");
}

fn assert_refused(home: &Home, tools: &Tools, [tls, mutual, keyed, named]: [u16; 4]) {
    for (port, variables, cause) in [
        (mutual, &[][..], "it demands a client certificate"),
        (keyed, &[], "it demands credentials (HTTP 401)"),
        (keyed, &[("TEMPORAL_API_KEY", "wrong")], "it refuses the key in TEMPORAL_API_KEY (HTTP 401)"),
        (named, &[], "its certificate is for temporal.internal, not for localhost"),
        (
            tls,
            &[("TEMPORAL_NAMESPACE", "nowhere")],
            "it has no namespace 'nowhere' (from TEMPORAL_NAMESPACE; NOT_FOUND",
        ),
        (tls, &[("TEMPORAL_TLS", "false")], "which TEMPORAL_TLS=false forbids"),
    ] {
        work(home, tools, port, &CA, variables).fails_with(&["cannot use the external Temporal", cause]);
    }
}

/// The daemon knows when its Temporal is lost, and goes on by itself when it
/// is back.
fn assert_notices_when_it_is_lost(home: &Home, other: &Home, tools: &Tools, keyed: u16) {
    let start = home.stigmer(["local", "start", "--detach", "--temporal-host", &format!("localhost:{keyed}")]);
    start.args(CA).env("TEMPORAL_API_KEY", KEY).run().success();
    assert!(is_ready(home));
    other.stigmer(["local", "stop"]).run().success();
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("reaches no Temporal (HTTP 503)");
    start_detached(other, tools).run().success();
    home.wait_for("the external Temporal to be back", || is_ready(home));
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn a_worker_gets_through_tls_certificates_and_keys_as_stigmer_did() {
    let Some(tools) = tools() else { return };
    let (home, other, ports) = (Home::new(), Home::new(), Home::new());
    let [tls, mutual, keyed, named] = [home.port(), home.ui_port(), ports.port(), ports.ui_port()];
    let directory = home.root();
    write_certificates(directory);
    let file = |name: &str| directory.join(name).display().to_string();
    let certificate = format!("crt {}", file("server.pem"));
    let clients = format!("{certificate} ca-file {} verify required", file("ca.pem"));
    let key = format!("http-request deny deny_status 401 unless {{ req.hdr(authorization) \"Bearer {KEY}\" }}");
    start_detached(&other, tools).run().success();
    let frontends = [
        (tls, certificate.as_str(), ""),
        (mutual, &clients, ""),
        (keyed, &certificate, &key),
        (named, &format!("crt {}", file("named.pem")), ""),
    ];
    let Some(proxy) = haproxy(directory, other.port(), &frontends) else { return };

    let client = [&CA[..], &["--tls-cert-path", "client.crt", "--tls-key-path", "client.key"]].concat();
    let internal = [&CA[..], &["--tls-server-name", "temporal.internal"]].concat();
    let api_key = [("TEMPORAL_API_KEY", KEY)];
    for (port, options, variables) in
        [(tls, &CA[..], &[][..]), (mutual, &client, &[]), (keyed, &CA, &api_key), (named, &internal, &[])]
    {
        let done = work(&home, tools, port, options, variables);
        done.success()
            .stdout_has("the workflow says 42")
            .stderr_has("External Temporal is serving (TLS 1.3, server 1.");
    }
    assert_refused(&home, tools, [tls, mutual, keyed, named]);
    assert_notices_when_it_is_lost(&home, &other, tools, keyed);
    drop(proxy);
    other.stigmer(["local", "stop"]).run().success();
    other.assert_quiet();
}
