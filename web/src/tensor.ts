/* Tensors between JavaScript and the engine's memory. */
import {DibitError, Pointer, Scope, Wasm} from './wasm.js';

type Elements = Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array |
    Uint32Array | BigInt64Array | BigUint64Array;

/** Dense and row-major. float16 and bfloat16 are the bits in a Uint16Array, bool bytes of 0 and 1; elements of
 * less than a byte are packed, low bits first. */
export interface Tensor {
    type: string;
    dims: readonly number[];
    data: Elements;
}

/** An input or output of a model. */
export interface ValueInfo {
    name: string;
    type: string;
    /** null: not even how many there are is known. A name stands for any number, '' for one without name. */
    dims: (number | string)[] | null;
}

interface Type {
    name: string;
    make: {new (buffer: ArrayBuffer): Elements; BYTES_PER_ELEMENT: number} | null;
    bits: number;
}

/* By the values of ONNX's TensorProto.DataType, under the names of dibit_type_name. */
const TYPES: (Type | null)[] = [
    null, type('float', Float32Array), type('uint8', Uint8Array), type('int8', Int8Array),
    type('uint16', Uint16Array), type('int16', Int16Array), type('int32', Int32Array), type('int64', BigInt64Array),
    type('string', null), type('bool', Uint8Array), type('float16', Uint16Array), type('double', Float64Array),
    type('uint32', Uint32Array), type('uint64', BigUint64Array), type('complex64', null), type('complex128', null),
    type('bfloat16', Uint16Array), type('float8e4m3fn', Uint8Array), type('float8e4m3fnuz', Uint8Array),
    type('float8e5m2', Uint8Array), type('float8e5m2fnuz', Uint8Array), type('uint4', Uint8Array, 4),
    type('int4', Uint8Array, 4), type('float4e2m1', Uint8Array, 4), type('float8e8m0', Uint8Array),
    type('uint2', Uint8Array, 2), type('int2', Uint8Array, 2),
];

function type(name: string, make: Type['make'], bits = 8 * (make?.BYTES_PER_ELEMENT ?? 0)): Type {
    return {name, make, bits};
}

export function typeName(number: number): string {
    return TYPES[number]?.name ?? 'undefined';
}

export function typeNumber(name: string): number {
    const number = TYPES.findIndex(t => t?.name === name);
    if (number < 0) throw new DibitError('BAD_ARGUMENT', `there is no type '${name}'`);
    return number;
}

export function elementCount(dims: readonly number[]): number {
    return dims.reduce((n, d) => n * d, 1);
}

const MAX_RANK = 8; /* DIBIT_MAX_RANK */

/** Fills in a dibit_tensor with a copy of the data, which lives as long as the scope. */
function writeTensorStruct(scope: Scope, at: Pointer, name: string, tensor: Tensor): void {
    const {wasm} = scope, number = typeNumber(tensor.type), {dims, data} = tensor, {bits} = TYPES[number]!;
    if (dims.length > MAX_RANK) {
        throw new DibitError('BAD_INPUT', `'${name}' has ${dims.length} dims, and ${MAX_RANK} are the most`);
    }
    const bytes = Math.ceil(elementCount(dims) * bits / 8);
    if (data.byteLength !== bytes) {
        throw new DibitError('BAD_INPUT', `'${name}' has ${data.byteLength} bytes where ${tensor.type} [${
            dims.join(', ')}] takes ${bytes}`);
    }
    const copy = scope.data(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    wasm.set('dibit_tensor', at, 'name', scope.string(name));
    wasm.set('dibit_tensor', at, 'type', number);
    wasm.set('dibit_tensor', at, 'rank', dims.length);
    wasm.set('dibit_tensor', at, 'data', copy);
    wasm.set('dibit_tensor', at, 'bytes', bytes);
    const to = at + wasm.offset('dibit_tensor.dims');
    dims.forEach((d, i) => wasm.view.setBigInt64(to + 8 * i, BigInt(d), true));
}

/** Structs of the inputs, as a dibit_run takes them, which live as long as the scope. */
export function writeInputs(scope: Scope, input: Record<string, Tensor>): {inputs: Pointer; n_inputs: number} {
    const all = Object.entries(input), size = scope.wasm.size('dibit_tensor'), inputs = scope.zeros(size * all.length);
    all.forEach(([name, tensor], i) => writeTensorStruct(scope, inputs + size * i, name, tensor));
    return {inputs, n_inputs: all.length};
}

function readDims(wasm: Wasm, at: Pointer, rank: number): number[] {
    return Array.from({length: rank}, (_, i) => Number(wasm.view.getBigInt64(at + 8 * i, true)));
}

/** A dibit_tensor's dims. */
export function readTensorDims(wasm: Wasm, at: Pointer): number[] {
    return readDims(wasm, at + wasm.offset('dibit_tensor.dims'), wasm.get('dibit_tensor', at, 'rank'));
}

/** A copy of what a dibit_tensor shows. */
export function readTensorStruct(wasm: Wasm, at: Pointer): Tensor {
    const get = (field: string) => wasm.get('dibit_tensor', at, field);
    const dims = readTensorDims(wasm, at);
    const number = get('type'), data = get('data');
    const type = TYPES[number];
    if (!type?.make) throw new DibitError('UNSUPPORTED', `an output has type ${typeName(number)}`);
    const bytes = Math.ceil(elementCount(dims) * type.bits / 8);
    return {type: type.name, dims, data: new type.make(wasm.bytes.slice(data, data + bytes).buffer)};
}

export function readValueInfo(wasm: Wasm, at: Pointer): ValueInfo {
    const get = (field: string) => wasm.get('dibit_value_info', at, field);
    const rank = get('rank') | 0, names = at + wasm.offset('dibit_value_info.dim_names');
    const dims = rank < 0 ? null
        : readDims(wasm, at + wasm.offset('dibit_value_info.dims'), rank)
            .map((d, i) => d >= 0 ? d : wasm.string(wasm.view.getUint32(names + 4 * i, true)));
    return {name: wasm.string(get('name')), type: typeName(get('type')), dims};
}
