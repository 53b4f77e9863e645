"""The programs that bench.py measures: started once for a model, asked line by line, and stopped (SIGSTOP) while
another one is measured, so that nobody's idle threads take anybody's time.
"""
import json
import os
import select
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PROMPT = "The capital of France is"  # 5 tokens


class Refused(Exception):
    """It cannot do that; the sentence says why."""


class Tools:
    """Where the programs are."""

    def __init__(self, build, packages):
        self.dibit, self.chain, self.packages = f"{build}/dibit", f"{build}/bench/bench_model", packages

    def command(self, worker):
        program, folder, threads = worker
        ort = [sys.executable, f"{HERE}/ort.py"]
        llama = ["node", f"{HERE}/llama_cpp.mjs", self.packages]
        return {
            "dibit-lm": [self.dibit, "bench", folder, "--serve", "--threads", threads],
            "dibit-rows": [self.chain, f"{folder}/model.onnx", threads, "auto"],
            "dibit-rows-int8": [self.chain, f"{folder}/model.onnx", threads, "int8"],
            "ort-lm": [*ort, "lm", folder, threads],
            "ort-rows": [*ort, "rows", folder, threads],
            "llama": [*llama, "lm", f"{folder}/model.gguf", threads, 512],
            "llama-long": [*llama, "lm", f"{folder}/model.gguf", threads, 8192],
            "start-dibit-lm": [self.dibit, "run", folder, "--raw", "-p", PROMPT, "-n", 1, "--greedy", "--no-stats", "--threads", threads],
            "start-ort-lm": [*ort, "start", folder, threads],
            "start-llama": [*llama, "start", f"{folder}/model.gguf", threads, 64],
            "profile": [self.dibit, "bench", folder, "--profile", "--json", "--repetitions", 1, "--threads", threads],
            "limits": [self.dibit, "bench-op", "limits", "--json", "--threads", threads],
        }[program]

    def has(self, worker):
        return self.packages or "llama" not in worker.program


class Served:
    """A program that stays and answers lines."""

    def __init__(self, command, log):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.read(120)
        self.stop()

    def read(self, seconds):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.close()
            raise Refused(f"no answer in {seconds} seconds")
        line = self.process.stdout.readline().strip()
        if not line:
            code = self.process.wait()
            raise Refused(f"it ended with signal {-code}" if code < 0 else f"it ended with code {code}")
        if line.startswith("error"):
            self.close()
            raise Refused(line)
        return line

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, line):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = float(self.read(300))
        self.stop()
        return answer

    def close(self):
        self.process.kill()
        self.process.wait()


def drop_from_memory(folder):
    """The folder's files from the page cache, as far as the system lets anybody do that."""
    for name in os.listdir(folder):
        file = os.open(f"{folder}/{name}", os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


class Workers:
    def __init__(self, tools, make, log):
        self.tools, self.make, self.log, self.served = tools, make, log, {}

    def ask(self, worker, line):
        if not self.tools.has(worker):
            raise Refused("it is not installed")
        if worker.folder in self.make:
            self.make.pop(worker.folder)()
        command = self.tools.command(worker)
        if worker.program.startswith("start-"):
            return self.start(worker, command, line == "cold")
        if worker.program in ("profile", "limits"):
            if line:
                command += ["--prompt-tokens", line.split()[0], "--gen-tokens", line.split()[1]]
            return json.loads(subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True).stdout)
        if worker not in self.served:
            self.served[worker] = Served(command, self.log)
        try:
            return self.served[worker].ask(line)
        except (Refused, BrokenPipeError) as e:
            del self.served[worker]
            raise Refused(str(e))

    def fresh_memory(self, worker):
        """The peak of a program that has done nothing but load and decode."""
        self.close(keep=())
        self.ask(worker, "decode 256 32")
        return self.ask(worker, "memory")

    def start(self, worker, command, cold):
        """Seconds until the first token. Ours is asked with its tokenizer and from the outside; peers say it
        themselves, without their language's own start and with tokens for a prompt."""
        if cold:
            drop_from_memory(worker.folder)
        begin = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=self.log)
        first = process.stdout.read(1)
        took = time.perf_counter() - begin
        rest = process.stdout.read()
        if process.wait() != 0 or not first:
            raise Refused("it ended without a token")
        return took if worker.program == "start-dibit-lm" else float(first + rest)

    def close(self, keep):
        for worker in [w for w in self.served if w not in keep]:
            self.served.pop(worker).close()
