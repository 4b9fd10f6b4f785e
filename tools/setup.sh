#!/usr/bin/env bash
# Prepares this machine without questions: makes `.venv` with exactly the packages of constraints.txt.
#
#   tools/setup.sh        for `make up`: needs a Python, and the network once; installs no package of the system
#   tools/setup.sh test   for the tests: also installs Redis, Java, Maven, Node.js and Chromium, and Kafka's jars
#   tools/setup.sh uv     only the installer, for tools/constraints.sh
#
# Without a change since the last time it does nothing, in a tenth of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.cache/uv/bin/uv
venv=.venv/bin/python
log=.cache/setup.log
members=(shared-models shared-clients evals)
for member in services/*/pyproject.toml; do members+=("${member%/pyproject.toml}"); done

say() { printf '  %s\n' "$@"; }

fail() {
  printf '\nThis machine is not ready.\n' >&2
  printf '  %s\n' "$@" >&2
  exit 1
}

# Run a command silently; if it fails, print the end of its output and the remedy.
quietly() {
  if "$@" >"$log" 2>&1 </dev/null; then return; fi
  printf '\n' >&2
  tail -n 15 "$log" >&2
  case $(<"$log") in
    *'No space left'*) fail 'The disk is full: free 2 GB and run the same command again.' ;;
    *'ash mismatch'* | *'DO NOT MATCH'*) fail 'A package differs from its hash in constraints.txt. Do not install it by other means: report it.' ;;
    *'dns error'* | *'error sending request'* | *'Failed to fetch'* | *'ailed to resolve'* | *'imed out'* | *'onnection'* | \
      *'ailure resolving'* | *'nknown host'* | *'cannot fetch'* | *'No matching distribution'* | *'Could not resolve'* | *'Unable to locate package'*)
      fail 'The package registry cannot be reached. Check the network (behind a proxy: HTTPS_PROXY; with an own index:' \
        'UV_DEFAULT_INDEX and PIP_INDEX_URL) and run the same command again: it goes on where it stopped.' ;;
  esac
  fail "This failed, and the lines above say why: $*"
}

# Print the first Python of this machine that really is 3.12 or 3.13 and can make virtual environments. A name in PATH
# proves nothing: a version manager's shim may answer to it and fail.
find_python() {
  local candidate versions=${PYENV_ROOT:-$HOME/.pyenv}/versions
  for candidate in "$versions"/3.12.*/bin/python3.12 "$versions"/3.13.*/bin/python3.13 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys._base_executable)' # in an active .venv, the Python that it was made from
      return
    fi
  done
  fail 'No Python 3.12 or 3.13 was found: looked for it under' "  $versions" 'and as python3.12, python3.13 and python3 in PATH.' \
    'Install one (Debian 13: apt-get install python3-venv; pyenv install 3.12; brew install python@3.13)' \
    'and run the same command again.'
}

enough_disk() {
  local free
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
  if [ "$free" -lt 1500 ]; then fail "Only $free MB are free on the disk of $PWD: 1500 MB are needed."; fi
}

# uv does not read pip's settings: hand over the two that decide whether a registry can be reached.
pip_settings() {
  local index cert
  index=$("$1" -m pip config get global.index-url 2>/dev/null) && export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
  cert=$("$1" -m pip config get global.cert 2>/dev/null) && export SSL_CERT_FILE=${SSL_CERT_FILE:-$cert}
  return 0
}

install_uv() {
  mkdir -p .cache
  if [ -x $uv ] && cmp -s tools/uv.txt .cache/uv/made-of; then return; fi
  say 'the installer (uv)'
  rm -rf .cache/uv
  quietly "$1" -m venv .cache/uv
  quietly .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.txt
  cp tools/uv.txt .cache/uv/made-of
}

# Print the inputs of the environment. After a change of one of them, or of the path, .venv is updated.
state() {
  printf '%s\n' "$PWD"
  cat tools/setup.sh tools/uv.txt constraints.txt pyproject.toml "${members[@]/%//pyproject.toml}"
}

install_packages() {
  local python member editable=()
  if [ -x $venv ] && $venv -c '' 2>/dev/null && state | cmp -s - .venv/made-of; then return; fi
  printf 'Making .venv ready (the first time takes up to a minute)\n'
  enough_disk
  python=$(find_python)
  say "Python: $python"
  pip_settings "$python"
  install_uv "$python"
  if ! $venv -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    quietly $uv venv --quiet --clear --no-python-downloads --python "$python" .venv
  fi
  say "$(grep -c '^[a-z]' constraints.txt) packages, as constraints.txt names them"
  quietly $uv pip sync --quiet --python $venv --no-build --require-hashes constraints.txt
  say "Flotilla's own packages: ${members[*]##*/}"
  for member in "${members[@]}"; do editable+=(-e "$member"); done
  quietly $uv pip install --quiet --python $venv --offline --no-deps --no-build-isolation "${editable[@]}"
  if ! $uv pip check --quiet --python $venv; then
    fail 'constraints.txt is behind a pyproject.toml: run `make lock` and commit what it changes.'
  fi
  state >.venv/made-of
}

at_least() { # NUMBER COMMAND...: is the first number that the command prints as high?
  local wanted=$1 found
  found=$("${@:2}" 2>&1 | grep -oE '[0-9]+' | head -n 1) && [ "$found" -ge "$wanted" ]
}

install_system_packages() {
  local packages=() sudo=()
  command -v redis-server >/dev/null || packages+=(redis-server)
  command -v chromium >/dev/null || packages+=(chromium)
  at_least 17 java -version || packages+=(default-jdk-headless)
  command -v mvn >/dev/null || packages+=(maven)
  command -v node >/dev/null || packages+=(nodejs)
  command -v npm >/dev/null || packages+=(npm)
  if [ ${#packages[@]} -gt 0 ]; then
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}")
    command -v apt-get >/dev/null || fail "The tests need these programs, under Debian's names: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
      sudo -n true 2>/dev/null || fail 'The tests need some programs. Type this, then run the same command again:' \
        "  sudo apt-get install -y --no-install-recommends ${packages[*]}"
      sudo=(sudo -n)
    fi
    printf 'Installing what the tests need\n'
    say "Debian's ${packages[*]}"
    quietly "${sudo[@]}" apt-get update
    quietly "${sudo[@]}" "${install[@]}"
    case " ${packages[*]} " in
      *' redis-server '*) # the tests start their own; this one would only take a port
        "${sudo[@]}" systemctl disable --now redis-server >/dev/null 2>&1 ||
          "${sudo[@]}" service redis-server stop >/dev/null 2>&1 || true ;;
    esac
  fi
  at_least 20 node --version || fail "Node.js 20 or newer is needed to check the web chat; this is $(node --version)." \
    'Get it from nodejs.org, put it first in PATH, and run the same command again.'
  compgen -G "$HOME/.cache/flotilla/kafka-*" >/dev/null || say 'Kafka, by Maven'
  quietly $venv -m local_backends
}

case ${1:-} in
  uv)
    python=$(find_python)
    pip_settings "$python"
    install_uv "$python"
    ;;
  test)
    install_packages
    install_system_packages
    ;;
  *) install_packages ;;
esac
