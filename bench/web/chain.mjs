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

/* A MatMulNBits as a node, [M, K] x [K, N], and its weights; those of another one if `weights` is less than i. */
function product(i, weights, from, to, {K, N, bits, block, half, accuracy}) {
    const blocks = K / block, zeroPointBytes = N * Math.ceil(blocks * bits / 8);
    /* A product of sizes 1 / sqrt(K * mean square of code - zero point), (4 ** bits - 1) / 6 for random ones. */
    const scale = 1 / Math.sqrt(K * (4 ** bits - 1) / 6 * 1.08);
    return {
        node: bytes(1, [
            bytes(1, from), bytes(1, `w${weights}`), bytes(1, `s${weights}`), bytes(1, `z${weights}`), bytes(2, to),
            bytes(3, `n${i}`), bytes(4, 'MatMulNBits'), attribute('K', K), attribute('N', N), attribute('bits', bits),
            attribute('block_size', block), attribute('accuracy_level', accuracy), bytes(7, 'com.microsoft'),
        ]),
        tensors: weights < i ? [] : [
            tensor(`w${i}`, UINT8, [N, blocks, block * bits / 8], randomBytes(N * K * bits / 8)),
            tensor(`s${i}`, half ? FLOAT16 : FLOAT, [N * blocks], randomScales(N * blocks, scale, half)),
            tensor(`z${i}`, UINT8, [zeroPointBytes], randomBytes(zeroPointBytes)),
        ],
    };
}

const model = graph => join([integer(1, 10), bytes(8, [bytes(1, ''), integer(2, 21)]),
                             bytes(8, [bytes(1, 'com.microsoft'), integer(2, 1)]), bytes(7, graph)]);

export function chain({layers, size, bits = 2, block = 32, half = false, accuracy, shared = false}) {
    const products = Array.from({length: layers}, (_, i) => product(
        i, shared ? 0 : i, i ? `y${i - 1}` : 'x', i === layers - 1 ? 'y' : `y${i}`,
        {K: size, N: size, bits, block, half, accuracy}));
    return model([products.map(p => p.node), bytes(2, 'chain'), products.map(p => p.tensors),
                  bytes(11, value('x', 'M', size)), bytes(12, value('y', 'M', size))]);
}

/** Products of these shapes ({K, N, bits, block}) one after the other, of the inputs x<K>, [M, K]. Results of one width are
 * added up, and those sums are the outputs. */
export function products(shapes) {
    const parts = [], sums = new Map();
    for (const [i, shape] of shapes.entries()) {
        const {K, N} = shape, count = (sums.get(N) ?? 0) + 1, sum = `y${N}_${count}`;
        parts.push(product(i, i, `x${K}`, count > 1 ? `p${i}` : sum, {accuracy: 4, ...shape}));
        if (count > 1) parts.push({tensors: [], node: bytes(1, [
            bytes(1, `y${N}_${count - 1}`), bytes(1, `p${i}`), bytes(2, sum), bytes(3, `a${i}`), bytes(4, 'Add'),
        ])});
        sums.set(N, count);
    }
    return model([parts.map(p => p.node), bytes(2, 'products'), parts.map(p => p.tensors),
                  [...new Set(shapes.map(s => s.K))].map(K => bytes(11, value(`x${K}`, 'M', K))),
                  [...sums].map(([N, count]) => bytes(12, value(`y${N}_${count}`, 'M', N)))]);
}
