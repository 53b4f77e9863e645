// Runs a program of a wasm build under Node's WASI, with the machine's files where they are.
// usage: node --no-warnings tests/wasm/wasi.mjs PROGRAM [ARGUMENTS]
import fs from 'node:fs';
import os from 'node:os';
import v8 from 'node:v8';
import { WASI } from 'node:wasi';

const [path, ...rest] = process.argv.slice(2);
const bytes = fs.readFileSync(path);
// Node 20 has relaxed SIMD behind a flag, and its baseline compiler gets the dot product wrong.
if (!WebAssembly.validate(bytes)) {
  v8.setFlagsFromString('--experimental-wasm-relaxed-simd');
  v8.setFlagsFromString('--no-liftoff');
}
// Node 20's marker crashes now and then beside a memory that grows.
v8.setFlagsFromString('--no-concurrent-marking');
// "/" would hide ".": their top folders instead.
const top = (folder) => '/' + folder.split('/')[1];
const tops = [process.cwd(), new URL('.', import.meta.url).pathname, os.tmpdir()].map(top);
const wasi = new WASI({
  version: 'preview1',
  args: [path, ...rest],
  env: process.env,
  preopens: Object.fromEntries(['.', ...tops].map((folder) => [folder, folder])),
  returnOnExit: true,
});
const module = await WebAssembly.compile(bytes);
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
process.exitCode = wasi.start(instance);
