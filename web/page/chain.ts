/* An ONNX model for benchmarks: a chain of MatMulNBits layers of N x N, with random weights. Its bytes are
 * made here, field by field as onnx.proto numbers them. */

class Message {
    private readonly parts: Uint8Array[] = [];

    private varint(n: number): void {
        const bytes: number[] = [];
        for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
        bytes.push(n);
        this.parts.push(Uint8Array.from(bytes));
    }

    int(field: number, value: number): this {
        this.varint(field * 8);
        this.varint(value);
        return this;
    }

    bytes(field: number, value: Uint8Array | string | Message): this {
        const data = value instanceof Message ? value.join()
            : typeof value === 'string' ? new TextEncoder().encode(value) : value;
        this.varint(field * 8 + 2);
        this.varint(data.length);
        this.parts.push(data);
        return this;
    }

    join(): Uint8Array<ArrayBuffer> {
        const all = new Uint8Array(this.parts.reduce((n, p) => n + p.length, 0));
        let at = 0;
        for (const part of this.parts) {
            all.set(part, at);
            at += part.length;
        }
        return all;
    }
}

const FLOAT = 1, UINT8 = 2, INT = 2 /* AttributeProto.INT */;

function tensor(name: string, type: number, dims: number[], data: Uint8Array): Message {
    const t = new Message();
    for (const d of dims) t.int(1, d);
    return t.int(2, type).bytes(8, name).bytes(9, data);
}

function value(name: string, dims: (number | string)[]): Message {
    const shape = new Message();
    for (const d of dims) {
        shape.bytes(1, typeof d === 'number' ? new Message().int(1, d) : new Message().bytes(2, d));
    }
    const type = new Message().bytes(1, new Message().int(1, FLOAT).bytes(2, shape));
    return new Message().bytes(1, name).bytes(2, type);
}

export interface Chain {
    size: number; // N and K of every layer
    layers: number;
    bits: number;
    block: number;
    accuracyLevel: number;
}

/** Input x float [rows, size], output y of the same shape. */
export function chainModel(chain: Chain): Uint8Array<ArrayBuffer> {
    const {size, bits, block} = chain, blocks = size / block, graph = new Message();
    let random = 1;
    const fill = (n: number) => {
        const data = new Uint8Array(n);
        for (let i = 0; i < n; i++) data[i] = (random = (Math.imul(random, 1664525) + 1013904223) >>> 0) >>> 24;
        return data;
    };
    const initializers: Message[] = [];
    for (let i = 0; i < chain.layers; i++) {
        const scales = new Float32Array(size * blocks).fill(2 ** -bits / Math.sqrt(size));
        initializers.push(
            tensor(`w${i}`, UINT8, [size, blocks, (block * bits) / 8], fill((size * blocks * block * bits) / 8)),
            tensor(`s${i}`, FLOAT, [size, blocks], new Uint8Array(scales.buffer)),
            tensor(`z${i}`, UINT8, [size, Math.ceil((blocks * bits) / 8)], fill(size * Math.ceil((blocks * bits) / 8))));
        const node = new Message();
        for (const name of [i ? `h${i}` : 'x', `w${i}`, `s${i}`, `z${i}`]) node.bytes(1, name);
        node.bytes(2, i + 1 === chain.layers ? 'y' : `h${i + 1}`).bytes(3, `layer${i}`).bytes(4, 'MatMulNBits');
        const attributes = {K: size, N: size, bits, block_size: block, accuracy_level: chain.accuracyLevel};
        for (const [name, v] of Object.entries(attributes)) {
            node.bytes(5, new Message().bytes(1, name).int(3, v).int(20, INT));
        }
        graph.bytes(1, node.bytes(7, 'com.microsoft'));
    }
    graph.bytes(2, 'chain');
    for (const i of initializers) graph.bytes(5, i);
    graph.bytes(11, value('x', ['rows', size])).bytes(12, value('y', ['rows', size]));
    return new Message().int(1, 8).bytes(7, graph)
        .bytes(8, new Message().bytes(1, '').int(2, 21))
        .bytes(8, new Message().bytes(1, 'com.microsoft').int(2, 1)).join();
}
