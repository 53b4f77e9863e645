// Lays a model's folder out as transformers.js looks for it: node tools/transformers_layout.mjs MODEL_DIR OUT [SUFFIX].
// OUT/onnx/model_q2.onnx (SUFFIX: _q2) is a copy whose external data is called model_q2.onnx_data, the same file as in
// MODEL_DIR or a copy of it; the chat template goes into tokenizer_config.json.
import {copyFileSync, existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';

/* ---- As much of protobuf as it takes to change a string deep inside ---- */

const LENGTH = 2; /* the wire type of strings and messages */

function varint(bytes, at) {
    let value = 0n, shift = 0n;
    for (;; shift += 7n) {
        const byte = bytes[at++];
        value |= BigInt(byte & 127) << shift;
        if (byte < 128) return {value: Number(value), at};
    }
}

function encodeVarint(value) {
    const out = [];
    for (; value > 127; value = Math.floor(value / 128)) out.push(value % 128 + 128);
    return Buffer.from([...out, value]);
}

/* A message with `change` applied to the contents of its fields of this number. */
function rewrite(bytes, number, change) {
    const out = [];
    for (let at = 0; at < bytes.length;) {
        const begin = at, tag = varint(bytes, at), wire = tag.value & 7;
        at = tag.at;
        if (wire !== LENGTH) {
            at = wire === 0 ? varint(bytes, at).at : at + (wire === 1 ? 8 : 4);
            out.push(bytes.subarray(begin, at));
            continue;
        }
        const length = varint(bytes, at), content = bytes.subarray(length.at, length.at + length.value);
        at = length.at + length.value;
        if (tag.value >>> 3 !== number) {
            out.push(bytes.subarray(begin, at));
            continue;
        }
        const changed = change(content);
        out.push(bytes.subarray(begin, tag.at), encodeVarint(changed.length), changed);
    }
    return Buffer.concat(out);
}

/* ModelProto.graph.initializer.external_data.value, where it is a file's name. */
export function renameExternalData(model, rename) {
    const entry = bytes => {
        let isLocation = false;
        rewrite(bytes, 1, key => {
            isLocation = key.toString() === 'location';
            return key;
        });
        return isLocation ? rewrite(bytes, 2, value => Buffer.from(rename(value.toString()))) : bytes;
    };
    return rewrite(model, 7, graph => rewrite(graph, 5, tensor => rewrite(tensor, 13, entry)));
}

/* ---- The folder ---- */

/* The same file under another name where the disk can do that, else a copy. */
function link(from, to) {
    rmSync(to, {force: true});
    try {
        linkSync(from, to);
    } catch {
        copyFileSync(from, to);
    }
}

export function layOut(from, out, suffix = '_q2') {
    const onnx = join(out, 'onnx'), name = `model${suffix}.onnx`;
    mkdirSync(onnx, {recursive: true});
    for (const file of ['config.json', 'generation_config.json', 'tokenizer.json']) {
        if (existsSync(join(from, file))) copyFileSync(join(from, file), join(out, file));
    }
    const config = JSON.parse(readFileSync(join(from, 'tokenizer_config.json'), 'utf8'));
    const template = join(from, 'chat_template.jinja');
    if (existsSync(template)) config.chat_template = readFileSync(template, 'utf8');
    writeFileSync(join(out, 'tokenizer_config.json'), JSON.stringify(config, null, 2));
    const data = new Map();
    const model = renameExternalData(readFileSync(join(from, 'model.onnx')), location => {
        if (!data.has(location)) data.set(location, `${name}_data${data.size ? `_${data.size}` : ''}`);
        return data.get(location);
    });
    writeFileSync(join(onnx, name), model);
    for (const [location, renamed] of data) link(join(from, location), join(onnx, renamed));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
    const [from, out, suffix] = process.argv.slice(2);
    if (!from || !out) {
        console.error('usage: node tools/transformers_layout.mjs MODEL_DIR OUT [SUFFIX]');
        process.exit(2);
    }
    layOut(from, out, suffix);
}
