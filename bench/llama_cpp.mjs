/* A peer of bench.py: llama.cpp on the CPU, as the npm package node-llama-cpp ships it: its build for this very
 * kind of processor. Prints "ready", then answers lines of standard input with a number, like `dibit bench --serve`;
 * it has no logits of all rows.
 *
 * usage: node llama_cpp.mjs PACKAGES lm|start MODEL.gguf THREADS CONTEXT     PACKAGES: a folder with node_modules
 * start: no lines: seconds from before the model is loaded to the first token after 5; the package takes long to start */
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import readline from "node:readline";

const [packages, mode, modelPath, threads, size] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(createRequire(`${packages}/`).resolve("node-llama-cpp")));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: +threads});
const begin = performance.now();
const model = await llama.loadModel({modelPath, useMmap: true});
const context = await model.createContext({contextSize: +size, batchSize: 512, threads: +threads, sequences: 1});
const sequence = context.getSequence();
const vocabulary = 49000;
const prompt = (n) => Array.from({length: n}, (_, i) => Number(BigInt(i) * 2654435761n % (1n << 32n)) % vocabulary + 3);

/** Seconds of n greedy tokens, the first of which comes after `tokens`. */
async function generate(tokens, n) {
    const start = performance.now();
    let first;
    for await (const _ of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
        first ??= performance.now();
        if (n-- === 1) break;
    }
    return {first: (first - start) / 1e3, rest: (performance.now() - first) / 1e3};
}
const cutTo = (length) => sequence.eraseContextTokenRanges([{start: length, end: sequence.nextTokenIndex}]);

async function answer(what, a, b) {
    if (what === "memory")
        return 1024 * +/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1];
    if (what === "prefill" && b === "last") {
        await sequence.clearHistory();
        return (await generate(prompt(+a), 1)).first;
    }
    if (what === "decode") {
        if (sequence.nextTokenIndex > +a) await cutTo(+a);
        const length = sequence.nextTokenIndex;
        if (length < +a) await sequence.evaluateWithoutGeneratingNewTokens(prompt(+a).slice(length));
        return (await generate([5], +b + 1)).rest;
    }
    return "error it cannot measure that";
}

if (mode === "start") {
    await generate(prompt(5), 1);
    console.log((performance.now() - begin) / 1e3);
} else {
    console.log("ready");
    for await (const line of readline.createInterface({input: process.stdin}))
        console.log(String(await answer(...line.trim().split(" "))));
}
process.exit(0);
