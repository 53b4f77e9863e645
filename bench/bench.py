"""Dibit beside its peers on the CPU: ONNX Runtime (PyPI's onnxruntime) and llama.cpp (npm's node-llama-cpp). usage:

    bench.py [--only ops,models,...] [--quick] [--budget SECONDS] [--threads 2] [--json FILE] [--markdown FILE]

All who answer a case take turns in every round, in another order each time; what counts is the ratio of each round, and
the median of those. Results are written to the JSON file after every case, and a case that stands there for this
build is not measured again: so parts can be run one by one, and --budget ends after the case that is under way then.
Says "complete" and ends with code 0 when nothing is left, else with 3. Parts: see cases.py.
"""
import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time

import cases
import report
from workers import ROOT, Refused, Tools, Workers


def machine():
    name = platform.processor() or platform.machine()
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores"


def versions(packages):
    import onnxruntime
    found = {"onnxruntime": onnxruntime.__version__}
    if packages:
        at = f"{packages}/node_modules"
        found["node-llama-cpp"] = json.load(open(f"{at}/node-llama-cpp/package.json"))["version"]
        found["llama.cpp"] = json.load(open(f"{at}/@node-llama-cpp/linux-x64/bins/linux-x64/_nlcBuildMetadata.json"))[
            "buildOptions"]["llamaCpp"]["release"]
    return found


def value_of(workers, task):
    if task.line == "memory":
        return workers.fresh_memory(task.worker) * task.scale
    answer = workers.ask(task.worker, task.line)
    if isinstance(answer, (dict, list)):
        return answer
    return task.per / answer if task.per else answer * task.scale


def measure(workers, case):
    """Values by engine, one a round; null where it refuses, with the reason."""
    workers.close(keep={t.worker for t in case.tasks.values()})
    values, refusals, engines = {e: [] for e in case.tasks}, {}, list(case.tasks)
    once = case.unit in ("MB", "limits")
    for r in range(0 if once or case.unit == "profile" else -1, case.rounds):  # the first warms up
        for i in range(len(engines)):
            e = engines[(i + max(r, 0)) % len(engines)]
            if e in refusals:
                continue
            try:
                got = value_of(workers, case.tasks[e])
            except Refused as reason:
                refusals[e] = str(reason)
                continue
            if r >= 0:
                values[e].append(got)
    return {"part": case.part, "title": case.title, "unit": case.unit, "rounds": case.rounds, "work": case.work,
            "values": {e: v for e, v in values.items() if e not in refusals}, "refusals": refusals}


def load(path, head):
    """What was measured before, unless it was something else."""
    try:
        with open(path) as f:
            data = json.load(f)
    except FileNotFoundError:
        return {**head, "cases": {}}
    same = all(data.get(k) == head[k] for k in ("machine", "threads", "versions"))
    return {**head, "cases": data["cases"] if same else {}}


def save(path, data):
    with open(path + ".new", "w") as f:
        json.dump(data, f, indent=1)
    os.replace(path + ".new", path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(cases.PARTS), help="parts, of " + ",".join(cases.PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer cases, 3 rounds, and no model above 135 M weights")
    parser.add_argument("--budget", type=float, default=1e9, help="start no case after so many seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="only write the models, which takes a minute")
    parser.add_argument("--again", action="store_true", help="measure also what stands in the JSON file")
    parser.add_argument("--build", default=f"{ROOT}/build/release")
    parser.add_argument("--work", default=f"{ROOT}/build/bench", help="where models lie (5 GB)")
    parser.add_argument("--packages", default="", help="a folder with node_modules/node-llama-cpp; none: no llama.cpp")
    parser.add_argument("--json")
    parser.add_argument("--markdown", help="write the tables there, and plots beside it")
    args = parser.parse_args()
    args.only = args.only.split(",")
    for part in args.only:
        if part not in cases.PARTS:
            parser.error(f"there is no part '{part}'")
    if args.quick:
        args.only = [p for p in args.only if p not in ("size", "bandwidth")]
    args.json = args.json or f"{ROOT}/build/bench{'-quick' if args.quick else ''}.json"
    return args


def main():
    args = arguments()
    begin = time.monotonic()
    os.makedirs(args.work, exist_ok=True)
    head = {"machine": machine(), "threads": args.threads, "versions": versions(args.packages)}
    data = load(args.json, head)
    build = hashlib.sha256(open(f"{args.build}/dibit", "rb").read()).hexdigest()[:12]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    todo, make = cases.make(args.work, args.threads, args.quick, args.only)
    if args.prepare:
        for write in make.values():
            write()
        return
    if not args.again:
        todo = [c for c in todo if data["cases"].get(c.key, {}).get("build") != build]
    with open(f"{args.work}/log", "a") as log:
        workers = Workers(Tools(args.build, args.packages), make, log)
        try:
            while todo and time.monotonic() - begin < args.budget:
                case, start = todo.pop(0), time.monotonic()
                got = measure(workers, case)
                data["cases"][case.key] = {**got, "build": build, "commit": commit}
                save(args.json, data)
                print(f"{time.monotonic() - begin:6.1f} s  {report.line(case.key, got)}  ({time.monotonic() - start:.1f} s)", file=sys.stderr)
        finally:
            workers.close(keep=())
    print("complete" if not todo else f"{len(todo)} cases are left: call again", file=sys.stderr)
    if args.markdown:
        report.write(data, args.markdown)
    sys.exit(3 if todo else 0)


if __name__ == "__main__":
    main()
