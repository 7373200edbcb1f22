//! What a client of this home's Temporal is given: by `run`, `env` and `temporal`.

use std::fs;

use crate::support::archive::{VERSION, small_release};
use crate::support::*;

/// A shell with settings for another Temporal.
const POLLUTED: [(&str, &str); 16] = [
    ("TEMPORAL_PROFILE", "prod"),
    ("TEMPORAL_API_KEY", "secret-key"),
    ("TEMPORAL_CLIENT_AUTHORITY", "prod.example"),
    ("TEMPORAL_TLS", "true"),
    ("TEMPORAL_TLS_CLIENT_CERT_PATH", "/x"),
    ("TEMPORAL_TLS_CLIENT_KEY_DATA", "secret-key"),
    ("TEMPORAL_TLS_SERVER_NAME", "prod.example"),
    ("TEMPORAL_TLS_CERT", "/x"),
    ("TEMPORAL_TLS_CA_DATA", "x"),
    ("TEMPORAL_CODEC_ENDPOINT", "https://codec.example"),
    ("TEMPORAL_CODEC_AUTH", "secret-key"),
    ("TEMPORAL_GRPC_META_X_TENANT", "secret-key"),
    ("TEMPORAL_ENV", "prod"),
    ("TEMPORAL_ENV_FILE", "/x"),
    ("TEMPORAL_CONFIG_FILE", "/home/ada/prod.toml"),
    ("TEMPORAL_ADDRESS", "prod.example:7233"),
];

fn polluted(mut stigmer: Stigmer<'_>) -> Stigmer<'_> {
    for (name, value) in POLLUTED {
        stigmer = stigmer.env(name, value);
    }
    stigmer
}

/// The lines of `env` that speak of Temporal, sorted, without stigmer's own.
fn about_temporal(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with("TEMPORAL_")).collect();
    lines.sort();
    lines
}

fn expected(home: &Home) -> [String; 4] {
    let address = format!("127.0.0.1:{}", home.port());
    [
        format!("TEMPORAL_ADDRESS={address}"),
        format!("TEMPORAL_CONFIG_FILE={}", home.path().join("run/empty.toml").display()),
        "TEMPORAL_NAMESPACE=default".into(),
        format!("TEMPORAL_SERVICE_ADDRESS={address}"),
    ]
}

#[test]
fn nothing_of_another_temporal_reaches_the_command() {
    let home = Home::new().with_stand_in();
    for options in [&[][..], &["--ephemeral"]] {
        let outcome = polluted(home.stigmer(["local", "run"]).args(options).args(["--", "env"])).run();
        outcome.success().stdout_lacks("secret-key").stdout_lacks("prod");
        let names: Vec<_> =
            about_temporal(&outcome.stdout).iter().map(|line| line.split('=').next().unwrap()).collect();
        let wanted = ["TEMPORAL_ADDRESS", "TEMPORAL_CONFIG_FILE", "TEMPORAL_NAMESPACE", "TEMPORAL_SERVICE_ADDRESS"];
        assert_eq!(names, wanted, "{}", outcome.describe());
        let path = outcome.stdout.lines().find(|line| line.starts_with("PATH=")).unwrap();
        assert!(path.ends_with(&format!(":{}", home.bin().display())), "{path}");
    }
    let configuration = home.path().join("run/empty.toml");
    assert_eq!(fs::read(&configuration).unwrap(), b"");
    // A client that is told to remember something writes there.
    fs::write(&configuration, "[profile.default]\naddress = 'prod.example:7233'\n").unwrap();
    let outcome = home.stigmer(["local", "run", "--", "sh", "-c", "cat \"$TEMPORAL_CONFIG_FILE\""]).run();
    assert_eq!(outcome.success().stdout, "");
    home.assert_quiet();
}

#[test]
fn an_external_temporal_is_spoken_to_as_the_user_says() {
    let (home, other) = (Home::new(), Home::new().with_stand_in());
    other.stigmer(["local", "start", "--detach"]).run().success();
    let address = format!("127.0.0.1:{}", other.port());
    let run = home.stigmer(["local", "run", "--temporal-host", &address, "--", "env"]);
    let outcome = run.env("TEMPORAL_CODEC_ENDPOINT", "https://codec.example").env("TEMPORAL_PROFILE", "mine").run();
    let lines = about_temporal(&outcome.success().stdout).join("\n");
    assert!(
        lines.contains("TEMPORAL_CODEC_ENDPOINT=https://codec.example\n") && lines.contains("TEMPORAL_PROFILE=mine\n")
    );
    assert!(lines.contains(&format!("TEMPORAL_ADDRESS={address}\n")) && !lines.contains("CONFIG_FILE"), "{lines}");
    other.stigmer(["local", "stop"]).run().success();
}

#[test]
fn env_gives_a_shell_the_same_whatever_the_values_are() {
    // Every character that a shell might take for its own.
    let home = Home::named(&std::env::temp_dir(), " it's \"$HOME\" `x` \\ ; & *\n end").with_stand_in();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let under_run = home.stigmer(["local", "run", "--", "sh", "-c", "printf %s \"$TEMPORAL_CONFIG_FILE\""]).run();
    let configuration = under_run.success().stdout.clone();
    assert!(configuration.contains("it's") && configuration.contains('\n'));
    for (shell, arguments, script) in [
        ("sh", &["-c"][..], "eval \"$(\"$stigmer\" local env)\""),
        ("bash", &["--norc", "-c"], "eval \"$(\"$stigmer\" local env --shell sh)\""),
        ("zsh", &["-f", "-c"], "eval \"$(\"$stigmer\" local env)\""),
        ("fish", &["--no-config", "-c"], "$stigmer local env --shell fish | source"),
        ("fish", &["--no-config", "-c"], "eval ($stigmer local env --shell=fish)"),
    ] {
        if !has(shell, &["-c", "true"]) {
            skip(&format!("{shell} is missing"));
            continue;
        }
        let script = format!("{script}; printf %s \"$TEMPORAL_CONFIG_FILE\"; echo; env");
        let shell = Stigmer::of_program(&home, shell.as_ref(), arguments.iter().chain(&[script.as_str()]));
        let outcome = polluted(shell).env("stigmer", process::binary()).run();
        outcome.success().stdout_lacks("secret-key").stdout_has(&format!(":{}\n", home.bin().display()));
        assert!(outcome.stdout.starts_with(&format!("{configuration}\n")), "{}", outcome.describe());
        assert!(outcome.stdout.contains(&format!("\nTEMPORAL_ADDRESS=127.0.0.1:{}\n", home.port())));
        assert!(!outcome.stdout.contains("\nTEMPORAL_TLS") && !outcome.stdout.contains("\nTEMPORAL_PROFILE"));
    }
    home.stigmer(["local", "stop"]).run().success();
    home.stigmer(["local", "env"]).run().fails_as(3, &["not running", "stigmer local start"]);
}

#[test]
fn a_variable_that_no_shell_can_name_is_not_code_for_it() {
    let home = Home::new().with_stand_in();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let outcome = home.stigmer(["local", "env"]).env("TEMPORAL_TLS;touch pwned", "x").env("TEMPORAL_TLS_CA", "x").run();
    outcome.success().stdout_has("unset TEMPORAL_TLS_CA\n").stdout_lacks("pwned");
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn temporal_becomes_the_installed_cli() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let temporal = |arguments: &[&str]| {
        let stigmer = home.stigmer(["local", "temporal"]).args(arguments);
        polluted(stigmer.env("STIGMER_TEMPORAL_VERSION", VERSION).env("STIGMER_TEMPORAL_MIRROR", server.base()))
    };
    // It installs what is missing, and its own words do not mix with the CLI's.
    let outcome = temporal(&["--version"]).run();
    outcome.success().stderr_has("binary installed");
    assert_eq!(outcome.stdout, "temporal version 9.9.9 (Server 9.9.9, UI 9.9.9)\n");
    let outcome = temporal(&["env"]).run();
    assert_eq!(about_temporal(&outcome.success().stdout), expected(&home), "with no server");
    assert_eq!(outcome.stderr, "");
    home.stigmer(["local", "start", "--detach", "--port", "0"])
        .env("STIGMER_TEMPORAL_VERSION", VERSION)
        .run()
        .success();
    let address = home.state_field("address").unwrap();
    let line = format!("TEMPORAL_ADDRESS={address}\n");
    temporal(&["env"]).run().success().stdout_has(&line);
    // In the command of a `run` it is for that one's Temporal.
    let inner = "test $TEMPORAL_ADDRESS = $(\"$stigmer\" local temporal env | sed -n s/^TEMPORAL_ADDRESS=//p)";
    let run = home.stigmer(["local", "run", "--ephemeral", "--", "sh", "-c", inner]).env("stigmer", process::binary());
    run.env("STIGMER_TEMPORAL_VERSION", VERSION).run().success();
    home.stigmer(["local", "stop"]).run().success();
    temporal(&["no", "such", "--thing"]).run().exits_with(1).stdout_has("unknown command");
    assert_eq!(server.requests_for(&archive::asset_path(VERSION)).len(), 1);
    home.assert_quiet();
}

#[test]
fn port_0_takes_free_ports_which_a_restart_keeps() {
    let (first, second) = (Home::new().with_stand_in(), Home::new().with_stand_in());
    let start = |home: &Home| {
        let start = home.stigmer(["local", "start", "--detach", "--port", "0"]).env_remove("STIGMER_TEMPORAL_UI_PORT");
        let started = start.run();
        let (address, ui) = (home.state_field("address").unwrap(), home.state_field("ui_url").unwrap());
        started.success().stdout_has(&format!("UI available at {ui}\n"));
        home.stigmer(["local", "status"]).run().success().stdout_has(&address).stdout_has(&ui);
        (address, ui)
    };
    let (one, other) = (start(&first), start(&second));
    assert!(
        one.0 != other.0 && one.1 != other.1 && !one.0.ends_with(&format!(":{}", first.port())),
        "{one:?} {other:?}"
    );
    first.crash("signal 9");
    first.wait_for("the next server", || {
        first.starts().len() == 2 && first.state_field("times_ready").as_deref() == Some("2")
    });
    first.stigmer(["local", "restart"]).run().success();
    assert_eq!(first.state_field("address").unwrap(), one.0);
    let run = first.stigmer(["local", "run", "--port", "0", "--", "sh", "-c", "echo $TEMPORAL_ADDRESS"]);
    let outcome = run.env_remove("STIGMER_TEMPORAL_UI_PORT").run();
    assert_eq!((outcome.success().stdout.trim(), outcome.stderr.as_str()), (one.0.as_str(), ""));
    for home in [&first, &second] {
        home.stigmer(["local", "stop"]).run().success();
        home.assert_quiet();
    }
}

#[test]
fn a_daemon_chooses_free_ports_anew_when_another_program_was_faster() {
    let home = Home::new().with_stand_in();
    home.behave("fail-first 2\nsay listen tcp: bind: address already in use");
    home.stigmer(["local", "start", "--detach", "--port", "0"]).run().success();
    let ports: std::collections::HashSet<_> = home.starts().into_iter().map(|(_, arguments)| arguments).collect();
    assert_eq!(ports.len(), 3, "{ports:?}");
    home.stigmer(["local", "status"]).run().success();
    home.stigmer(["local", "stop"]).run().success();
}
