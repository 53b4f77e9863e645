#!/usr/bin/env python3
"""Random MatMulNBits nodes against ONNX Runtime, at rounding's bounds:

    tools/nbits_sweep.py build/release/dibit 200 [SEED]

Writes the cases with ONNX Runtime's outputs to a temporary folder (as op_cases.py does), runs
`dibit check` on them and ends with its exit code. Draws bits 2, 4, 8, every block from 16 to 256, all
kinds of zero points, accuracy levels 0 and 4, biases, float16, and K that is no multiple of the block.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import op_cases


def draw(random):
    bits, block = int(random.choice([2, 4, 8])), 16 << int(random.integers(0, 5))
    kinds = [None, "packed"] + (["float"] if bits == 4 else [])  # elsewhere it refuses float ones
    level = int(random.choice([0, 4]))
    return dict(bits=bits, block=block, m=int(random.choice([1, 2, 3, 7, 20])),
                n=int(random.integers(1, 70)), k=int(random.integers(1, 40)) * 16,
                zero_points=kinds[int(random.integers(0, len(kinds)))], level=level,
                bias=bool(random.integers(0, 2)), half=bool(level == 0 and random.integers(0, 4) == 0))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    random = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    op_cases.random = random
    with tempfile.TemporaryDirectory() as folder:
        for i in range(int(sys.argv[2])):
            drawn = draw(random)
            name = "_".join(f"{key}{value}" for key, value in drawn.items())
            try:
                op_cases.write_case(os.path.join(folder, f"{i:04}_{name}"), op_cases.nbits(**drawn))
            except Exception as error:  # a node that ONNX Runtime itself refuses
                print(f"ONNX Runtime refuses {name}: {str(error)[:120]}")
        sys.exit(subprocess.run([sys.argv[1], "check", folder]).returncode)


if __name__ == "__main__":
    main()
