/* The package's front in Node, Deno and Bun: also onnxruntime's API, so that the package can stand in for
 * onnxruntime-node by npm's overrides alone. */
export * from './index.js';
export * from './ort.js';
export {default} from './ort.js';
