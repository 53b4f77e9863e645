// Runs test files and ends with "N passed, N failed, N skipped". usage: node run.mjs [NAME...], the tests
// NAME.test.mjs; by default all.
import {existsSync, readdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {run} from 'node:test';
import {fileURLToPath} from 'node:url';

// Dawn does not take Mesa's lavapipe of Debian 12: without a GPU the SwiftShader that Chromium brings.
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';
const hasGpu = ['/dev/nvidia0', '/dev/dri/renderD128'].some(existsSync);
if (!hasGpu && existsSync(swiftShader)) process.env.VK_ICD_FILENAMES ??= swiftShader;

const here = dirname(fileURLToPath(import.meta.url));
const all = readdirSync(here).filter(name => name.endsWith('.test.mjs')).sort();
const wanted = process.argv.slice(2).map(name => `${name}.test.mjs`);
const files = (wanted.length ? wanted : all).map(name => join(here, name));
const counts = {passed: 0, failed: 0, skipped: 0};
const isTest = ({details, file, name}) => details.type !== 'suite' && name !== file;
const timeout = process.env.DIBIT_FULL === '1' ? 7200000 : 600000; /* of a file */
const events = run({files, concurrency: 2, timeout});
events.on('test:pass', event => {
    if (!isTest(event)) return;
    if (event.skip !== undefined) {
        counts.skipped++;
        console.log(`skipped: ${event.name}: ${event.skip}`);
    } else {
        counts.passed++;
        console.log(`passed: ${event.name} (${Math.round(event.details.duration_ms)} ms)`);
    }
});
events.on('test:fail', event => {
    if (event.details.type === 'suite') return;
    counts.failed++;
    const error = event.details.error?.cause ?? event.details.error;
    console.log(`FAILED: ${event.name}: ${error?.stack ?? error}`);
});
events.on('test:stderr', ({message}) => process.stderr.write(message));
events.on('test:stdout', ({message}) => process.stdout.write(message));
await new Promise(resolve => events.once('end', resolve).resume());
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);
