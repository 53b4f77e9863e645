// Reads the tensors of test data (TensorProto in .pb files), and compares answers with them as
// cli/check_compare.c does: an element may be off by four times the largest movement of the tensor in
// runs with noise, plus two ulps of its largest magnitude.
import {readFileSync} from 'node:fs';

const NAMES = ['undefined', 'float', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool',
    'float16', 'double', 'uint32', 'uint64', 'complex64', 'complex128', 'bfloat16'];
const ARRAYS = {
    float: Float32Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
    int32: Int32Array, int64: BigInt64Array, bool: Uint8Array, float16: Uint16Array, double: Float64Array,
    uint32: Uint32Array, uint64: BigUint64Array, bfloat16: Uint16Array,
};

/* The varint of a protobuf message at `at`, and where it ends. */
function varint(bytes, at) {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
        const byte = bytes[at++];
        value |= BigInt(byte & 127) << shift;
        if (byte < 128) return [value, at];
    }
}

/** The fields of a protobuf message: [number, value], value a bigint or bytes. */
function* fields(bytes) {
    for (let at = 0, tag, value; at < bytes.length;) {
        [tag, at] = varint(bytes, at);
        const wire = Number(tag & 7n), number = Number(tag >> 3n);
        if (wire === 0) {
            [value, at] = varint(bytes, at);
            yield [number, value];
        } else {
            let n = BigInt(wire === 1 ? 8 : 4);
            if (wire === 2) [n, at] = varint(bytes, at);
            yield [number, bytes.subarray(at, at += Number(n))];
        }
    }
}

/** The initializers of a model's bytes that lie in files of their own: {type, location, offset, length}. */
export function* externalTensors(model) {
    const text = bytes => new TextDecoder().decode(bytes);
    for (const [, graph] of [...fields(model)].filter(([number]) => number === 7)) {
        for (const [, tensor] of [...fields(graph)].filter(([number]) => number === 5)) {
            const entries = {};
            let type;
            for (const [number, value] of fields(tensor)) {
                if (number === 2) type = NAMES[Number(value)];
                if (number !== 13) continue;
                const {1: key, 2: content} = Object.fromEntries(fields(value));
                entries[text(key)] = text(content);
            }
            if (!entries.location) continue;
            yield {type, location: entries.location, offset: Number(entries.offset ?? 0), length: Number(entries.length)};
        }
    }
}

/** {name, type, dims, data} from raw_data, or from the typed fields of small integers. */
export function readTensor(path) {
    let name = '', type = '', raw = null;
    const dims = [], integers = [];
    for (const [number, value] of fields(readFileSync(path))) {
        if (number === 1) {
            if (typeof value === 'bigint') dims.push(Number(value));
            else for (let at = 0, d; at < value.length; dims.push(Number(d))) [d, at] = varint(value, at);
        } else if (number === 2) {
            type = NAMES[Number(value)];
        } else if (number === 8) {
            name = new TextDecoder().decode(value);
        } else if (number === 9) {
            raw = value;
        } else if (number === 4 || number === 5 || number === 7) {
            integers.push([number, value]);
        }
    }
    if (integers.length) throw new Error(`${path}: only raw_data is read`);
    const make = ARRAYS[type];
    return {name, type, dims, data: new make(Uint8Array.from(raw ?? []).buffer)};
}

export function halfValue(h) {
    const exponent = h >> 10 & 31, mantissa = h & 1023, sign = h >> 15 ? -1 : 1;
    if (exponent === 31) return mantissa ? NaN : sign * Infinity;
    return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

export function values({type, data}) {
    if (type === 'float16') return Float64Array.from(data, halfValue);
    if (type === 'bfloat16') return new Float32Array(Uint32Array.from(data, b => b << 16).buffer);
    return Float64Array.from(data, Number);
}

const ULP = {float: 2 ** -23, double: 2 ** -23, float16: 2 ** -10, bfloat16: 2 ** -7};

/** How far `noisy` moved, at most; Infinity when it is no longer finite. */
export function movement(still, noisy) {
    const a = values(still), b = values(noisy);
    return a.reduce((most, v, i) => Math.max(most, Number.isFinite(v) ? Math.abs(b[i] - v) : 0), 0);
}

/** null, or what is wrong with `got`. */
export function difference(expected, got, spread) {
    if (got.type !== expected.type || got.dims.join() !== expected.dims.join()) {
        return `got ${got.type} [${got.dims}], expected ${expected.type} [${expected.dims}]`;
    }
    const want = values(expected), have = values(got);
    const largest = want.reduce((most, v) => Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most, 0);
    const ulp = ULP[expected.type] ?? 0, allowed = ulp && 4 * spread + 2 * ulp * largest;
    for (let i = 0; i < want.length; i++) {
        if (have[i] === want[i] || Math.abs(have[i] - want[i]) <= allowed) continue;
        return `element ${i}: got ${have[i]}, expected ${want[i]}, allowed ${allowed}`;
    }
    return null;
}
