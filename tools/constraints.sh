#!/usr/bin/env bash
# Writes constraints.txt: every package that the members and the tests need, pinned and hashed for each platform and for
# Python 3.12 and 3.13. It names no index, so it works with every one. Pins that still fit are kept.
#
#   tools/constraints.sh                          after a change to a pyproject.toml
#   tools/constraints.sh --upgrade                for the newest versions
#   tools/constraints.sh --upgrade-package NAME   for the newest version of one
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh uv
uv=.cache/uv/bin/uv
own=()
for member in shared-models shared-clients evals services/*/pyproject.toml; do
  member=${member%/pyproject.toml}
  own+=(--no-emit-package "flotilla-${member##*/}")
done

$uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate --no-emit-index-url \
  --group dev "${own[@]}" --output-file constraints.txt "$@" pyproject.toml >/dev/null
$uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate --no-emit-index-url \
  --output-file tools/uv.txt "$@" - >/dev/null <<<uv
printf 'constraints.txt: %s packages\n' "$(grep -c '^[a-z]' constraints.txt)"
