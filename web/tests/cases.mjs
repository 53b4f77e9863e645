// A reference model of tests/data/cases on an engine, judged as `dibit check` does: the bounds come from runs
// with noise on the CPU.
import {existsSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {cases} from './support.mjs';
import {difference, movement, readTensor} from './tensors.mjs';

const NOISE_RUNS = 6; // as cli/check.c

/** Folders of cases: the repository's, and with DIBIT_ORACLE the reference models beside them. */
export const caseFolders = [cases, process.env.DIBIT_ORACLE && join(process.env.DIBIT_ORACLE, 'cases')].filter(Boolean)
    .flatMap(folder => readdirSync(folder).sort().map(name => join(folder, name)))
    .filter(folder => existsSync(join(folder, 'model.onnx')));

/** Cases of one operator, which has few shaders to compile. */
export const isSmall = folder => !/\.(q2|int4\w*|fp32|q4|q8)(\.float)?$|\/x_/.test(folder);

/** Cases of operators without a GPU side. */
export const isOfCpu = folder => /\/(gqa_scores|qmoe_\w+|quantize_axis)$/.test(folder);

/** So many of a list, always the same for a seed. */
export function share(list, n, seed) {
    const left = [...list], taken = [];
    for (let state = seed; taken.length < n && left.length > 0;) {
        state = Math.imul(state, 1664525) + 1013904223 >>> 0;
        taken.push(...left.splice((state >>> 8) % left.length, 1));
    }
    return taken;
}

function readSet(folder) {
    const read = side => {
        const all = [];
        while (existsSync(join(folder, `${side}_${all.length}.pb`))) {
            all.push(readTensor(join(folder, `${side}_${all.length}.pb`)));
        }
        return all;
    };
    return {inputs: read('input'), expected: read('output')};
}

/** Inputs without a name are the model's, in order. */
function named(tensors, infos) {
    return Object.fromEntries(tensors.map((t, i) => [t.name || infos[i].name, t]));
}

async function answers(model, sets, options, look = () => {}) {
    const session = await model.createSession(options);
    const all = [];
    await look(session);
    for (const set of sets) {
        all.push(await session.run({
            inputs: named(set.inputs, model.inputs), outputs: Object.keys(named(set.expected, model.outputs)),
        }));
    }
    await session.dispose();
    return all;
}

/** What is wrong, a line a set; cpu is an engine on the CPU. */
export async function checkCase(folder, engine, cpu, options = {}) {
    const sets = readdirSync(folder).filter(name => name.startsWith('test_data_set_')).sort()
        .map(name => ({name, ...readSet(join(folder, name))}));
    const file = join(folder, 'model.onnx');
    const model = await engine.loadModel(file);
    const wrong = [];
    const got = await answers(model, sets, options, async session => {
        if (engine.device !== 'webgpu') return;
        if (!(await session.steps()).some(step => step.device === 'webgpu')) wrong.push('nothing of it runs on the GPU');
    });
    const dropped = engine.device === 'webgpu' ? await engine.droppedKernels : 0;
    if (dropped) wrong.push(`kernels that failed their proof: ${dropped}`);
    const onCpu = engine === cpu ? undefined : await cpu.loadModel(file);
    const still = onCpu ? await answers(onCpu, sets, options) : got;
    const noisy = [];
    for (let seed = 1; seed <= NOISE_RUNS; seed++) {
        noisy.push(await answers(onCpu ?? model, sets, {...options, noiseSeed: BigInt(seed)}));
    }
    await model.dispose();
    onCpu?.dispose();
    sets.forEach((set, i) => {
        for (const [name, expected] of Object.entries(named(set.expected, model.outputs))) {
            const spread = Math.max(...noisy.map(run => movement(still[i][name], run[i][name])));
            if (!Number.isFinite(spread)) wrong.push(`${set.name}: '${name}': no bound: a run with noise was lost`);
            const what = difference(expected, got[i][name], spread);
            if (what) wrong.push(`${set.name}: '${name}': ${what}`);
        }
    });
    if (sets.length === 0) wrong.push('there are no sets');
    return wrong;
}
