// What a page downloads at most, as web/build.mjs --sizes adds it up.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {join} from 'node:path';
import test from 'node:test';

import {root} from './support.mjs';

const LIMIT = 400; /* KB of 1,000 bytes, by gzip -9, without the tokenizer's packages */

test(`engine and scripts are at most ${LIMIT} KB gzipped`, () => {
    const table = execFileSync(process.execPath, [join(root, 'web/build.mjs'), join(root, 'build/web'), '--sizes'], {
        encoding: 'utf8', env: {...process.env, NODE_PATH: join(root, 'build/web/node_modules')},
    });
    const row = table.split('\n').find(line => line.startsWith('| all in all'));
    const [plain, gzip] = row.split('|').slice(2, 4).map(Number);
    assert.ok(plain > LIMIT, table); /* else something was not counted */
    assert.ok(gzip > 0 && gzip <= LIMIT, table);
});
