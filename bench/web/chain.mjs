// Writes a chain of MatMulNBits as an .onnx file: x [M, size] through `layers` layers of [size, size], packed zero points,
// random weights (if `shared` the same in all layers) whose scales (float, or float16 if `half`) keep values near 1. For the
// benchmarks here and the page's.
const encoder = new TextEncoder();
const FLOAT = 1, UINT8 = 2, FLOAT16 = 10, INT_ATTRIBUTE = 2;

function varint(value) {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
    return Uint8Array.from([...bytes, value]);
}
function join(parts) {
    const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of parts) {
        all.set(part, at);
        at += part.length;
    }
    return all;
}
const integer = (field, value) => join([varint(field << 3), varint(value)]);
/** A message (parts, nested as one likes), a string or bytes. */
function bytes(field, content) {
    const all = typeof content === 'string' ? encoder.encode(content) : join([content].flat(Infinity));
    return join([varint(field << 3 | 2), varint(all.length), all]);
}

let state = 1;
function random() { /* xorshift32 */
    state ^= state << 13;
    state ^= state >>> 17;
    return (state ^= state << 5) >>> 0;
}
function randomBytes(n) {
    const words = new Uint32Array(Math.ceil(n / 4));
    for (let i = 0; i < words.length; i++) words[i] = random();
    return new Uint8Array(words.buffer, 0, n);
}
/** Of either sign, between half of `size` and 1.5 times that, as float or float16 (no subnormals). */
function randomScales(n, size, half) {
    const floats = new Float32Array(n);
    for (let i = 0; i < n; i++) floats[i] = (random() & 1 ? size : -size) * (0.5 + random() / 2 ** 32);
    const words = new Uint32Array(floats.buffer);
    return new Uint8Array(half ? Uint16Array.from(words, w => w >>> 16 & 0x8000 | (w >>> 13 & 0x3ffff) - (112 << 10)).buffer
        : floats.buffer);
}

const tensor = (name, type, dims, raw) =>
    bytes(5, [...dims.map(d => integer(1, d)), integer(2, type), bytes(8, name), bytes(9, raw)]);
const attribute = (name, value) => bytes(5, [bytes(1, name), integer(3, value), integer(20, INT_ATTRIBUTE)]);
const value = (name, rows, columns) => [bytes(1, name), bytes(2, [bytes(1, [integer(1, FLOAT), bytes(2, [
    bytes(1, [bytes(2, rows)]), bytes(1, [integer(1, columns)])])])])];

export function chain({layers, size, bits = 2, block = 32, half = false, accuracy, shared = false}) {
    const blocks = size / block, zeroPointBytes = size * Math.ceil(blocks * bits / 8), nodes = [], tensors = [];
    /* A product of sizes 1 / sqrt(K * mean square of code - zero point), (4 ** bits - 1) / 6 for random ones. */
    const scale = 1 / Math.sqrt(size * (4 ** bits - 1) / 6 * 1.08);
    for (let i = 0; i < layers; i++) {
        const weights = shared ? 0 : i;
        nodes.push(bytes(1, [
            bytes(1, i ? `y${i - 1}` : 'x'), bytes(1, `w${weights}`), bytes(1, `s${weights}`), bytes(1, `z${weights}`),
            bytes(2, i === layers - 1 ? 'y' : `y${i}`), bytes(3, `n${i}`), bytes(4, 'MatMulNBits'),
            attribute('K', size), attribute('N', size), attribute('bits', bits), attribute('block_size', block),
            attribute('accuracy_level', accuracy), bytes(7, 'com.microsoft'),
        ]));
        if (weights < i) continue;
        tensors.push(tensor(`w${i}`, UINT8, [size, blocks, block * bits / 8], randomBytes(size * size * bits / 8)),
                     tensor(`s${i}`, half ? FLOAT16 : FLOAT, [size * blocks], randomScales(size * blocks, scale, half)),
                     tensor(`z${i}`, UINT8, [zeroPointBytes], randomBytes(zeroPointBytes)));
    }
    const graph = [nodes, bytes(2, 'chain'), tensors, bytes(11, value('x', 'M', size)), bytes(12, value('y', 'M', size))];
    return join([integer(1, 10), bytes(8, [bytes(1, ''), integer(2, 21)]),
                 bytes(8, [bytes(1, 'com.microsoft'), integer(2, 1)]), bytes(7, graph)]);
}
