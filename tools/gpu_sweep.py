#!/usr/bin/env python3
"""Times every device kernel of MatMulNBits that fits, over rows of A and sizes, and says which is fastest where:
what the bounds in src/ops/matmul_nbits/gpu_kernels.inc come from.

usage: gpu_sweep.py DIBIT OUT.json [--bits 2,4] [--sizes 4096x4096,1536x576,576x1536,49152x576] [--activations float,int8]
"""
import argparse
import json
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dibit")
    parser.add_argument("out")
    parser.add_argument("--bits", default="2,4")
    parser.add_argument("--sizes", default="4096x4096,1536x576,576x1536,49152x576", help="NxK")
    parser.add_argument("--activations", default="float,int8")
    parser.add_argument("--m", help="one M instead of 16")
    options = parser.parse_args()
    rows = []
    for size in options.sizes.split(","):
        n, k = size.split("x")
        for bits in options.bits.split(","):
            for activations in options.activations.split(","):
                command = [options.dibit, "bench-op", "matmul_nbits", "--device", "webgpu", "--all", "--json",
                           "--n", n, "--k", k, "--bits", bits, "--activations", activations]
                if options.m:
                    command += ["--m", options.m]
                got = subprocess.run(command, capture_output=True, text=True)
                if got.returncode != 0:
                    sys.exit(got.stderr.strip())
                rows += json.loads(got.stdout)
                with open(options.out, "w") as file:
                    json.dump(rows, file, indent=1)
    print("fastest by the device's own time, us a layer; * is what is chosen")
    problems = {}
    for row in rows:
        key = (row["n"], row["k"], row["bits"], row["activations"], row["m"])
        problems.setdefault(key, []).append(row)
    for (n, k, bits, activations, m), found in problems.items():
        found.sort(key=lambda row: row["us_busy"] or row["us"])
        shown = [row for i, row in enumerate(found) if i < 3 or row["chosen"]]
        text = "  ".join(f"{row['kernel']}{'*' if row['chosen'] else ''} {row['us_busy'] or row['us']:.1f}"
                         for row in shown)
        print(f"{n}x{k} {bits} bits {activations:5} M {m:4}: {text}")


main()
