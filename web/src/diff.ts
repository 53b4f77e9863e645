/* `dibit diff` where the package runs: the first node of a model that this GPU computes otherwise than the CPU. */
import {checkCount, describe, finite, withModel} from './debug.js';
import {writeInputs} from './tensor.js';
import {ACTIVATIONS, DibitError, OK, Pointer, Scope, Wasm} from './wasm.js';

import type {DebugModel, ModelOptions, Place} from './debug.js';
import type {Engine, Model} from './engine.js';

export interface DiffProgress {
    /** The model's files come, or devices are compared. */
    stage: 'model' | 'compare';
    /** Bytes of the model; parts of the work. */
    done: number;
    total: number;
}

export interface DiffOptions extends ModelOptions {
    /** And the step after the prompt, with the CPU's past; not with `input`. */
    decode?: boolean;
    onProgress?: (progress: DiffProgress) => void;
}

/** How one value that a node makes compares. Numbers are null where they are not finite. */
export interface DiffMeasure {
    /** The value's name in the model. */
    value: string;
    wrong: boolean;
    /** The element farthest beyond its bound, and both answers for it. */
    index: number[];
    got: string;
    expected: string;
    off: number | null;
    allowed: number | null;
    /** Over all elements: the largest difference, and the largest share of a bound (1: all of it). */
    largest: number | null;
    used: number | null;
    wrongElements: number;
    elements: number;
    /** Of another kind: another shape, a node that fails; ''. */
    problem: string;
}

export interface DiffNode {
    name: string;
    op: string;
    /** '' is ai.onnx. */
    domain: string;
    /** Of quantized ops: "2 bits, block 32, ..."; ''. */
    config: string;
    /** What runs it; fused: as a part of another node's step. */
    place: 'device' | 'fused' | 'cpu';
    /** The node by itself, given what the CPU computed up to there; null: not compared, see notAlone. */
    alone: DiffMeasure | null;
    /** The node in the whole model, given what the device computed; null: not compared. */
    chain: DiffMeasure | null;
    notAlone: string;
}

export interface DiffFirst {
    pass: 'prompt' | 'step';
    /** Its index among the nodes. */
    node: number;
    name: string;
    op: string;
    /** Wrong by itself; else only in the chain, and no node is wrong by itself. */
    alone: boolean;
    /** The node with its attributes, inputs and outputs, as the engine writes it. */
    text: string;
}

export interface DiffPass {
    name: 'prompt' | 'step';
    nodes: DiffNode[];
}

export interface DiffReport extends Place {
    kind: 'diff';
    /** Of all passes: nodes, those on the device, those of them that were compared by themselves. */
    nodes: number;
    onDevice: number;
    alone: number;
    /** The first node that is wrong, of the first pass where one is; null: all are within their bounds. */
    first: DiffFirst | null;
    passes: DiffPass[];
}

/** Runs a model on the GPU and on the CPU and compares every value of its graph: each node by itself, and the whole
 * chain. What it takes of memory is the model three times on the CPU and once on the GPU; of time, a dozen prompts
 * on the CPU. Everything is done when it has resolved, whether nodes are right or not: look at `first`. */
export async function diff(model: DebugModel, options: DiffOptions = {}): Promise<DiffReport> {
    const began = performance.now(), {onProgress} = options;
    return withModel(model, options, (done, total) => onProgress?.({stage: 'model', done, total}),
                     (engine, loaded) => engine.core.loads.run(() => compare(engine, loaded, options, began)));
}

async function compare(engine: Engine, model: Model, options: DiffOptions, began: number): Promise<DiffReport> {
    const {wasm, device, sources} = engine.core, {onProgress, signal} = options;
    if (engine.device === 'wasm') {
        throw new DibitError('DEVICE_UNAVAILABLE', `there is no GPU to compare with the CPU${engine.why && `: ${engine.why}`}`);
    }
    using scope = new Scope(wasm);
    const cpu = scope.zeros(4), handle = scope.zeros(4);
    try {
        wasm.try('dibit_device_create', scope.struct('dibit_device_desc', {n_threads: 1}), cpu);
        const desc = scope.struct('dibit_diff_desc', {
            device, cpu: wasm.view.getUint32(cpu, true), activations: ACTIVATIONS[options.activations ?? 'auto'],
            no_fusion: !!options.noFusion, no_proof: !!options.noProof, decode: !!options.decode,
            tokens: checkCount('tokens', options.tokens ?? 5, 4096), seed: BigInt(options.seed ?? 1),
            ...(options.input && writeInputs(scope, options.input)),
        });
        wasm.try('dibit_diff_begin', model.pointer, desc, handle);
        const comparison = wasm.view.getUint32(handle, true), info = scope.struct('dibit_diff_info');
        const tell = () => {
            wasm.call('dibit_diff_get_info', comparison, info);
            const get = (field: string) => wasm.get('dibit_diff_info', info, field);
            onProgress!({stage: 'compare', done: get('done'), total: get('total')});
        };
        await wasm.finish({signal, tell: onProgress && tell}, 'dibit_diff_poll', comparison);
        const passes = readPasses(wasm, comparison), nodes = passes.flatMap(pass => pass.nodes);
        return {
            kind: 'diff', ...describe(engine, began), nodes: nodes.length,
            onDevice: nodes.filter(node => node.place !== 'cpu').length,
            alone: nodes.filter(node => node.alone).length,
            first: readFirst(wasm, model, comparison, passes), passes,
        };
    } finally {
        wasm.call('dibit_diff_destroy', handle);
        wasm.call('dibit_device_destroy', cpu);
        sources.rest();
    }
}

const PASSES = ['prompt', 'step'] as const;

function readPasses(wasm: Wasm, comparison: Pointer): DiffPass[] {
    using scope = new Scope(wasm);
    const info = scope.struct('dibit_diff_pass_info'), passes: DiffPass[] = [];
    while (wasm.call('dibit_diff_pass', comparison, passes.length, info) === OK) {
        const nodes: DiffNode[] = [];
        for (let at; (at = wasm.call('dibit_diff_node', comparison, passes.length, nodes.length)) !== 0;) {
            nodes.push(readNode(wasm, at));
        }
        passes.push({name: PASSES[passes.length], nodes});
    }
    return passes;
}

function readNode(wasm: Wasm, at: Pointer): DiffNode {
    const part = (field: string) => at + wasm.offset(`dibit_diff_node_info.${field}`), node = part('node');
    const text = (field: string) => wasm.string(wasm.get('dibit_node_info', node, field));
    const is = (field: string) => wasm.get('dibit_diff_node_info', at, field) !== 0;
    return {
        name: text('name'), op: text('op'), domain: text('domain'),
        config: wasm.string(node + wasm.offset('dibit_node_info.config')),
        place: is('fused') ? 'fused' : is('on_device') ? 'device' : 'cpu',
        alone: readMeasure(wasm, part('alone')), chain: readMeasure(wasm, part('chain')),
        notAlone: wasm.string(part('not_alone')),
    };
}

function readMeasure(wasm: Wasm, at: Pointer): DiffMeasure | null {
    const get = (field: string) => wasm.get('dibit_diff_measure', at, field);
    const text = (field: string) => wasm.string(at + wasm.offset(`dibit_diff_measure.${field}`));
    if (get('value') === 0) return null;
    return {
        value: wasm.string(get('value')), wrong: get('wrong') !== 0, index: JSON.parse(text('index') || '[]'),
        got: text('got'), expected: text('expected'), off: finite(get('off')), allowed: finite(get('allowed')),
        largest: finite(get('largest')), used: finite(get('used')), wrongElements: get('n_wrong'),
        elements: get('n_elements'), problem: text('problem'),
    };
}

function readFirst(wasm: Wasm, model: Model, comparison: Pointer, passes: DiffPass[]): DiffFirst | null {
    using scope = new Scope(wasm);
    const info = scope.struct('dibit_diff_pass_info'), room = 8192, to = scope.alloc(room);
    for (const [i, pass] of passes.entries()) {
        wasm.call('dibit_diff_pass', comparison, i, info);
        const node = wasm.get('dibit_diff_pass_info', info, 'first') | 0;
        if (node < 0) continue;
        const bytes = wasm.call('dibit_web_dump_node', model.pointer, node, to, room), {name, op} = pass.nodes[node];
        return {
            pass: pass.name, node, name, op, text: wasm.text(to, bytes).trimEnd(),
            alone: wasm.get('dibit_diff_pass_info', info, 'first_alone') !== 0,
        };
    }
    return null;
}
