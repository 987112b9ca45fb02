// SPDX-License-Identifier: GPL-2.0-or-later
// What is typed into a console, and what it says of its end, when answers are late, calls fail and the process is another one.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { load } from './load.mjs';

const moduleOf = source => `data:text/javascript,${encodeURIComponent(source)}`;
const LIBRARY = {
	'ucidockd/xterm/xterm.js': moduleOf(`export const CSS = '';
	export class FitAddon { fit() {} }
	export class Terminal {
		rows = 24; cols = 80;
		parser = { registerCsiHandler() {}, registerDcsHandler() {}, registerOscHandler() {} };
		onData(typed) { this.key = typed; }
		onBinary() {} onResize() {} loadAddon() {} open() {} focus() {} write() {}
	}`)
};

globalThis.window = globalThis;
globalThis.document = { head: { append() {} } };
globalThis.L = { resource: path => LIBRARY[path] };
globalThis.ResizeObserver = class {
	observe() {}
	disconnect() {}
};

// a console that was opened by the page; `agent` {take, answer(error?)} does the agent's part, `arrived` is what was typed there
async function scene() {
	const made = { arrived: [], answers: [], place: null };
	const agent = {
		stream_input: (_id, stream, data) => new Promise((done, failed) => {
			made.arrived.push(`${stream}:${atob(data)}`);
			made.answers.push(error => error ? failed(error) : done({}));
		}),
		stream_resize: async () => {}
	};
	const live = {
		onConnection() {},
		follow: (_kind, _args, take) => {
			made.take = take;
			take({ name: 'begin' });
			return { stop() {}, place: () => made.place };
		}
	};
	const dom = {
		el: () => ({ text: '' }),
		fill: (node, ...words) => {
			node.text = words.join('');
		},
		wordsOf: error => error.message
	};
	made.console = load('ucidockd.terminal', { 'ucidockd.calls': { agent }, 'ucidockd.live': live, 'ucidockd.dom': dom, 'ucidockd.sentences': { say: text => text } })
		.make({ container: 'web', command: [ 'sh' ], user: '' });
	await made.console.open();
	made.type = text => made.console.term.key(text);
	made.note = () => made.console.note.text;
	made.settle = () => new Promise(done => setImmediate(done));
	made.start = stream => {
		made.place = [ 'o', stream ];
		made.take({ name: 'open', json: { tty: true } });
	};
	made.answer = async error => {
		made.answers.shift()(error);
		await made.settle();
	};
	return made;
}

for (const [ how, error ] of [ [ 'is late', null ], [ 'is an error', new Error('stream 1 is not open') ] ])
	test(`how the process ended stays when the answer to the last that was typed ${how}`, async () => {
		const one = await scene();
		one.start(1);
		one.type('exit 3\r');
		one.take({ name: 'exit', json: { code: 3, reason: '' } });
		await one.answer(error);
		assert.equal(one.note(), 'The process ended with code 3.');
	});

test('what is typed goes one call at a time, in order', async () => {
	const one = await scene();
	one.start(1);
	[ ...'ls\r' ].forEach(one.type);
	assert.deepEqual(one.arrived, [ '1:l' ]);
	await one.answer();
	assert.deepEqual(one.arrived, [ '1:l', '1:s\r' ]);
});

test('what was typed before the process was there arrives once it is', async () => {
	const one = await scene();
	one.type('ls\r');
	assert.deepEqual(one.arrived, []);
	one.start(1);
	assert.deepEqual(one.arrived, [ '1:ls\r' ]);
});

test('what follows on input that did not arrive is not typed later, and the page says so', async () => {
	const one = await scene();
	one.start(1);
	one.type('c');
	one.type('d /tmp; rm *\r');
	await one.answer(new Error('offline'));
	assert.equal(one.note(), 'Your input did not arrive: offline');
	one.type('x');
	assert.deepEqual(one.arrived, [ '1:c', '1:x' ]);
});

test('what was typed for a process that is gone is not typed into the next one', async () => {
	const one = await scene();
	one.start(1);
	one.place = null;
	one.type('rm *\r');
	one.take({ name: 'begin' });
	one.start(2);
	one.type('x');
	assert.deepEqual(one.arrived, [ '2:x' ]);
});

test('why a console ended is said as what is over', async () => {
	const one = await scene();
	one.start(1);
	one.take({ name: 'exit', json: { code: null, reason: 'no Docker engine at /x; is dockerd running?' } });
	assert.equal(one.note(), 'The console ended: no Docker engine at /x; is dockerd running?');
});
