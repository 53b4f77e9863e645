/* Which file of a folder is the model. */
import {DibitError} from './wasm.js';

import type {Folder} from './folder.js';
import type {ModelSource} from './input.js';

export type Json = Record<string, unknown>;

/** The JSON files of a folder; undefined: not there. */
export interface Configs {
    config?: Json;
    generation?: Json;
    genai?: Json;
    tokenizer?: Json;
}

export interface FoundModel {
    name: string;
    source: ModelSource;
}

/** Where the model may lie when nobody says, of the fewest bits first. */
export const USUAL_MODELS = [
    'model.onnx', ...['_q2', '_q2f16', '_q4f16', '_q4', '_q8', '_int8', '_quantized', '_fp16', '']
        .map(suffix => `onnx/model${suffix}.onnx`),
];

export const object = (value: unknown): Json | undefined =>
    value !== null && typeof value === 'object' && !Array.isArray(value) ? value as Json : undefined;

/** The name that genai_config.json gives the model's file. */
export function namedModel(configs: Configs): string | undefined {
    const name = object(object(configs.genai?.model)?.decoder)?.filename;
    if (typeof name !== 'string') return undefined;
    if (name.startsWith('/') || name.split('/').includes('..')) {
        throw new Error('genai_config.json: model.decoder.filename leaves the folder');
    }
    return name;
}

export function parseJson(name: string, text: string): Json {
    try {
        return JSON.parse(text);
    } catch (e) {
        throw new DibitError('BAD_FILE', `${name}: ${(e as Error).message}`);
    }
}

export async function readJson(folder: Folder, name: string): Promise<Json | undefined> {
    const text = await folder.text(name);
    return text === undefined ? undefined : parseJson(name, text);
}

/** Its .onnx file: the one that is wanted, or that its files name, or one of the usual names. */
export async function findModel(folder: Folder, configs: Configs, wanted?: string): Promise<FoundModel> {
    const named = wanted ?? folder.model ?? namedModel(configs);
    for (const name of named === undefined ? USUAL_MODELS : [named]) {
        const source = await folder.source(name);
        if (source) return {name, source};
    }
    throw new DibitError('NOT_FOUND', named === undefined
        ? `no model.onnx, and no onnx/model_*.onnx, is in ${folder.place}` : `${named}: there is no such file in ${folder.place}`);
}
