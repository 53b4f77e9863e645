// A web server for tests: node server.mjs, in a process of its own, told by messages what to serve:
//   {path, segments, ...}  a file (see onnx.mjs); options: noRange, tag, cutAfter (bytes of a response, for the
//                          first `cuts` responses that are longer), type, encoding, size (that it claims), status
//   {forget: path}
// It sends {port}, then an empty message for each that was done, and {request: {path, range}} for each request.
import {once} from 'node:events';
import {createServer} from 'node:http';
import {fileSize, readFile} from './onnx.mjs';

const files = new Map();

async function send(response, file, begin, end) {
    let sent = 0;
    const closed = once(response, 'close');
    const cut = file.cuts > 0 && end - begin > file.cutAfter ? file.cutAfter : Infinity;
    if (cut < Infinity) file.cuts--;
    for (let at = begin; at < end;) {
        const n = Math.min(1 << 18, end - at, cut - sent);
        if (n <= 0) return void response.destroy();
        if (!response.write(readFile(file.segments, at, n))) {
            await Promise.race([once(response, 'drain'), closed]);
        }
        if (response.destroyed) return;
        at += n;
        sent += n;
    }
    response.end();
}

const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url), file = files.get(path), range = request.headers.range;
    process.send({request: {path, range, method: request.method}});
    response.setHeader('access-control-allow-origin', '*');
    if (!file || file.status) {
        response.statusCode = file?.status ?? 404;
        return response.end();
    }
    const size = fileSize(file.segments), match = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
    let begin = 0, end = size;
    if (file.tag) response.setHeader('etag', file.tag);
    if (file.type) response.setHeader('content-type', file.type);
    if (match && !file.noRange) {
        begin = Number(match[1]);
        end = Math.min(size, Number(match[2]) + 1);
        response.statusCode = 206;
        response.setHeader('content-range', `bytes ${begin}-${end - 1}/${file.size ?? size}`);
    }
    if (!file.noLength) response.setHeader('content-length', end - begin);
    if (request.method === 'HEAD') return response.end();
    send(response, file, begin, end).catch(() => response.destroy());
});

process.on('message', message => {
    if (message.forget) files.delete(message.forget);
    else files.set(message.path, {...message, segments: message.segments.map(s => s.bytes
        ? {...s, bytes: Buffer.from(s.bytes, 'base64')} : s)});
    process.send({});
});
server.listen(0, '127.0.0.1', () => process.send({port: server.address().port}));
