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
Each of these sets completions up for new shells; fish takes two lines.

Examples:
  echo 'eval \"$(stigmer completions bash)\"' >> ~/.bashrc
  echo 'eval \"$(stigmer completions zsh)\"' >> ~/.zshrc
  mkdir -p ~/.config/fish/completions
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

/// Where it offers nothing, bash completes names of files, as it does for a
/// command that it does not know: directories without a space behind them,
/// `~`, quotes. Where no file is wanted that is turned off (`compopt`, which
/// bash 3.2 lacks).
fn bash() -> String {
    let cases: String = leaves().map(bash_case).collect();
    format!(
        r#"# bash completion for stigmer
_stigmer() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words= word= i=3
  local typed="${{COMP_WORDS[*]:1:COMP_CWORD-1}} "
  # To bash, --option=value is three words.
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  COMPREPLY=()
  if [[ $typed == "local temporal "* ]]; then
    words=$({TEMPORAL_CLI} __complete "${{COMP_WORDS[@]:3:COMP_CWORD-2}}" 2>/dev/null | sed '/^:/d' | cut -f 1)
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  if [[ $typed == "local run "* ]]; then
    for (( ; i < COMP_CWORD; i++ )); do
      case ${{COMP_WORDS[i]}} in
        --) (( i++ )); word=program; break ;;
        {paths}|{values}) [[ ${{COMP_WORDS[i+1]}} != = ]] || (( i++ )); (( i++ )) ;;
        -*) ;;
        *) word=program; break ;;
      esac
    done
    if [[ -n $word || ($i -eq $COMP_CWORD && $cur == [!-]*) ]]; then
      for word in _comp_command_offset _command_offset; do
        ! declare -F $word > /dev/null || {{ $word $i; return; }}
      done
      [[ $i -lt $COMP_CWORD || $cur == */* ]] || COMPREPLY=($(compgen -c -- "$cur"))
      return
    fi
  fi
  case $prev in
    {paths}) return ;;
  esac
  compopt +o default 2> /dev/null
  case $prev in
    {values}) return ;;
  esac
  case $typed in
    ' ') words="{top} help --help --version" ;;
    'local ') words="{local} --help" ;;
{cases}  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _stigmer stigmer
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
    let path = &command.path["stigmer ".len()..];
    format!("    '{path} '*) words=\"{}\" ;;\n", words.join(" "))
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
  local -a found
  local word
  if (( CURRENT == 2 )); then
    found=({top} 'help:show help')
    _describe command found
    return
  fi
  if [[ $words[2] == local ]] && (( CURRENT == 3 )); then
    found=({local})
    _describe command found
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
if [[ $funcstack[1] == _stigmer ]]; then
  _stigmer "$@"
else
  (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i; }}
  compdef _stigmer stigmer
fi
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
    let is_program = matches!(command.operands, Operands::Program);
    // The options of a program are not ours.
    let ends_options = if is_program { " -S -A '-*'" } else { "" };
    let mut case = format!("    {})\n      _arguments -s{ends_options}", command.word());
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
        Operands::Program => case.push_str(ZSH_PROGRAM),
        Operands::OneOf(what, choices) => case.push_str(&format!(" \\\n        '1:{what}:({})'", choices.join(" "))),
    }
    case.push_str(" ;;\n");
    case
}

/// A program and its own words. A `--` right behind `run` is among them.
const ZSH_PROGRAM: &str = " \\
        '(-)1:command: _command_names -e' \\
        '*::argument:{ [[ $words[1] != -- ]] || { shift words; (( CURRENT-- )); }; _normal; }'";

/// The words that the installed CLI offers, each with its meaning.
fn zsh_case_of_temporal(word: &str) -> String {
    format!(
        r#"    {word})
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
    text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

/// `__stigmer_in` says whether what is typed still belongs to this command;
/// `__stigmer_program` offers what the program that `run` is to run offers, and
/// `__stigmer_temporal` the words of the installed CLI.
const FISH_FUNCTIONS: &str = r#"function __stigmer_in
  set -l words (commandline -opc)
  string match -q -- "$argv *" "$words[2..-1] "; and not __stigmer_words > /dev/null
end
function __stigmer_words
  set -l words (commandline -opc)
  test "$words[2..3]" = "local run"; or return 1
  set words $words[4..-1]
  while set -q words[1]
    switch $words[1]
      case --
        set -q words[2]; and printf '%s\n' $words[2..-1]
        return 0
      case $__stigmer_values
        set words $words[3..-1]
      case '-*'
        set words $words[2..-1]
      case '*'
        printf '%s\n' $words
        return 0
    end
  end
  not string match -q -- '-*' (commandline -ct)
end
function __stigmer_program
  set -l words (__stigmer_words); or return
  set -q words[1]; and set words (string escape -- $words)
  complete -C "$words "(commandline -ct)
end
function __stigmer_temporal
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
    let values = bash_flags(|option| option.value.is_some()).replace('|', " ");
    let mut text = format!("# fish completion for stigmer\nset -g __stigmer_values {values}\n{FISH_FUNCTIONS}");
    text.push_str("complete -c stigmer -f\n");
    let mut add = |condition: &str, rest: String| {
        text.push_str(&format!("complete -c stigmer -n {} {rest}\n", quote(condition)));
    };
    for command in TOP.subcommands() {
        add("__fish_use_subcommand", format!("-a {} -d {}", command.word(), quote(command.summary)));
    }
    for command in LOCAL.subcommands() {
        let condition = "__stigmer_in local; and test (count (commandline -opc)) = 2";
        add(condition, format!("-a {} -d {}", command.word(), quote(command.summary)));
    }
    for command in leaves() {
        let condition = &format!("__stigmer_in {}", &command.path["stigmer ".len()..]);
        match command.operands {
            Operands::OneOf(_, choices) => add(condition, format!("-a {}", quote(&choices.join(" ")))),
            Operands::PassedOn => add(condition, "-a '(__stigmer_temporal)'".into()),
            Operands::Program => add("__stigmer_words > /dev/null", "-a '(__stigmer_program)'".into()),
            Operands::None => {}
        }
        for option in command.options() {
            let short = option.short.map_or(String::new(), |short| format!(" -s {short}"));
            let value = match (option.value, option.is_path) {
                (None, _) => "",
                (Some(_), true) => " -r -F",
                (Some(_), false) => " -x",
            };
            add(condition, format!("-l {}{short}{value} -d {}", option.long, quote(option.help)));
        }
    }
    text.push_str("complete -c stigmer -n 'not __stigmer_words > /dev/null' -l help -s h -d 'show help'\n");
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
