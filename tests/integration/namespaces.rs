//! Namespaces, their search attributes and their retention, as they were asked
//! for: at every start, on every database, beside a daemon that runs already.

use std::fs;

use crate::support::*;

const WEEK: &str = "604800s";

fn home() -> Home {
    Home::new().with_stand_in()
}

fn start<'h>(home: &'h Home, arguments: &[&str]) -> Stigmer<'h> {
    home.stigmer(["local", "start", "--detach"]).args(arguments)
}

fn stop(home: &Home) {
    home.stigmer(["local", "stop"]).run().success();
}

/// `run` with a command that prints the namespace it was given.
fn told<'h>(home: &'h Home, arguments: &[&str]) -> Stigmer<'h> {
    home.stigmer(["local", "run"]).args(arguments).args(["--", "sh", "-c", "echo $TEMPORAL_NAMESPACE"])
}

#[test]
fn a_new_database_keeps_closed_workflows_a_week_and_an_old_one_is_not_asked() {
    let home = home();
    start(&home, &[]).run().success();
    assert_eq!(home.namespace("default").unwrap(), WEEK);
    assert_eq!(home.calls().len(), 1);
    home.stigmer(["local", "restart"]).run().success();
    stop(&home);
    start(&home, &[]).run().success();
    assert_eq!(home.calls().len(), 1, "{:?}", home.calls());
    stop(&home);
}

#[test]
fn a_retention_that_was_given_holds_on_an_old_database_too() {
    let home = home();
    start(&home, &["--retention", "36h"]).run().success();
    assert_eq!(home.namespace("default").unwrap(), "129600s");
    stop(&home);
    start(&home, &[]).env("STIGMER_RETENTION", "30d").run().success();
    assert_eq!(home.namespace("default").unwrap(), "2592000s");
    stop(&home);
    let before = home.calls().len();
    start(&home, &["--retention=30d"]).run().success();
    // One look, and nothing to be done.
    assert_eq!(home.calls().len(), before + 1);
    stop(&home);
    start(&home, &[]).run().success();
    assert_eq!(home.namespace("default").unwrap(), "2592000s");
    stop(&home);
}

#[test]
fn namespaces_and_search_attributes_are_made_where_they_are_missing_and_left_where_they_are() {
    let home = home();
    start(&home, &[]).run().success();
    stop(&home);
    let given =
        ["-n", "orders", "--namespace=billing", "--search-attribute", "Amount=int", "--search-attribute=Tag=Keyword"];
    for _ in 0..2 {
        start(&home, &given).run().success();
        for name in ["orders", "billing"] {
            assert_eq!(home.namespace(name).unwrap(), format!("{WEEK} Amount=Int Tag=Keyword"));
        }
        assert_eq!(home.state_field("namespaces").as_deref(), Some("orders billing"));
        stop(&home);
    }
    assert_eq!(home.namespace("default").unwrap(), WEEK);
    let made = |words: &str| home.calls().iter().filter(|call| call.starts_with(words)).count();
    assert_eq!(made("AddSearchAttributes"), 4);
    start(&home, &["--search-attribute", "Tag=Text"]).env("TEMPORAL_NAMESPACE", "default").run().success();
    assert_eq!(home.namespace("default").unwrap(), format!("{WEEK} Tag=Text"));
    stop(&home);
}

#[test]
fn an_attribute_of_another_type_is_an_error_that_names_both() {
    let home = home();
    start(&home, &["--search-attribute", "Amount=Int"]).run().success();
    let running = start(&home, &["--search-attribute", "Amount=Text"]).run();
    running.fails_with(&["Amount=Text", "default", "there is Amount=Int"]);
    home.stigmer(["local", "status"]).run().success();
    stop(&home);
    for mode in [&["local", "start"][..], &["local", "start", "--detach"]] {
        let outcome = home.stigmer(mode).args(["--search-attribute", "Amount=Text"]).run();
        outcome.fails_with(&["cannot make the search attribute Amount=Text", "there is Amount=Int"]);
        assert!(outcome.hint().unwrap().contains("--search-attribute Amount=Int"), "{}", outcome.describe());
        home.assert_quiet();
    }
    // The server is stopped, not killed.
    assert_eq!(home.stops().len(), home.starts().len());
}

#[test]
fn a_namespace_is_made_beside_a_daemon_that_runs_already() {
    let home = home();
    start(&home, &["--namespace", "first"]).run().success();
    let run = told(&home, &["--namespace", "orders"]).run();
    assert_eq!(run.success().stdout, "orders\n");
    assert_eq!(home.namespace("orders").unwrap(), WEEK);
    let run = told(&home, &[]).env("TEMPORAL_NAMESPACE", "billing").run();
    assert_eq!(run.success().stdout, "billing\n");
    start(&home, &["-n", "more"]).run().success();
    assert!(home.namespace("billing").is_some() && home.namespace("more").is_some());
    let before = home.calls().len();
    assert_eq!(told(&home, &[]).run().success().stdout, "first\n");
    assert_eq!(home.calls().len(), before);
    assert_eq!(home.starts().len(), 1);
    stop(&home);
}

#[test]
fn run_gives_its_command_the_first_namespace_that_was_asked_for() {
    let home = home();
    assert_eq!(told(&home, &["-n", "orders", "-n", "billing"]).run().success().stdout, "orders\n");
    assert!(home.namespace("orders").is_some() && home.namespace("billing").is_some());
    assert_eq!(told(&home, &[]).env("TEMPORAL_NAMESPACE", "orders").run().success().stdout, "orders\n");
    assert_eq!(told(&home, &[]).env("TEMPORAL_NAMESPACE", "").run().success().stdout, "default\n");
    home.assert_quiet();
}

#[test]
fn nothing_in_the_users_environment_leads_the_calls_elsewhere() {
    let home = home();
    start(&home, &["--retention", "2d"])
        .env("TEMPORAL_NAMESPACE", "orders")
        .env("TEMPORAL_ADDRESS", "192.0.2.1:1")
        .env("TEMPORAL_API_KEY", "secret")
        .env("TEMPORAL_TLS", "true")
        .env("HTTP_PROXY", "http://192.0.2.1:1")
        .env("all_proxy", "http://192.0.2.1:1")
        .run()
        .success();
    assert_eq!(home.namespace("orders").unwrap(), "172800s");
    assert_eq!(home.calls(), ["UpdateNamespace default 172800s", "RegisterNamespace orders 172800s"]);
    stop(&home);
}

#[test]
fn what_nobody_asked_for_stops_no_start_and_is_made_up_for_at_the_next() {
    let home = home();
    home.behave("refuse-calls no such method");
    let first = start(&home, &[]).run();
    first.success().stdout_has("[!] Closed workflows may be kept for 24 h only: ").stdout_has("no such method");
    first.stdout_has("Stigmer Daemon Ready.");
    stop(&home);
    home.behave("");
    start(&home, &[]).run().success();
    assert_eq!(home.namespace("default").unwrap(), WEEK);
    stop(&home);
    home.behave("refuse-calls no such method");
    let asked = start(&home, &["--namespace", "orders"]).run();
    asked.fails_with(&["cannot make the namespace orders", "no such method"]);
    home.assert_quiet();
}

#[test]
fn a_namespace_that_the_server_does_not_know_yet_is_waited_for() {
    let home = home();
    home.behave("forget-namespaces");
    start(&home, &["-n", "orders", "--search-attribute", "Amount=Int"]).run().success();
    assert_eq!(home.namespace("orders").unwrap(), format!("{WEEK} Amount=Int"));
    assert!(home.stand_in_dir().join("forgot-orders").exists());
    stop(&home);
}

#[test]
fn a_stop_ends_a_call_that_hangs() {
    let home = home();
    home.behave("hang-calls");
    let daemon = home.stigmer(["local", "start"]).spawn();
    home.wait_for("a call", || !home.calls().is_empty());
    assert_ne!(home.state_field("phase").as_deref(), Some("ready"));
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
fn a_server_that_ends_in_a_call_has_not_started() {
    for options in [&[][..], &["-n", "orders"]] {
        let home = home();
        home.behave("hang-calls");
        let daemon = start(&home, options).spawn();
        home.wait_for("a call", || !home.calls().is_empty());
        home.crash("7");
        daemon.wait().fails_with(&["cannot start Temporal", "exit status 7 before it served"]);
        home.assert_quiet();
    }
}

#[test]
fn a_kill_before_the_retention_was_set_is_made_up_for() {
    let home = home();
    home.behave("hang-calls");
    let daemon = home.stigmer(["local", "start"]).spawn();
    home.wait_for("a call", || !home.calls().is_empty());
    daemon.signal(libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    drop(daemon);
    home.behave("");
    start(&home, &[]).run().success();
    assert_eq!(home.namespace("default").unwrap(), WEEK);
    let left = fs::read_dir(home.path().join("data")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(left.into_iter().all(|name| name != "temporal.db.new"), "{}", home.describe());
    stop(&home);
}

#[test]
fn namespaces_given_to_temporal_itself_go_on_working() {
    let home = home();
    // As start-dev makes them; the stand-in does not.
    fs::create_dir_all(home.stand_in_dir().join("namespaces")).unwrap();
    fs::write(home.stand_in_dir().join("namespaces/orders"), "86400s\n").unwrap();
    let run = told(&home, &["--temporal-arg", "--namespace", "--temporal-arg", "orders"]).run();
    assert_eq!(run.success().stdout, "default\n");
    assert!(home.starts()[0].1.ends_with("--namespace orders"), "{:?}", home.starts());
    assert_eq!(home.namespace("orders").unwrap(), WEEK);
    home.assert_quiet();
}
