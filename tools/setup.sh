#!/bin/sh
# Sets up what is missing, in the tree: a virtual environment with the locked Python packages,
# Node.js from its wheel, and the locked npm packages. Repeating it is cheap. Nothing is installed
# outside the tree; what only the system can provide is named, with the command that provides it.
set -eu

python=${PYTHON:-python3}
started=$(date +%s)
say() { printf '[setup %3ss] %s\n' "$(($(date +%s) - started))" "$1"; }
fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "this runs on x86-64 Linux; this machine is $(uname -s) $(uname -m)"
command -v "$python" >/dev/null ||
    fail "$python is missing: sudo apt-get install python3 python3-venv python3-dev"
"$python" - <<'PY' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"setup: Python 3.11, 3.12 or 3.13 is needed, this is {found}: make PYTHON=python3.12 …")
PY
# One dependency of the transport (fastecdsa) is compiled here, so a compiler and headers are needed.
missing=
command -v gcc >/dev/null || missing="$missing build-essential"
"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -e "$header" ] || missing="$missing python3-dev"
[ -e /usr/include/gmp.h ] || [ -e /usr/include/x86_64-linux-gnu/gmp.h ] || missing="$missing libgmp-dev"
[ -z "$missing" ] || fail "the system lacks$missing: sudo apt-get install$missing"

locks="requirements/dev.lock requirements/engine.lock"
stamp=.venv/.locked
fresh=
if ! cat $locks pyproject.toml | cmp -s - "$stamp" 2>/dev/null; then
    [ -x .venv/bin/python ] || { say "making a virtual environment in .venv"; "$python" -m venv .venv; }
    fresh=1
    say "installing $(cat $locks | grep -c '==') locked Python packages (about 700 MB, 1-3 minutes)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.lock
    VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip sync -q --compile-bytecode --require-hashes $locks requirements/uv.lock
    VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install -q --no-deps --no-build-isolation -e .
    cat $locks pyproject.toml > "$stamp"
fi
if ! cmp -s package-lock.json node_modules/.locked 2>/dev/null; then
    fresh=1
    say "installing the locked npm packages: compiler and development chain (about 250 MB)"
    tools/npm ci --silent --no-progress
    cp package-lock.json node_modules/.locked
fi
[ -z "$fresh" ] || say "ready: $(du -shc .venv node_modules | tail -n 1 | cut -f 1) on disk"
