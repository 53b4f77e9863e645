#!/bin/sh
# Prints a folder in which node finds the packages of web/package.json: build/node, filled once.
set -eu
cd "$(dirname "$0")/.."
folder=$PWD/build/node
list=web/package.json
if [ -e "$folder/complete" ] && cmp -s "$list" "$folder/package.json"; then
    echo "$folder"
    exit 0
fi
command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || {
    echo "node and npm are missing" >&2
    exit 1
}
if [ "${DIBIT_NO_INSTALL:-0}" = 1 ]; then
    echo "missing: the packages of $list" >&2
    exit 1
fi
echo "installing into build/node with npm: the packages of $list" >&2
rm -rf "$folder"
mkdir -p "$folder"
cp "$list" "$folder/"
npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error >&2
touch "$folder/complete"
echo "$folder"
