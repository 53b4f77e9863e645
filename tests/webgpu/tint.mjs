// Compiles every .wgsl file of a folder with Tint, through the npm package `webgpu` (Dawn), and ends with
// "N passed, N failed, N skipped". usage: node tint.mjs DIR [DAWN_OPTION...], by default backend=null:
// a device that compiles as any other does and computes nothing.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, ...options] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), 'package.json'));
const { create, globals } = await import(pathToFileURL(require.resolve('webgpu')));
Object.assign(globalThis, globals);

const gpu = create(options.length ? options : ['backend=null']); // alive as long as its device
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn has no adapter');
const requiredFeatures = ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name));
const device = await adapter.requestDevice({ requiredFeatures });

// What Tint says against a text, or null. Kernels that need more workgroup memory than the null device has
// are not for such devices: that is no complaint.
async function complaint(code) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  const error = await device.popErrorScope();
  return error && !error.message.startsWith('The total use of workgroup storage') ? error.message : null;
}

const broken = 'enable no_such_thing; @compute @workgroup_size(1) fn main() {}';
if ((await complaint(broken)) === null) throw new Error('a broken shader passes');

let passed = 0;
let failed = 0;
let skipped = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort()) {
  const code = readFileSync(join(folder, name), 'utf8');
  const title = code.slice(3, code.indexOf('\n'));
  const needs = { 'enable f16': 'shader-f16', 'enable subgroups': 'subgroups' };
  const missing = Object.keys(needs).find((s) => code.includes(s) && !device.features.has(needs[s]));
  if (missing) {
    console.log(`skipped: ${title}: the adapter has no ${needs[missing]}`);
    skipped++;
    continue;
  }
  const why = await complaint(code);
  if (why === null) {
    passed++;
  } else {
    failed++;
    console.log(`${title}: ${why}`);
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
device.destroy();
process.exit(failed === 0 && passed > 0 ? 0 : 1);
