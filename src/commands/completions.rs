//! `stigmer completions SHELL`, from the table that parses and prints help.

use super::{LOCAL, TOP, leaves, print};
use crate::cli::{Action, CommandSpec, Operands, OptionSpec, Typed};
use crate::error::Result;

const SHELLS: &[&str] = &["bash", "zsh", "fish"];

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer completions",
    summary: "print a completion script for a shell",
    usage: "bash|zsh|fish",
    operands: Operands::OneOf("shell", SHELLS),
    notes: "\
Examples:
  stigmer completions bash > ~/.local/share/bash-completion/completions/stigmer
  stigmer completions zsh > \"${fpath[1]}/_stigmer\"
  stigmer completions fish > ~/.config/fish/completions/stigmer.fish
",
    action: Action::Run(completions),
    ..CommandSpec::PLAIN
};

fn completions(typed: &Typed) -> Result<u8> {
    print(&script(&typed.operands[0].to_string_lossy()))
}

/// The completion script for a shell.
fn script(shell: &str) -> String {
    match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        _ => fish(),
    }
}

fn words(commands: &[&CommandSpec]) -> String {
    commands.iter().map(|command| command.word()).collect::<Vec<_>>().join(" ")
}

fn flags(option: &OptionSpec) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{}", option.long)]).collect()
}

/// The installed CLI, which completes its own words. For sh and zsh, and not by
/// `stigmer local temporal`: a Tab must install nothing.
const TEMPORAL_CLI: &str = "\"${STIGMER_TEMPORAL_BIN:-${STIGMER_HOME:-$HOME/.stigmer}/bin/temporal}\"";

fn bash() -> String {
    let cases: String = leaves().map(bash_case).collect();
    format!(
        r#"# bash completion for stigmer
_stigmer() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= word words
  if [[ $COMP_CWORD -gt 2 && "${{COMP_WORDS[*]:1:2}}" == "local temporal" ]]; then
    words=$({TEMPORAL_CLI} __complete "${{COMP_WORDS[@]:3:COMP_CWORD-2}}" 2>/dev/null | sed '/^:/d' | cut -f 1)
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  case $prev in
    {paths}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    {values}) return ;;
  esac
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in
      --) COMPREPLY=($(compgen -c -f -- "$cur")); return ;;
      -*) ;;
      *) case $command in
           ''|local) command="${{command:+$command }}$word" ;;
         esac ;;
    esac
  done
  case $command in
    '') words="{top} help --help --version" ;;
    local) words="{local} --help" ;;
{cases}    *) words= ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _stigmer stigmer
"#,
        paths = bash_flags(|option| option.is_path),
        values = bash_flags(|option| option.value.is_some() && !option.is_path),
        top = words(TOP.subcommands()),
        local = words(LOCAL.subcommands()),
    )
}

/// The words of one command.
fn bash_case(command: &CommandSpec) -> String {
    let mut words: Vec<String> = command.options().flat_map(flags).collect();
    words.push("--help".into());
    if let Operands::OneOf(_, choices) = command.operands {
        words.push(choices.join(" "));
    }
    let path = &command.path["stigmer ".len()..].replace(' ', "\\ ");
    format!("    {path}) words=\"{}\" ;;\n", words.join(" "))
}

/// All flags of the options that `is_wanted`, each once, as a pattern.
fn bash_flags(is_wanted: impl Fn(&OptionSpec) -> bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for flag in leaves().flat_map(CommandSpec::options).filter(|option| is_wanted(option)).flat_map(flags) {
        if !all.contains(&flag) {
            all.push(flag);
        }
    }
    all.join("|")
}

fn zsh() -> String {
    let described = |commands: &[&CommandSpec]| {
        commands.iter().map(|c| format!("'{}:{}'", c.word(), zsh_quote(c.summary))).collect::<Vec<_>>().join(" ")
    };
    let cases: String = leaves().map(zsh_case).collect();
    format!(
        r#"#compdef stigmer
_stigmer() {{
  local -a commands
  local word
  if (( CURRENT == 2 )); then
    commands=({top} 'help:show help')
    _describe command commands
    return
  fi
  if [[ $words[2] == local ]] && (( CURRENT == 3 )); then
    commands=({local})
    _describe command commands
    return
  fi
  if [[ $words[2] == local ]]; then
    word=$words[3]
    shift 2 words
    (( CURRENT -= 2 ))
  else
    word=$words[2]
    shift words
    (( CURRENT -= 1 ))
  fi
  case $word in
{cases}  esac
}}
if [[ $funcstack[1] == _stigmer ]]; then _stigmer "$@"; else compdef _stigmer stigmer; fi
"#,
        top = described(TOP.subcommands()),
        local = described(LOCAL.subcommands()),
    )
}

/// The arguments of one command.
fn zsh_case(command: &CommandSpec) -> String {
    if let Operands::PassedOn = command.operands {
        return zsh_case_of_temporal(command.word());
    }
    let mut case = format!("    {})\n      _arguments -s", command.word());
    for option in command.options() {
        let value = match (option.value, option.is_path) {
            (None, _) => String::new(),
            (Some(name), true) => format!(":{}:_files", zsh_quote(name)),
            (Some(name), false) => format!(":{}: ", zsh_quote(name)),
        };
        let repeated = if option.help.ends_with("(repeatable)") { "*" } else { "" };
        for flag in flags(option) {
            let equals = if option.value.is_some() && flag.starts_with("--") { "=" } else { "" };
            case.push_str(&format!(" \\\n        '{repeated}{flag}{equals}[{}]{value}'", zsh_quote(option.help)));
        }
    }
    case.push_str(" \\\n        '--help[show this help]'");
    match command.operands {
        Operands::None | Operands::PassedOn => {}
        Operands::Program => case.push_str(" \\\n        '*::command:_normal'"),
        Operands::OneOf(what, choices) => case.push_str(&format!(" \\\n        '1:{what}:({})'", choices.join(" "))),
    }
    case.push_str(" ;;\n");
    case
}

/// The words that the installed CLI offers, each with its meaning.
fn zsh_case_of_temporal(word: &str) -> String {
    format!(
        r#"    {word})
      local -a found
      found=(${{(f)"$({TEMPORAL_CLI} __complete "${{(@)words[2,CURRENT]}}" 2>/dev/null)"}})
      found=("${{(@)found:#:*}}")
      found=("${{(@)found//:/\:}}")
      found=("${{(@)found/$'\t'/:}}")
      _describe argument found ;;
"#
    )
}

/// Text inside a single-quoted specification of `_arguments`.
fn zsh_quote(text: &str) -> String {
    text.replace('\'', "").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

/// The words that the installed CLI offers.
const FISH_TEMPORAL: &str = r#"function __stigmer_temporal
  set -l home $STIGMER_HOME
  test -n "$home"; or set home $HOME/.stigmer
  set -l cli $STIGMER_TEMPORAL_BIN
  test -n "$cli"; or set cli $home/bin/temporal
  set -l words (commandline -opc) (commandline -ct)
  $cli __complete $words[4..-1] 2>/dev/null | string match -v ':*'
end
"#;

fn fish() -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut text = String::from("# fish completion for stigmer\ncomplete -c stigmer -f\n");
    let mut add = |condition: String, rest: String| {
        text.push_str(&format!("complete -c stigmer -n {} {rest}\n", quote(&condition)));
    };
    for command in TOP.subcommands() {
        let rest = format!("-a {} -d {}", command.word(), quote(command.summary));
        add("__fish_use_subcommand".into(), rest);
    }
    let seen = words(LOCAL.subcommands());
    for command in LOCAL.subcommands() {
        let condition = format!("__fish_seen_subcommand_from local; and not __fish_seen_subcommand_from {seen}");
        add(condition, format!("-a {} -d {}", command.word(), quote(command.summary)));
    }
    for command in leaves() {
        let condition = format!("__fish_seen_subcommand_from {}", command.word());
        match command.operands {
            Operands::OneOf(_, choices) => add(condition.clone(), format!("-a {}", quote(&choices.join(" ")))),
            Operands::PassedOn => add(condition.clone(), "-a '(__stigmer_temporal)'".into()),
            Operands::None | Operands::Program => {}
        }
        for option in command.options() {
            let short = option.short.map_or(String::new(), |short| format!(" -s {short}"));
            let value = match (option.value, option.is_path) {
                (None, _) => "",
                (Some(_), true) => " -r -F",
                (Some(_), false) => " -x",
            };
            add(condition.clone(), format!("-l {}{short}{value} -d {}", option.long, quote(option.help)));
        }
    }
    text.push_str("complete -c stigmer -l help -s h -d 'show help'\n");
    text.push_str(FISH_TEMPORAL);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_in_every_script() {
        for name in SHELLS {
            let script = script(name);
            let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
            let words: Vec<&str> = script.split(|character| !is_part(character)).collect();
            for command in leaves() {
                assert!(words.contains(&command.word()), "{name}: {}", command.path);
                for option in command.options() {
                    // fish writes `-l port`, the others `--port`.
                    let wanted = match *name {
                        "fish" => vec!["-l".to_owned(), option.long.to_owned()],
                        _ => vec![format!("--{}", option.long)],
                    };
                    assert!(words.windows(wanted.len()).any(|seen| seen == wanted), "{name}: {}", option.long);
                }
            }
        }
    }
}
