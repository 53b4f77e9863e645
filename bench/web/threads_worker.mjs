// One of two workers of threads.mjs, in a page or in Node: runs what it is told to, and says what a run took.
const port = globalThis.postMessage ? globalThis : (await import('node:worker_threads')).parentPort;
const JOB = 0, DONE = 1, MET = 2, ROUND = 3; /* in the shared words */
const LOOKS = 20000;
/* Else a worker's turns between two polls wait until a thread of the browser's gets one of the cores, which are all at work. */
if (!globalThis.setImmediate) globalThis.setImmediate = queueMicrotask;
const sessions = {};
let words, lm;

/* Until a word is another one: after so many looks it waits. */
function change(word, seen, looks) {
    for (let i = 0; i < looks; i++) {
        if (Atomics.load(words, word) !== seen) return;
    }
    Atomics.wait(words, word, seen);
}

/* Until the other worker has come this far, too. */
function meet() {
    const seen = Atomics.load(words, ROUND);
    if (Atomics.add(words, MET, 1) & 1) {
        Atomics.add(words, ROUND, 1);
        Atomics.notify(words, ROUND);
    } else {
        change(ROUND, seen, LOOKS);
    }
}

const calls = {
    /* Models by name; the language model's folder. */
    async open({shared, scripts, models, folder}) {
        words = new Int32Array(shared);
        const {Engine} = await import(scripts.engine), {load} = await import(scripts.lm);
        const engine = await Engine.create({device: 'wasm'});
        for (const [name, file] of Object.entries(models)) {
            const model = await engine.loadModel(file);
            sessions[name] = {model, session: await model.createSession({activations: 'int8'})};
        }
        lm = await load(folder, {device: 'wasm', worker: false, cache: false});
        return engine.deviceName;
    },
    /* Milliseconds of each run. */
    async run({name, M, runs, together}) {
        const {model, session} = sessions[name], inputs = {}, times = [];
        for (const {name, dims} of model.inputs) {
            inputs[name] = {type: 'float', dims: [M, dims[1]], data: Float32Array.from({length: M * dims[1]}, (_, i) => Math.sin(i))};
        }
        for (let i = 0; i < runs; i++) {
            if (together) meet();
            const start = performance.now();
            await session.run({inputs});
            times.push(performance.now() - start);
        }
        return times;
    },
    /* Tokens/s of a text. */
    async write({tokens, together}) {
        if (together) meet();
        const generation = lm.complete('Once upon a time', {maxTokens: tokens, temperature: 0});
        await generation.text();
        return generation.info.tokensPerSecond;
    },
    /* Microseconds of handing over a job of no work and having it back, after so many looks at the other's word a wait. */
    hand({jobs, looks}) {
        const before = Atomics.load(words, DONE), start = performance.now();
        for (let job = before + 1; job <= before + jobs; job++) {
            Atomics.store(words, JOB, job);
            Atomics.notify(words, JOB);
            change(DONE, job - 1, looks);
        }
        return 1000 * (performance.now() - start) / jobs;
    },
    take({jobs, looks}) {
        const before = Atomics.load(words, DONE);
        for (let job = before + 1; job <= before + jobs; job++) {
            change(JOB, job - 1, looks);
            Atomics.store(words, DONE, job);
            Atomics.notify(words, DONE);
        }
    },
};

async function answer({id, call, options}) {
    try {
        port.postMessage({id, value: await calls[call](options)});
    } catch (e) {
        port.postMessage({id, error: e.stack});
    }
}
if (port.on) port.on('message', answer);
else port.addEventListener('message', ({data}) => answer(data));
