#!/usr/bin/env bash
# Makes $VENV: uv by pip from a hashed file, then everything else from hashed files by uv, then the
# workspace's members. Needs Linux, Python >= 3.11 with venv, and nothing else. `make setup` calls it.
set -euo pipefail
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv}
die() { printf '\n%s\n' "$*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || die "Frond's services run on Linux: they ask its kernel for what others have not (prctl, memfd_create), and this is $(uname -s). On Windows use WSL2; elsewhere a Linux machine, or containers: make env, then docker compose up --build."
# a newer Python under another name serves where python3 is an old one
for python in "$PYTHON" python3.13 python3.12 python3.11; do
  command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break
  python=
done
[ -n "$python" ] || die "Frond needs Python 3.11 or newer, and '$PYTHON' is $("$PYTHON" --version 2>&1 || echo missing). Name one: make setup PYTHON=/path/to/python3.12"

if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
  echo "Making $VENV with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV" >/dev/null 2>"${TMPDIR:-/tmp}/frond-venv.$$" || {
    cat "${TMPDIR:-/tmp}/frond-venv.$$" >&2; rm -f "${TMPDIR:-/tmp}/frond-venv.$$"; rm -rf "$VENV"
    die "'$python -m venv' does not work here. On Debian and Ubuntu: apt-get install python3-venv. Or name another Python: make setup PYTHON=/path/to/python3"
  }
  rm -f "${TMPDIR:-/tmp}/frond-venv.$$"
fi
if [ "$("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/uv.txt)" ]; then
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
fi
export VIRTUAL_ENV=$PWD/$VENV UV_PYTHON=$PWD/$VENV/bin/python
# a certificate authority of this machine's own is in the system's store, not in uv's
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
echo "Installing what requirements/dev.txt pins"
"$VENV/bin/uv" pip install --quiet --require-hashes -r requirements/dev.txt
members=()
for folder in libs/*/ services/*/; do
  [ ! -f "$folder/pyproject.toml" ] || members+=(-e "$folder")
done
"$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation "${members[@]}"
echo "Ready: $((${#members[@]} / 2)) packages of this workspace and all that they need are in $VENV"
