#!/bin/sh
# Prints the folder of a python3 that has the packages of tests/requirements.txt: the system's when it
# has them, else a virtual environment in build/venv, made once.
set -eu
cd "$(dirname "$0")/.."
if python3 -c 'import onnx, numpy' 2>/dev/null; then
    dirname "$(command -v python3)"
    exit 0
fi
venv=$PWD/build/venv
if [ ! -e "$venv/complete" ]; then
    if [ "${DIBIT_NO_INSTALL:-0}" = 1 ]; then
        echo "missing (Python): $(grep -v '^#' tests/requirements.txt | tr '\n' ' ')" >&2
        exit 1
    fi
    echo "installing into build/venv with pip: $(grep -v '^#' tests/requirements.txt | tr '\n' ' ')" >&2
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt >&2
    touch "$venv/complete"
fi
echo "$venv/bin"
