// What tests of the package share: where things are, modules of web/src by themselves, and tensors from .pb files.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const built = join(root, 'build/web/dist');
export const model = join(root, 'models/smollm2-135m-instruct-2bit');
export const cases = join(root, 'tests/data/cases');

/** A module of web/src that the package does not export. */
export async function source(name) {
    const require = createRequire(join(root, 'build/web/package.json'));
    const outfile = join(root, 'build/web/tests', `${name}.mjs`);
    await require('esbuild').build({
        entryPoints: [join(root, 'web/src', `${name}.ts`)], outfile, bundle: true, format: 'esm', target: 'es2022',
        external: ['@huggingface/*'], logLevel: 'warning',
    });
    return import(pathToFileURL(outfile).href);
}

/* The fields of a protobuf message: by number, lists of bigints and bytes. */
function fields(bytes) {
    const found = {};
    let at = 0;
    const varint = () => {
        let value = 0n;
        for (let shift = 0n;; shift += 7n) {
            const byte = bytes[at++];
            value |= BigInt(byte & 127) << shift;
            if (byte < 128) return BigInt.asIntN(64, value);
        }
    };
    while (at < bytes.length) {
        const tag = Number(varint()), wire = tag & 7, list = found[tag >> 3] ??= [];
        if (wire === 0) {
            list.push(varint());
        } else {
            const n = wire === 2 ? Number(varint()) : wire === 1 ? 8 : 4;
            list.push(bytes.subarray(at, at + n));
            at += n;
        }
    }
    return found;
}

const ELEMENTS = {
    1: ['float32', Float32Array], 2: ['uint8', Uint8Array], 6: ['int32', Int32Array], 7: ['int64', BigInt64Array],
    9: ['bool', Uint8Array], 10: ['float16', Uint16Array],
};

/** A TensorProto with raw data. */
export function readTensor(path) {
    const f = fields(readFileSync(path)), [type, Elements] = ELEMENTS[Number(f[2][0])];
    const dims = (f[1] ?? []).flatMap(d => typeof d === 'bigint' ? [Number(d)] : packed(d));
    const raw = f[9]?.[0] ?? new Uint8Array(0);
    return {name: new TextDecoder().decode(f[8][0]), type, dims, data: new Elements(Uint8Array.from(raw).buffer)};
}

function packed(bytes) {
    return fields(Buffer.concat([...bytes].reduce((parts, byte) => {
        parts.push(...(parts.length === 0 || parts.at(-1)[0] < 128 ? [Buffer.from([8])] : []), Buffer.from([byte]));
        return parts;
    }, [])))[1].map(Number);
}

export function halfToFloat(bits) {
    const exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function floats(tensor) {
    const {data} = tensor;
    if (tensor.type !== 'float16' || !(data instanceof Uint16Array)) return Array.from(data, Number);
    return Array.from(data, halfToFloat);
}

/** The largest difference, over the largest value. */
export function distance(got, want) {
    const a = floats(got), b = floats(want);
    if (a.length !== b.length) return Infinity;
    let worst = 0, size = 1e-6;
    for (let i = 0; i < a.length; i++) {
        if (!(Math.abs(a[i] - b[i]) <= worst)) worst = Math.abs(a[i] - b[i]);
        size = Math.max(size, Math.abs(b[i]));
    }
    return worst / size;
}
