//! `make run` and `make test` on machines that lack something: they say what,
//! before anything is built.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::*;

/// What make and its recipes call here, as this machine has them.
const TOOLS: [&str; 11] = ["awk", "cat", "dirname", "git", "head", "make", "mktemp", "rm", "sed", "sh", "uname"];
/// Those that a row takes away or has answer otherwise. This `curl` reaches nobody.
const PROGRAMS: [(&str, &str); 5] = [
    ("cargo", "exit 9"),
    ("rustc", "echo 'rustc 1.999.0 (of tests)'"),
    ("cc", "exit 0"),
    ("curl", "exit 7"),
    ("python3", "exit 0"),
];

/// The Makefile, and a PATH on which all is there that it needs.
struct Machine {
    home: Home,
    programs: PathBuf,
}

impl Machine {
    fn new() -> Machine {
        let home = Home::new();
        let programs = home.root().join("programs");
        fs::create_dir(&programs).unwrap();
        let machine = Machine { home, programs };
        for tool in TOOLS {
            symlink(of_this_machine(tool), machine.programs.join(tool)).unwrap();
        }
        PROGRAMS.iter().for_each(|(name, script)| machine.place(name, script));
        machine
    }

    /// A program that does this.
    fn place(&self, name: &str, script: &str) {
        let path = self.programs.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >> '{}'\n{script}\n", self.calls().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn without(self, name: &str) -> Machine {
        fs::remove_file(self.programs.join(name)).unwrap();
        self
    }

    fn with(self, name: &str, script: &str) -> Machine {
        self.place(name, script);
        self
    }

    fn calls(&self) -> PathBuf {
        self.home.root().join("calls")
    }

    fn make(&self, target: &str) -> Outcome<'_> {
        Stigmer::of_program(&self.home, "make".as_ref(), ["-s", "-C", env!("CARGO_MANIFEST_DIR"), target])
            .env("PATH", &self.programs)
            .env_remove("STIGMER_HOME")
            .run()
    }

    /// Whether anything was built.
    fn has_built(&self) -> bool {
        fs::read_to_string(self.calls()).unwrap_or_default().lines().any(|line| line.starts_with("cargo "))
    }
}

fn of_this_machine(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|directory| directory.join(tool)).find(|path| path.exists());
    found.unwrap_or_else(|| Path::new("/bin").join(tool))
}

#[test]
fn make_says_what_is_missing_before_it_builds() {
    if !has("make", &["--version"]) {
        return skip("make is missing");
    }
    let old = "echo 'rustc 1.75.0 (82e1608df 2023-12-21)'";
    let no_module = |name: &str| format!("case \"$*\" in *{name}*) exit 1 ;; *) exit 0 ;; esac");
    for (target, machine, count, said) in [
        ("run", Machine::new().with("rustc", old), 1, "this is 1.75.0"),
        ("run", Machine::new().without("rustc"), 1, "Rust 1."),
        ("test", Machine::new().without("cargo"), 1, "https://rustup.rs"),
        ("run", Machine::new().without("cc"), 1, "a C compiler"),
        ("test", Machine::new().with("cc", "exit 1"), 1, "a C compiler"),
        ("run", Machine::new().without("curl"), 1, "missing: curl"),
        ("test", Machine::new().with("python3", &no_module("-m?pip")), 1, "python3-pip"),
        ("test", Machine::new().with("python3", &no_module("venv")), 1, "python3-venv"),
        ("test", Machine::new().without("python3"), 2, "python3-venv"),
    ] {
        let outcome = machine.make(target);
        outcome.exits_with(2).stderr_has(said).stdout_lacks("github.com cannot be reached");
        assert_eq!(outcome.stderr.matches("missing: ").count(), count, "{}", outcome.describe());
        assert!(!machine.has_built(), "{}", outcome.describe());
    }
}

#[test]
fn make_builds_where_nothing_is_missing() {
    if !has("make", &["--version"]) {
        return skip("make is missing");
    }
    for target in ["run", "test"] {
        let machine = Machine::new();
        let outcome = machine.make(target);
        assert!(machine.has_built() && !outcome.stderr.contains("missing: "), "{}", outcome.describe());
    }
    // What is there already needs nobody to be reached.
    let machine = Machine::new().without("curl");
    let machine = Machine { home: machine.home.with_stand_in(), ..machine };
    machine.make("run").stderr_lacks("missing: ");
    assert!(machine.has_built());
}
