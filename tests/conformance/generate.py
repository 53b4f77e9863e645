#!/usr/bin/env python3
"""Writes ONNX's own node tests, as the installed onnx package has them: FOLDER/node/<case>. The
package's command-line tool does the writing; newer versions of it leave out the node tests, so they are
handed to it here. Cases of opsets that Dibit does not have yet are written for its newest one where ONNX's
checker says that they are valid there. usage: generate.py FOLDER"""
import argparse
import inspect
import os
import sys
import warnings

import onnx
import onnx.backend.test.case.model as model
import onnx.backend.test.case.node as node
from onnx.backend.test import cmd_tools

NEWEST_OPSET, NEWEST_IR = 25, 13


def lowered(m):
    old = onnx.ModelProto()
    old.CopyFrom(m)
    old.ir_version = min(old.ir_version, NEWEST_IR)
    for opset in old.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, NEWEST_OPSET)
    try:
        onnx.checker.check_model(old, full_check=True)
    except Exception:
        return m
    return old


warnings.simplefilter("ignore")
takes_op = bool(inspect.signature(node.collect_testcases).parameters)
cases = node.collect_testcases(None) if takes_op else node.collect_testcases()
for case in cases:
    case.model = lowered(case.model)
model.collect_testcases = lambda: cases
node.collect_testcases = lambda op=None: []
os.makedirs(os.path.join(sys.argv[1], "node"), exist_ok=True)
cmd_tools.generate_data(argparse.Namespace(output=sys.argv[1], clean=False, diff=False, op_type=None))
