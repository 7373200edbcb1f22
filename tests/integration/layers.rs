//! Imports point down: whatever a module of `src` imports stands below it in
//! the second picture of `src/main.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the unit tests of a file begin; they may use what they like.
const UNIT_TESTS: &str = "\n#[cfg(test)]\nmod tests {";

/// The names that lead to a module: `["install", "network"]`.
type ModulePath = Vec<String>;

/// The program, as far as its layers go.
struct Program<'t> {
    /// The lines of the picture, the uppermost first.
    layers: Vec<Vec<&'t str>>,
    /// The modules that `main.rs` declares.
    modules: Vec<&'t str>,
    /// The same, declared for the unit tests alone.
    test_modules: Vec<&'t str>,
    sources: Vec<(ModulePath, String)>,
}

impl Program<'_> {
    fn new(main: &str, sources: Vec<(ModulePath, String)>) -> Program<'_> {
        let picture = main.split("```text").nth(2).unwrap().split("```").next().unwrap();
        let names = picture.lines().map(|line| line.trim_start_matches("//!").split_whitespace().collect::<Vec<_>>());
        let layers = names.filter(|names| !names.is_empty()).collect();
        let (mut modules, mut test_modules, mut above) = (Vec::new(), Vec::new(), "");
        for line in main.lines() {
            if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                if above == "#[cfg(test)]" { &mut test_modules } else { &mut modules }.push(name);
            }
            above = line;
        }
        Program { layers, modules, test_modules, sources }
    }

    fn layer(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|names| names.contains(&module))
    }

    /// Every way in which picture and program differ.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let drawn: Vec<&str> = self.layers.concat();
        for module in &self.modules {
            let times = drawn.iter().filter(|name| *name == module).count();
            if times != 1 {
                faults.push(format!("'{module}' is {times} times in the picture"));
            }
        }
        for name in drawn.iter().filter(|name| !self.modules.contains(name)) {
            faults.push(format!("'{name}' of the picture is not a module"));
        }
        for (path, text) in &self.sources {
            let (own, shown) = (path[0].as_str(), path.join("::"));
            if own == "main" || self.test_modules.contains(&own) {
                continue;
            }
            for imported in imports(text, path) {
                let is_below = || self.layer(&imported) > self.layer(own);
                match self.layer(&imported) {
                    None => faults.push(format!("'{shown}' imports '{imported}', which is not in the picture")),
                    Some(_) if imported == own || is_below() => {}
                    Some(_) => faults.push(format!("'{shown}' imports '{imported}', which is not below it")),
                }
            }
            if !self.modules.contains(&own) {
                faults.push(format!("'{shown}' is not declared in main.rs"));
            }
        }
        faults
    }
}

/// The top-level modules that a file's code names by `crate::` or by as many
/// `super::` as lead to the root.
fn imports(text: &str, path: &ModulePath) -> Vec<String> {
    let tokens = tokens(text.split(UNIT_TESTS).next().unwrap());
    let mut names = Vec::new();
    // The depth of the braces, and those at which modules within the file began.
    let (mut depth, mut inner) = (0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if matches!(tokens[at..], ["mod", _, "{", ..]) {
            inner.push(depth);
        } else if tokens[at] == "}" && inner.last() == Some(&depth) {
            inner.pop();
        }
        let to_root = match tokens[at] {
            "crate" => 1,
            "super" => path.len() + inner.len(),
            _ => 0,
        };
        let prefix = [tokens[at], "::"].repeat(to_root);
        if to_root > 0 && tokens[at..].starts_with(&prefix) {
            names.extend(first_names(&tokens[at + prefix.len()..]));
        }
        // Or each later `super` of a chain would look like the start of another.
        let chain = tokens[at..].chunks(2).take_while(|pair| **pair == ["super", "::"]).count();
        at += (2 * chain).max(1);
    }
    names
}

/// `a` of `a::b`, and `a` and `b` of `{a::{x, y}, b}`.
fn first_names(tokens: &[&str]) -> Vec<String> {
    if tokens.first() != Some(&"{") {
        return tokens.first().map(|name| (*name).to_owned()).into_iter().collect();
    }
    let (mut names, mut depth, mut is_first) = (Vec::new(), 0, false);
    for token in tokens {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if is_first && depth == 1 => names.push(name.to_owned()),
            _ => {}
        }
        is_first = depth == 1 && ["{", ","].contains(token);
        if depth == 0 {
            break;
        }
    }
    names
}

/// Words, `::`, strings, and every other character by itself; no comments.
fn tokens(code: &str) -> Vec<&str> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            first if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
            '"' => end_of_string(rest),
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            _ if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") => 3,
            first => first.len_utf8(),
        };
        if !rest.starts_with("//") {
            tokens.push(&rest[..length]);
        }
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The length of the string literal at the beginning.
fn end_of_string(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return at + 1,
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    text.len()
}

/// `install/network.rs` is `install::network`, and `install/mod.rs` is `install`.
fn module_path(file: &Path) -> ModulePath {
    let names = file.with_extension("");
    names.iter().map(|name| name.to_str().unwrap().to_owned()).filter(|name| name != "mod").collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let code = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    code.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let source = |file: PathBuf| (module_path(file.strip_prefix(&root).unwrap()), fs::read_to_string(&file).unwrap());
    let sources: Vec<_> = files(&root).into_iter().map(source).collect();
    assert!(sources.len() > 20, "{} files", sources.len());
    let main = fs::read_to_string(root.join("main.rs")).unwrap();
    let faults = Program::new(&main, sources).faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_form_of_an_import_is_seen() {
    let nested = vec!["install".to_owned(), "network".to_owned()];
    for (code, expected) in [
        ("use crate::home::Home;", "home"),
        ("pub(crate) use crate::{\n    home::{Home, HOME_VARIABLE},\n    sys, // first\n    cli,\n};", "home sys cli"),
        ("use crate::{state::{self, Phase}, cli};", "state cli"),
        ("let x = crate::terminal::Stream::Nowhere;", "terminal"),
        ("fn f(x: &crate :: state::State) -> super::super::home::Home", "state home"),
        ("use super::super::{cli, home::Home};", "cli home"),
        ("let x = \"// {\"; use crate::sys;", "sys"),
        ("let x = ('\"', '{'); use crate::sys;", "sys"),
        ("mod fuzz { use super::unpack; fn f() {} use super::super::super::sys; } use super::super::cli;", "sys cli"),
        ("use crate::*;", "*"),
        ("use super::receipt::Receipt; use self::x; use std::io; my_crate::x", ""),
        ("// use crate::daemon;\n/// [`crate::daemon`]", ""),
        ("use crate::sys;\n#[cfg(test)]\nmod tests {\n    use crate::daemon;", "sys"),
    ] {
        assert_eq!(imports(code, &nested).join(" "), expected, "{code}");
    }
    assert_eq!(imports("use super::sys;", &vec!["install".to_owned()]), ["sys"]);
}

#[test]
fn every_fault_of_the_layers_is_found() {
    let main = "//! ```text\n//! ```\n//!\n//! ```text\n//!  upper\n//!  lower beside gone\n//! ```\n\
                mod beside;\nmod lower;\nmod new;\n#[cfg(test)]\nmod scratch;\nmod upper;\n";
    let source = |path: &str, text: &str| (path.split("::").map(str::to_owned).collect(), text.to_owned());
    let program = Program::new(
        main,
        vec![
            source("main", "use crate::upper;"),
            source("upper::part", "use crate::{lower, upper::other}; use super::super::beside;"),
            source("lower", "use crate::upper::Thing;"),
            source("beside::part", "use super::super::lower; use crate::variable;"),
            source("scratch", "use crate::upper;"),
            source("stray", ""),
        ],
    );
    let expected = [
        "'new' is 0 times in the picture",
        "'gone' of the picture is not a module",
        "'lower' imports 'upper', which is not below it",
        "'beside::part' imports 'lower', which is not below it",
        "'beside::part' imports 'variable', which is not in the picture",
        "'stray' is not declared in main.rs",
    ];
    assert_eq!(program.faults(), expected);
}
