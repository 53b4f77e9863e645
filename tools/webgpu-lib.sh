#!/bin/sh
# Prints the path of a WebGPU library, build/webgpu/libwgpu_native.so, with webgpu.h and wgpu.h beside it:
# wgpu-native as PyPI's package wgpu brings it, fetched once.
set -eu
cd "$(dirname "$0")/.."
package=wgpu==0.32.0
folder=$PWD/build/webgpu
library=$folder/libwgpu_native.so
if [ -e "$library" ] && [ "$(cat "$folder/package" 2>/dev/null)" = "$package" ]; then
    echo "$library"
    exit 0
fi
if [ "${DIBIT_NO_INSTALL:-0}" = 1 ]; then
    echo "missing: build/webgpu, from the Python package $package" >&2
    exit 1
fi
echo "fetching into build/webgpu with pip: $package" >&2
rm -rf "$folder"
mkdir -p "$folder"
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$folder/venv" >&2
    python=$folder/venv/bin/python
fi
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$folder" "$package" >&2
python3 -m zipfile -e "$folder"/wgpu-*.whl "$folder/wheel"
mv "$folder/wheel/wgpu/resources/webgpu.h" "$folder/wheel/wgpu/resources/wgpu.h" "$folder/"
mv "$folder"/wheel/wgpu/resources/libwgpu_native* "$library"
rm -rf "$folder/wheel" "$folder/venv" "$folder"/wgpu-*.whl
echo "$package" > "$folder/package"
echo "$library"
