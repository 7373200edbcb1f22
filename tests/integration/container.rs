//! As process 1 of a container: all that loses its parent there is its child,
//! and no signal does anything that it does not see to.
#![cfg(target_os = "linux")]

use std::fs;

use crate::support::process::{binary, is_root, signal};
use crate::support::*;

const ORPHANS: usize = 5;
/// They end when they are all there, and told to.
const LEAVE_ORPHANS: &str = "cd \"$HOME/..\"; for number in 1 2 3 4 5; do
        (touch orphan-$number; until [ -e go ]; do sleep 0.01; done; rm orphan-$number) > /dev/null 2>&1 &
    done";

fn home() -> Home {
    Home::new().with_stand_in()
}

/// `stigmer ARGUMENTS` as process 1.
fn first_process<'h>(home: &'h Home, arguments: &[&str]) -> Stigmer<'h> {
    let options = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    Stigmer::of_program(home, "unshare".as_ref(), options).args([binary()]).args(arguments)
}

/// The children of `parent` and their states.
fn children(parent: u32) -> Vec<(u32, char)> {
    let stat = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (fields.next()? == parent.to_string()).then_some((pid, state))
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(stat).collect()
}

fn orphans(home: &Home) -> usize {
    let names = fs::read_dir(home.root()).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with("orphan-")).count()
}

#[test]
fn start_as_process_1_reaps_what_is_left_to_it_and_stops_when_told_to() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    let home = home();
    let mut start = first_process(&home, &["local", "start"]).spawn();
    start.wait_for_stdout("Ready.\n");
    let first = children(start.id())[0].0;
    // As `docker exec` does.
    let target = first.to_string();
    Stigmer::of_program(
        &home,
        "nsenter".as_ref(),
        ["--pid", "--mount", "--target", &target, "sh", "-c", LEAVE_ORPHANS],
    )
    .run()
    .success();
    home.wait_for("the orphans", || orphans(&home) == ORPHANS && children(first).len() == ORPHANS + 1);
    // They end together with Temporal, for which it looks first.
    signal(first, libc::SIGSTOP);
    let server = children(first)[0].0;
    signal(server, libc::SIGKILL);
    home.wait_for("the server's end", || children(first).contains(&(server, 'Z')));
    fs::write(home.root().join("go"), "").unwrap();
    home.wait_for("the orphans' end", || children(first).iter().all(|(_, state)| *state == 'Z'));
    signal(first, libc::SIGCONT);
    start.wait_for_stdout("Temporal is ready again");
    home.wait_for("all to be reaped", || children(first).len() == 1);
    signal(first, libc::SIGTERM);
    start.wait().success().stdout_has("Temporal stopped.");
    home.assert_quiet();
}

#[test]
fn run_as_process_1_reaps_what_its_command_leaves_and_passes_signals_and_status_on() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    for options in [&["local", "run", "--"][..], &["local", "run", "--ephemeral", "--"]] {
        let home = home();
        let command = format!(
            "trap 'echo got USR1' USR1; trap 'echo got USR2' USR2; trap 'echo got HUP' HUP
            trap 'echo got TERM; exit 7' TERM
            ({LEAVE_ORPHANS})
            echo begun; while :; do sleep 0.01; done"
        );
        let mut run = first_process(&home, options).args(["sh", "-c", &command]).spawn();
        run.wait_for_stdout("begun\n");
        let first = children(run.id())[0].0;
        // Beside them: the command, and the daemon or Temporal.
        home.wait_for("the orphans", || orphans(&home) == ORPHANS && children(first).len() == ORPHANS + 2);
        fs::write(home.root().join("go"), "").unwrap();
        home.wait_for("all to be reaped", || orphans(&home) == 0 && children(first).len() == 2);
        for (number, name) in
            [(libc::SIGUSR1, "USR1"), (libc::SIGUSR2, "USR2"), (libc::SIGHUP, "HUP"), (libc::SIGTERM, "TERM")]
        {
            signal(first, number);
            run.wait_for_stdout(&format!("got {name}\n"));
        }
        run.wait().exits_with(7);
        home.assert_quiet();
    }
}
