// Writes .onnx files of any size for tests, without holding them: a file is a list of segments, each bytes or
// so many bytes of a pattern that their place decides.

const encoder = new TextEncoder();

function varint(value) {
    const bytes = [];
    let v = BigInt(value);
    for (; v > 127n; v >>= 7n) bytes.push(Number(v & 127n) | 128);
    bytes.push(Number(v));
    return Uint8Array.from(bytes);
}

const lengthOf = segments => segments.reduce((n, s) => n + s.length, 0);
const integer = (field, value) => [varint(field << 3), varint(value)];
/** A message, a string or bytes. */
function bytes(field, content) {
    const segments = typeof content === 'string' ? [encoder.encode(content)] : content.flat(Infinity);
    return [varint(field << 3 | 2), varint(lengthOf(segments)), ...segments];
}

const FLOAT = 1, UINT8 = 2;

/* A pattern's period is a prime, so that no offset that is off by a power of two looks right. */
const PERIOD = 65521;
const tile = Buffer.from(Uint8Array.from({length: 2 * PERIOD}, (_, i) => Math.imul(i % PERIOD, 40503) >> 7));

/** `to` gets the pattern that a file has at an offset. */
export function fillPattern(to, offset) {
    for (let at = 0; at < to.length; at += PERIOD) {
        const from = (offset + at) % PERIOD;
        tile.copy(to, at, from, from + Math.min(PERIOD, to.length - at));
    }
}

const value = (name, dims) => [bytes(1, name), bytes(2, [bytes(1, [integer(1, FLOAT), bytes(2, dims.map(d =>
    bytes(1, [typeof d === 'number' ? integer(1, d) : bytes(2, d)])))])])];

/** A chain of MatMulNBits, [M, size] x [size, size] each, with weights inside the file; or, where `external` is
 * given, in a file of that name, at the offsets that place(i, bytes) gives. Scales are zeros. */
export function chain({layers, size, bits = 2, block = 32, external, place}) {
    const blocks = size / block, weightBytes = size * blocks * block * bits / 8, scaleBytes = size * blocks * 4;
    const nodes = [], initializers = [], weights = [];
    const tensor = (name, type, dims, n) => {
        if (!external) return bytes(5, [dims.map(d => integer(1, d)), integer(2, type), bytes(8, name),
            bytes(9, [type === UINT8 ? {length: n, pattern: true} : {length: n}])]);
        const offset = place(weights.length, n);
        weights.push({offset, length: n, pattern: type === UINT8});
        const entry = (key, v) => bytes(13, [bytes(1, key), bytes(2, String(v))]);
        return bytes(5, [dims.map(d => integer(1, d)), integer(2, type), bytes(8, name), entry('location', external),
            entry('offset', offset), entry('length', n), integer(14, 1)]);
    };
    const attribute = (name, v) => bytes(5, [bytes(1, name), integer(3, v), integer(20, 2)]);
    for (let i = 0; i < layers; i++) {
        nodes.push(bytes(1, [bytes(1, i ? `y${i - 1}` : 'x'), bytes(1, `w${i}`), bytes(1, `s${i}`),
            bytes(2, i === layers - 1 ? 'y' : `y${i}`), bytes(3, `n${i}`), bytes(4, 'MatMulNBits'),
            attribute('K', size), attribute('N', size), attribute('bits', bits), attribute('block_size', block),
            bytes(7, 'com.microsoft')]));
        initializers.push(tensor(`w${i}`, UINT8, [size, blocks, block * bits / 8], weightBytes));
        initializers.push(tensor(`s${i}`, FLOAT, [size * blocks], scaleBytes));
    }
    const graph = [nodes, bytes(2, 'chain'), initializers, bytes(11, value('x', ['M', size])),
        bytes(12, value('y', ['M', size]))];
    const file = [integer(1, 10), bytes(8, [bytes(1, ''), integer(2, 21)]),
        bytes(8, [bytes(1, 'com.microsoft'), integer(2, 1)]), bytes(7, graph)].flat(Infinity);
    return {file: merge(file), weights};
}

/** Neighbouring bytes in one segment, each with its offset. */
function merge(segments) {
    const merged = [];
    let at = 0;
    for (const segment of segments) {
        const last = merged.at(-1);
        if (segment instanceof Uint8Array && last?.bytes) {
            last.bytes = Buffer.concat([last.bytes, segment]);
            last.length = last.bytes.length;
        } else {
            merged.push(segment instanceof Uint8Array ? {offset: at, length: segment.length, bytes: segment}
                : {offset: at, ...segment});
        }
        at += segment.length;
    }
    return merged;
}

export const fileSize = segments => Math.max(...segments.map(s => s.offset + s.length));

/** Bytes of a file from an offset on. Between segments are zeros. */
export function readFile(segments, offset, n) {
    const to = Buffer.alloc(n);
    for (const s of segments) {
        const begin = Math.max(offset, s.offset), end = Math.min(offset + n, s.offset + s.length);
        if (begin >= end) continue;
        if (s.bytes) to.set(s.bytes.subarray(begin - s.offset, end - s.offset), begin - offset);
        else if (s.pattern) fillPattern(to.subarray(begin - offset, end - offset), begin);
    }
    return to;
}
