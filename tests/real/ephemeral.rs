//! A Temporal for every test run: side by side, killed at any moment, and in
//! shells with settings for another one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::support::*;
use crate::tools::*;

/// Until a run has ended by itself, and some more.
const A_RUN: Duration = Duration::from_millis(1500);

/// A home with the real CLI installed.
fn installed(tools: &Tools) -> Home {
    let home = Home::new();
    home.stigmer(["local", "temporal", "--version"]).env("STIGMER_TEMPORAL_MIRROR", &tools.mirror).run().success();
    home
}

/// Every file of the home, sorted.
fn files(home: &Home) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![home.path()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { &mut directories } else { &mut found }.push(entry);
        }
    }
    found.retain(|path| !path.ends_with("temporal.db-journal"));
    found.sort();
    found
}

fn ephemeral<'h>(home: &'h Home, script: &str) -> Stigmer<'h> {
    home.stigmer(["local", "run", "--ephemeral", "--ready-timeout", "120", "--", "sh", "-c", script])
}

#[test]
fn many_side_by_side_each_run_their_worker_and_workflow_beside_a_daemon() {
    let Some(tools) = tools() else { return };
    let home = installed(tools);
    home.stigmer(["local", "start", "--detach"]).run().success();
    ephemeral(&home, "true").run().success();
    let before = files(&home);
    let script =
        format!("echo $TEMPORAL_ADDRESS; exec '{}' -B '{}'", tools.python.display(), here("worker_test.py").display());
    let runs: Vec<_> = (0..rounds(4, 20)).map(|_| ephemeral(&home, &script).spawn()).collect();
    let outcomes: Vec<_> = runs.into_iter().map(|run| run.wait_within(5 * LIMIT)).collect();
    let mut addresses: Vec<_> =
        outcomes.iter().map(|outcome| outcome.stdout.lines().next().unwrap_or("").to_owned()).collect();
    outcomes.iter().for_each(|outcome| {
        outcome.success().stdout_has("the workflow says 42").stderr_lacks("unexpectedly");
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), outcomes.len(), "{addresses:?}");
    assert_eq!(files(&home), before);
    assert!(!addresses.iter().any(|address| answers(address.rsplit(':').next().unwrap().parse().unwrap())));
    assert!(is_ready(&home));
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_killed_at_any_moment_leaves_nothing() {
    let Some(tools) = tools() else { return };
    let home = installed(tools);
    ephemeral(&home, "true").run().success();
    let before = files(&home);
    let moments = Mutex::new(Moments::new());
    in_parallel(4, 0..rounds(20, 200), |number| {
        let run = ephemeral(&home, "sleep 0.1").spawn();
        if number % 5 == 0 {
            let moment = moments.lock().unwrap().within(A_RUN);
            thread::sleep(moment);
            run.signal(libc::SIGKILL);
            run.wait();
        } else {
            run.wait().success();
        }
    });
    home.wait_until_quiet(LIMIT);
    assert_eq!(files(&home), before);
}

#[test]
fn every_polluted_shell_reaches_the_local_server_and_shows_no_key() {
    let Some(tools) = tools() else { return };
    let home = installed(tools);
    let own = home.user().join(".config/temporalio");
    fs::create_dir_all(&own).unwrap();
    let profile = "address = 'prod.invalid:7233'\napi_key = 'secret-key'\n";
    fs::write(own.join("temporal.toml"), format!("[profile.default]\n{profile}[profile.prod]\n{profile}")).unwrap();
    let elsewhere = own.join("temporal.toml");
    let shells: [&[(&str, &str)]; 8] = [
        &[("TEMPORAL_API_KEY", "secret-key")],
        &[("TEMPORAL_TLS", "true")],
        &[("TEMPORAL_TLS_CLIENT_CERT_DATA", "secret-key"), ("TEMPORAL_TLS_CLIENT_KEY_DATA", "secret-key")],
        &[("TEMPORAL_PROFILE", "prod"), ("TEMPORAL_ENV", "prod")],
        &[("TEMPORAL_CONFIG_FILE", elsewhere.to_str().unwrap())],
        &[("TEMPORAL_GRPC_META_AUTHORIZATION", "secret-key")],
        &[("TEMPORAL_TLS_SERVER_NAME", "prod.invalid")],
        &[("TEMPORAL_NAMESPACE", "orders"), ("TEMPORAL_ADDRESS", "prod.invalid:7233")],
    ];
    let script = format!(
        "echo address $TEMPORAL_ADDRESS; temporal operator cluster health && temporal workflow list && '{}' -B '{}' && env",
        tools.python.display(),
        here("reach.py").display()
    );
    in_parallel(2, shells, |shell| {
        let run = shell.iter().fold(ephemeral(&home, &script), |run, (name, value)| run.env(name, value));
        let outcome = run.run();
        let address = outcome.success().stdout.lines().find_map(|line| line.strip_prefix("address ")).unwrap();
        outcome.stdout_has("SERVING").stdout_has(&format!("reached {address}\n")).stdout_lacks("secret-key");
    });
    home.assert_quiet();
}

/// Types a line of the README in `directory`, with `programs` in PATH.
fn type_line<'h>(home: &'h Home, line: &str, directory: &Path, programs: &Path) -> Outcome<'h> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.lines().any(|written| written == line), "the README does not say '{line}'");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    Stigmer::of_program(home, "sh".as_ref(), ["-c", &format!("exec {line}")])
        .env("PATH", path)
        .current_dir(directory)
        .run()
}

fn programs(home: &Home) -> PathBuf {
    let programs = home.root().join("programs");
    fs::create_dir_all(&programs).unwrap();
    symlink(process::binary(), programs.join("stigmer")).unwrap();
    programs
}

#[test]
fn a_pytest_project_is_run_by_the_readmes_line() {
    let Some(tools) = tools() else { return };
    let home = installed(tools);
    let programs = programs(&home);
    let pytest = format!("#!/bin/sh\nexec '{}' -B -m pytest -p no:cacheprovider \"$@\"\n", tools.python.display());
    fs::write(programs.join("pytest"), pytest).unwrap();
    fs::set_permissions(programs.join("pytest"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        let outcome = type_line(&home, "stigmer local run --ephemeral -- pytest", &here("pytest_project"), &programs);
        outcome.success().stdout_has(" 3 passed in ");
        home.assert_quiet();
    }
}

#[test]
fn a_vitest_project_is_run_by_the_readmes_line() {
    let Some(tools) = tools() else { return };
    if !has("npm", &["--version"]) {
        return skip("npm is missing (on Debian: nodejs npm)");
    }
    let home = installed(tools);
    let line = "stigmer local run --ephemeral -- npx vitest run";
    let outcome = type_line(&home, line, &node_project(&here("vitest_project")), &programs(&home));
    outcome.success().stdout_has("3 passed");
    home.assert_quiet();
}
