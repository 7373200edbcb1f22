#!/bin/sh
# Installs stigmer for one user, without root: the program, its completions and
# its manual page. `make install` and `make uninstall` use it as well.
#
# Nothing is unpacked before its SHA-256 is the one in SHA256SUMS. Nothing gets
# its name before it is whole, and the program only once it has run here.
set -eu

# Where releases are published: the repository of Cargo.toml, which `make dist`
# writes here. Empty as long as there is none.
repository=

usage() {
  cat <<'TEXT'
usage: sh install.sh [--from DIR | --uninstall]

  (nothing)     download the newest release and install it
  --from DIR    install what is unpacked in DIR, without a download
  --uninstall   remove exactly what was installed

Environment:
  PREFIX                where to [default: ~/.local]
  STIGMER_VERSION       which version, such as 0.1.0 [default: the newest]
  STIGMER_DOWNLOAD_URL  the directory with SHA256SUMS and the archives
  https_proxy           the proxy to download through, as curl and wget take it
TEXT
}

# In the archive, and below the prefix. The program is the last, so that the
# rest is there when it is.
files='completions/stigmer.bash share/bash-completion/completions/stigmer
completions/_stigmer share/zsh/site-functions/_stigmer
completions/stigmer.fish share/fish/vendor_completions.d/stigmer.fish
stigmer.1 share/man/man1/stigmer.1
stigmer bin/stigmer'

# Seconds to connect, and for one download: 2 MB at 3 kB/s.
connect_limit=30
download_limit=600

main() {
  mode=${1-}
  case $mode in
    '' | --uninstall) [ $# -le 1 ] || misused ;;
    --from) [ $# -eq 2 ] || misused ;;
    -h | --help) usage && exit 0 ;;
    *) misused ;;
  esac
  find_prefix
  work=$(mktemp -d) || fail "cannot make a temporary directory" "set TMPDIR to a directory that you may write to"
  partial=$work/none
  trap 'rm -rf "$work" "$partial"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  case $mode in
    --uninstall) uninstall ;;
    --from) install_from "$2" ;;
    *)
      find_target
      find_base
      download_archive
      install_from "$work"/unpacked/stigmer-*
      ;;
  esac
}

misused() {
  usage >&2
  exit 2
}

fail() { # what failed and why, what to do
  printf 'error: %s\n' "$1" >&2
  [ -z "${2-}" ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

say() {
  printf '[%s] %s\n' "$1" "$2"
}

# The last thing that a program said, without its own name before it.
said_by() {
  last=$(tail -n 1 "$work/said")
  last=${last#"$1": }
  printf '%s' "${last:-$1 failed}"
}

find_prefix() {
  [ -n "${PREFIX-}${HOME-}" ] || fail "cannot find your home directory: HOME is not set" "set HOME or PREFIX"
  prefix=${PREFIX:-$HOME/.local}
  case $prefix in
    /*) ;;
    # As make passes it on from a shell that did not expand it.
    '~'/*) prefix=$HOME/${prefix#??} ;;
    *) prefix=$PWD/$prefix ;;
  esac
  prefix=${prefix%/}
}

find_target() {
  case $(uname -m) in
    x86_64 | amd64) target=x86_64 ;;
    aarch64 | arm64) target=aarch64 ;;
    *) target= ;;
  esac
  case $target:$(uname -s) in
    ?*:Linux) target=$target-unknown-linux-musl ;;
    ?*:Darwin) target=$target-apple-darwin ;;
    *)
      fail "cannot install stigmer on $(uname -s) $(uname -m): there is no build for it" \
        "there is one for Linux and macOS, on x86-64 and arm64"
      ;;
  esac
}

# The directory to download from, and what downloads.
find_base() {
  version=${STIGMER_VERSION-}
  version=${version#v}
  if [ -n "${STIGMER_DOWNLOAD_URL-}" ]; then
    base=${STIGMER_DOWNLOAD_URL%/}
  elif [ -z "$repository" ]; then
    fail "cannot download stigmer: this installer names no place to download from" \
      "name it: STIGMER_DOWNLOAD_URL=https://... sh install.sh"
  elif [ -n "$version" ]; then
    base=$repository/releases/download/v$version
  else
    base=$repository/releases/latest/download
  fi
  for fetcher in curl wget none; do
    ! command -v "$fetcher" > /dev/null || return 0
  done
  fail "cannot download stigmer: there is neither curl nor wget" "install one of them"
}

download() { # URL, file
  url=$1
  if [ "$fetcher" = curl ]; then
    set -- -fsSL --connect-timeout "$connect_limit" --max-time "$download_limit" --retry 2 -o "$2" "$1"
    # No redirect leads away from encryption.
    case $base in https:*) set -- --proto '=https' "$@" ;; esac
  else
    set -- -O "$2" "$1"
    # Busybox's knows none of these, and says itself where it checks no certificate.
    case $(wget --version 2> /dev/null) in *GNU*) set -- -nv --tries=2 --timeout="$connect_limit" "$@" ;; esac
  fi
  bounded "$fetcher" "$@" > "$work/said" 2>&1 ||
    fail "cannot download $url: $(said_by "$fetcher")" "check the network, and https_proxy where there is a proxy"
}

bounded() {
  if command -v timeout > /dev/null; then timeout $((3 * download_limit)) "$@"; else "$@"; fi
}

# The archive for this machine, verified, in $work/unpacked.
download_archive() {
  download "$base/SHA256SUMS" "$work/SHA256SUMS"
  archive=
  while read -r digest name; do
    case $name in
      */*) ;;
      "stigmer-$version-$target.tar.gz") archive=$name expected=$digest ;;
      stigmer-*-"$target".tar.gz) [ -n "$version" ] || archive=$name expected=$digest ;;
    esac
  done < "$work/SHA256SUMS"
  [ -n "$archive" ] ||
    fail "cannot install stigmer${version:+ $version}: $base/SHA256SUMS lists no archive of it for $target"
  say '⬇' "Downloading $base/$archive"
  download "$base/$archive" "$work/archive"
  actual=$(sha256 "$work/archive")
  [ "$actual" = "$expected" ] ||
    fail "cannot trust $base/$archive: its SHA-256 is $actual, not $expected" \
      "something on the way changed or cut it; nothing was installed"
  mkdir "$work/unpacked"
  tar -xzf "$work/archive" -C "$work/unpacked" 2> "$work/said" ||
    fail "cannot unpack $archive in $work: $(said_by tar)" "set TMPDIR to a directory with 10 MB of room"
}

sha256() {
  if command -v sha256sum > /dev/null; then
    sha256sum < "$1"
  else
    shasum -a 256 < "$1"
  fi | cut -d ' ' -f 1
}

install_from() { # directory
  [ -f "$1/stigmer" ] || fail "cannot install from $1: there is no stigmer in it" "name the directory of an unpacked archive"
  while read -r source name; do
    put "$1/$source" "$prefix/$name"
  done <<LIST
$files
LIST
  say '✓' "$(cat "$work/version") installed to $prefix/bin/stigmer"
  advise
}

put() { # source, destination
  partial=${2%/*}/.stigmer.$$
  case $1 in */stigmer) mode=755 ;; *) mode=644 ;; esac
  {
    mkdir -p "${2%/*}" && cp "$1" "$partial" && chmod "$mode" "$partial"
  } 2> "$work/said" || fail "cannot write $2: $(said_by cp)" "install elsewhere, with PREFIX=\$HOME/DIRECTORY"
  if [ "$mode" = 755 ]; then
    "$partial" --version > "$work/version" 2> "$work/said" ||
      fail "cannot run stigmer in ${2%/*}: $(said_by sh)" "install elsewhere, with PREFIX=\$HOME/DIRECTORY"
  fi
  mv -f "$partial" "$2" 2> "$work/said" || fail "cannot write $2: $(said_by mv)"
}

advise() {
  case :${PATH-}: in
    *:"$prefix/bin":*)
      found=$(command -v stigmer)
      [ "$found" = "$prefix/bin/stigmer" ] || say '!' "Another stigmer comes first on your PATH: $found"
      ;;
    *)
      say '!' "$prefix/bin is not on your PATH; add this line to your shell's profile:"
      # shellcheck disable=SC2016 # PATH is for the profile to expand
      case ${SHELL-} in
        */fish) printf '    fish_add_path "%s"\n' "$prefix/bin" ;;
        *) printf '    export PATH="%s:$PATH"\n' "$prefix/bin" ;;
      esac
      ;;
  esac
}

uninstall() {
  if "$prefix/bin/stigmer" local status > /dev/null 2>&1; then
    fail "cannot remove $prefix/bin/stigmer: its daemon runs" "stop it first: stigmer local stop"
  fi
  removed=
  while read -r _ name; do
    [ -e "$prefix/$name" ] || continue
    rm -f "$prefix/$name" 2> "$work/said" || fail "cannot remove $prefix/$name: $(said_by rm)"
    # What is empty now has nothing to lose; the prefix itself stays.
    (cd "$prefix" && rmdir -p "${name%/*}" 2> /dev/null) || true
    removed=yes
  done <<LIST
$files
LIST
  if [ -n "$removed" ]; then
    say '✓' "stigmer removed from $prefix"
    say '•' "Temporal and your workflows are still in ${STIGMER_HOME:-${HOME-}/.stigmer}"
  else
    say '•' "Nothing of stigmer is in $prefix"
  fi
}

# The last line, so that a part of this script does nothing.
main "$@"
