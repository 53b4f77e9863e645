/* Element types under onnxruntime's names. */
import {Tensor} from 'onnxruntime-common';

import {DibitError} from './wasm.js';

import type {Tensor as EngineTensor} from './engine.js';

/* The ones that are called otherwise than in the engine. */
const RENAMED: Record<string, string> = {float: 'float32', double: 'float64'};
const BACK = Object.fromEntries(Object.entries(RENAMED).map(([ours, theirs]) => [theirs, ours]));
const KNOWN = new Set([
    'float32', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool', 'float16', 'float64',
    'uint32', 'uint64', 'uint4', 'int4',
]);

export function ortType(type: string, what: string): Tensor.Type {
    const name = RENAMED[type] ?? type;
    if (!KNOWN.has(name)) {
        throw new DibitError('UNSUPPORTED', `${what} is of type ${type}, which onnxruntime's tensors do not have`);
    }
    return name as Tensor.Type;
}

export function engineType(type: string): string {
    return BACK[type] ?? type;
}

export function ortTensor(t: EngineTensor, what: string): Tensor {
    const Any = Tensor as unknown as new (type: string, data: unknown, dims: readonly number[]) => Tensor;
    return new Any(ortType(t.type, what), t.data, t.dims);
}
