//! From older Temporals to the pinned one and back, with workflows of all kinds.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::support::*;
use crate::tools::*;

/// Two whose schema differs from the pinned one's, and one that has the same.
const OLDER: [&str; 3] = ["1.5.1", "1.6.2", "1.8.3"];
const ATTRIBUTES: [&str; 7] = [
    "OrderId=Keyword",
    "Amount=Int",
    "Remark=Text",
    "Urgent=Bool",
    "Ratio=Double",
    "Due=Datetime",
    "Labels=KeywordList",
];

/// `stigmer local start --detach` of this version, from the mirror; None: of the
/// one that is pinned.
fn start_version<'h>(home: &'h Home, tools: &Tools, version: Option<&str>) -> Stigmer<'h> {
    let start = home.stigmer(["local", "start", "--detach", "--mirror"]).args([&tools.mirror]);
    match version {
        Some(version) => start.args(["--temporal-version", version]),
        None => start,
    }
}

fn population<'h>(home: &'h Home, tools: &Tools, arguments: &[&str]) -> Stigmer<'h> {
    Stigmer::of_program(home, tools.python.as_os_str(), ["-B"])
        .args([here("population.py")])
        .args(arguments)
        .env("TEMPORAL_ADDRESS", format!("127.0.0.1:{}", home.port()))
}

/// A home of this version with `count` workflows, its daemon stopped; and their
/// inventory.
fn populated(tools: &Tools, version: &str, count: &str) -> (Home, String) {
    let home = Home::new();
    let attributes = ATTRIBUTES.iter().flat_map(|attribute| ["--search-attribute", attribute]);
    start_version(&home, tools, Some(version)).args(attributes).run().success();
    population(&home, tools, &["fill", count]).spawn().wait_within(6 * LIMIT).success();
    let inventory = inventory(&home, tools);
    home.stigmer(["local", "stop"]).run().success();
    (home, inventory)
}

fn inventory(home: &Home, tools: &Tools) -> String {
    population(home, tools, &["inventory"]).spawn().wait_within(6 * LIMIT).success().stdout.clone()
}

#[track_caller]
fn assert_all_finish(home: &Home, tools: &Tools, count: &str) {
    let finished = population(home, tools, &["finish", count]).spawn().wait_within(6 * LIMIT);
    finished.success().stdout_has("\"finished\"");
}

#[test]
fn an_upgrade_loses_no_workflow_and_none_is_stuck() {
    let Some(tools) = tools_with(&OLDER).filter(|_| has_sqlite()) else { return };
    let count = if rounds(0, 1) == 1 { "1001" } else { "110" };
    for version in OLDER {
        let (home, before) = populated(tools, version, count);
        let outcome = start_version(&home, tools, None).run();
        outcome.success();
        let has_other_schema = version != other_version();
        assert_eq!(outcome.stdout.contains("Database migrated"), has_other_schema, "{}", outcome.describe());
        assert_eq!(inventory(&home, tools), before, "{version}");
        assert_all_finish(&home, tools, count);
        home.stigmer(["local", "stop"]).run().success();
        // Now there is what the older ones have no table for.
        let back = start_version(&home, tools, Some(version)).run();
        match has_other_schema {
            false => drop(back.success()),
            true => drop(back.fails_with(&["current_chasm_executions", "--temporal-version", "hint: "])),
        }
        home.stigmer(["local", "stop"]).run().success();
        start_version(&home, tools, None).run().success();
        run_workflow(&home, tools, "at-the-end");
        home.stigmer(["local", "stop"]).run().success();
        home.assert_quiet();
    }
}

/// A workflow database of the pinned version without what is new in it.
#[test]
fn the_way_back_is_open_as_long_as_nothing_is_lost() {
    let Some(tools) = tools_with(&OLDER).filter(|_| has_sqlite()) else { return };
    for version in ["1.5.1", "1.6.2"] {
        let home = Home::new();
        start_version(&home, tools, None).run().success();
        run_workflow(&home, tools, "before");
        let begun = client(&home, tools, home.port(), ["begin", "asleep", "3"]).run();
        begun.success();
        home.stigmer(["local", "stop"]).run().success();
        let outcome = start_version(&home, tools, Some(version)).run();
        outcome.success().stdout_has("Database migrated");
        read_workflow(&home, tools, "before");
        client(&home, tools, home.port(), ["finish", "asleep"]).run().success();
        home.stigmer(["local", "stop"]).run().success();
        start_version(&home, tools, None).run().success().stdout_has("Database migrated");
        read_workflow(&home, tools, "before");
        read_workflow(&home, tools, "asleep");
        run_workflow(&home, tools, "after");
        home.stigmer(["local", "stop"]).run().success();
        home.assert_quiet();
    }
}

/// Each time another copy of the old home, which the next start finds.
#[test]
fn an_upgrade_that_is_killed_at_any_moment_loses_nothing() {
    let Some(tools) = tools_with(&OLDER).filter(|_| has_sqlite()) else { return };
    let mut moments = Moments::new();
    let (count, kills) = (["110", "1001"][rounds(0, 1)], rounds(3, 100));
    for version in ["1.5.1", "1.6.2"] {
        let (old, before) = populated(tools, version, count);
        let home = copy(&old);
        let begun = Instant::now();
        start_version(&home, tools, None).run().success().stdout_has("Database migrated");
        let duration = begun.elapsed();
        home.stigmer(["local", "stop"]).run().success();
        for kill in 1..=kills {
            let home = copy(&old);
            let daemon = home.stigmer(["local", "start", "--mirror"]).args([&tools.mirror]).spawn();
            std::thread::sleep(moments.within(duration));
            daemon.signal(libc::SIGKILL);
            home.wait_until_quiet(LIMIT);
            start_version(&home, tools, None).run().success();
            assert_eq!(inventory(&home, tools), before, "{version}, kill {kill}");
            if kill == kills || kill % 10 == 0 {
                assert_all_finish(&home, tools, count);
            }
            home.stigmer(["local", "stop"]).run().success();
            home.assert_quiet();
        }
    }
}

/// A home of its own with the same in it.
fn copy(home: &Home) -> Home {
    let copy = Home::new();
    std::fs::create_dir_all(copy.user()).unwrap();
    let copied = Command::new("cp").arg("-a").args([home.path(), copy.path()]).status().unwrap();
    assert!(copied.success());
    copy
}

/// Its executable, unpacked beside the archive.
fn executable(tools: &Tools, version: &str) -> PathBuf {
    unpack(&archive_of(&tools.mirror, version), version)
}

#[test]
fn the_schema_is_the_same_since_the_version_that_is_pinned_as_such() {
    let Some(tools) = tools_with(&OLDER) else { return };
    let schema = |version: &str| {
        let output =
            Command::new("python3").arg("-B").arg(here("schema.py")).arg(executable(tools, version)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let pinned = schema(PINNED);
    assert!(pinned.contains("current_chasm_executions"), "{pinned}");
    assert!(schema(other_version()) == pinned, "{} has another schema", other_version());
    assert!(schema("1.6.2") != pinned);
}
