// SPDX-License-Identifier: GPL-2.0-or-later
// The tab's stream object against an agent that breaks, closes, and is late: faults are what this is about.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { load } from './load.mjs';

const stream = load('ucidockd.stream');

// as much of the agent and the page as the client works with; time passes when `tick` says so
function scene({ eventStream = true } = {}) {
	const page = new EventTarget();
	page.hidden = false;
	const timers = new Map();
	const made = { page, opened: [], resumed: [], asked: [], acks: [], left: [], closed: [], readers: [], reads: [], next: 1 };
	made.parts = {
		page,
		timer: {
			set: call => {
				timers.set(made.next, call);
				return made.next++;
			},
			clear: id => timers.delete(id)
		},
		calls: {
			open: async asked => {
				if (made.refuse)
					throw new Error('no agent');
				made.opened.push(asked ?? 'object');
				return { id: 'o', object: 'ucidockd.stream.o', stream: asked?.kind ? made.opened.length : undefined };
			},
			resume: async id => {
				if (made.refuse)
					throw new Error('no network');
				made.resumed.push(id);
				return made.gone ? null : { id, object: `ucidockd.stream.o${made.resumed.length}` };
			},
			ack: async (_id, seq) => made.acks.push(seq),
			close: async (_id, number) => made.closed.push(number),
			leave: id => made.left.push(id),
			read: (_id, after) => new Promise((done, failed) => made.reads.push({ after, done, failed }))
		},
		subscribe: async (object, signal) => {
			made.asked.push(object);
			const body = new ReadableStream({
				start: controller => made.readers.push({
					send: (name, data) => controller.enqueue(new TextEncoder().encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)),
					cut: () => controller.error(new TypeError('network')),
					end: () => controller.close()
				})
			});
			signal.addEventListener('abort', () => made.readers.at(-1).cut());
			const type = eventStream ? 'text/event-stream' : 'text/html';
			return new Response(eventStream ? body : '', { status: eventStream ? 200 : 404, headers: { 'content-type': type } });
		}
	};
	made.tab = stream.make(made.parts);
	made.settle = () => new Promise(done => setImmediate(() => setImmediate(done)));
	made.tick = async () => {
		const due = [ ...timers.values() ];
		timers.clear();
		due.forEach(call => call());
		await made.settle();
	};
	made.hide = async hidden => {
		page.hidden = hidden;
		page.dispatchEvent(new Event('visibilitychange'));
		await made.settle();
	};
	return made;
}

const names = items => items.map(item => item.name ?? item);

test('two streams share one object, and each gets its own items', async () => {
	const one = scene(), logs = [], events = [];
	one.tab.follow('logs', { container: 'web' }, item => logs.push(item));
	one.tab.follow('events', () => ({ since: '5' }), item => events.push(item));
	await one.settle();
	assert.deepEqual(one.opened, [ 'object', { id: 'o', kind: 'logs', args: { container: 'web' } }, { id: 'o', kind: 'events', args: { since: '5' } } ]);
	one.readers[0].send('data', { seq: 1, items: [ { stream: 3, name: 'event', json: {} }, { stream: 2, name: 'stdout', text: 'x' }, { stream: 0, name: 'ping' } ] });
	await one.settle();
	assert.deepEqual([ names(logs), names(events) ], [ [ 'begin', 'stdout' ], [ 'begin', 'event' ] ]);
	await one.tick();
	assert.deepEqual(one.acks, [ 1 ]);
});

test('items that come before the number of their stream is known are kept', async () => {
	const one = scene(), seen = [];
	let answer;
	const open = one.parts.calls.open;
	one.parts.calls.open = asked => asked?.kind ? new Promise(done => {
		answer = () => done({ stream: 2 });
	}) : open(asked);
	one.tab.follow('logs', {}, item => seen.push(item));
	await one.settle();
	one.readers[0].send('data', { seq: 1, items: [ { stream: 2, name: 'stdout', text: 'early' } ] });
	await one.settle();
	answer();
	await one.settle();
	assert.deepEqual(seen.map(item => item.text ?? item.name), [ 'begin', 'early' ]);
});

test('a connection that broke is made again for the same streams: nothing twice, nothing lost', async () => {
	const one = scene(), seen = [];
	one.tab.follow('logs', {}, item => seen.push(item.text ?? item.name));
	await one.settle();
	one.readers[0].send('data', { seq: 1, items: [ { stream: 2, name: 'stdout', text: 'a' } ] });
	await one.settle();
	one.readers[0].cut();
	await one.settle();
	await one.tick();
	one.readers[1].send('data', { seq: 1, items: [ { stream: 2, name: 'stdout', text: 'a' } ] });
	one.readers[1].send('data', { seq: 2, items: [ { stream: 2, name: 'stdout', text: 'b' } ] });
	await one.settle();
	await one.tick();
	assert.deepEqual(seen, [ 'begin', 'a', 'b' ]);
	assert.deepEqual(one.left, []);
	assert.equal(one.acks.at(-1), 2);
	// uhttpd may hold the dead connection: the agent gives an object that only the new one reads
	assert.deepEqual([ one.resumed, one.asked ], [ [ 'o' ], [ 'ucidockd.stream.o', 'ucidockd.stream.o1' ] ]);
});

test('without a network the object is asked for again, and one that is gone is opened anew at once', async () => {
	const one = scene(), seen = [];
	one.tab.follow('logs', {}, item => seen.push(item.text ?? item.name));
	await one.settle();
	one.readers[0].cut();
	await one.settle();
	one.refuse = true;
	await one.tick();
	await one.tick();
	assert.deepEqual([ one.resumed, one.readers.length, seen ], [ [], 1, [ 'begin' ] ]);
	one.refuse = false;
	one.gone = true;
	await one.tick();
	await one.tick();
	assert.deepEqual([ one.resumed, one.readers.length, seen ], [ [ 'o' ], 2, [ 'begin', 'begin' ] ]);
});

test('an acknowledgement that failed is sent again, and costs no stream', async () => {
	const one = scene();
	const ack = one.parts.calls.ack;
	one.tab.follow('console', {}, () => {});
	await one.settle();
	one.parts.calls.ack = () => Promise.reject(new Error('offline'));
	one.readers[0].send('data', { seq: 1, items: [] });
	await one.settle();
	await one.tick();
	one.parts.calls.ack = ack;
	await one.tick();
	assert.deepEqual([ one.acks, one.left ], [ [ 1 ], [] ]);
});

test('an object that the agent closed is opened anew, and the page hears of both', async () => {
	const one = scene(), seen = [], heard = [];
	one.tab.onConnection((connected, error) => heard.push(connected || error.message));
	one.tab.follow('status', {}, item => seen.push(item.name));
	await one.settle();
	one.readers[0].send('closed', { reason: 'the agent stops' });
	await one.settle();
	one.refuse = true;
	await one.tick();
	one.refuse = false;
	await one.tick();
	assert.deepEqual(heard, [ true, 'the agent stops', 'no agent', true ]);
	assert.deepEqual(seen, [ 'begin', 'begin' ]);
});

test('a hidden tab lets go after a while, and comes back', async () => {
	const one = scene();
	one.tab.follow('status', {}, () => {});
	await one.settle();
	await one.hide(true);
	assert.deepEqual(one.left, []);
	await one.tick();
	assert.deepEqual(one.left, [ 'o' ]);
	await one.hide(false);
	await one.settle();
	assert.equal(one.opened.filter(asked => asked === 'object').length, 2);
});

test('a console keeps the object while the tab is hidden', async () => {
	const one = scene();
	one.tab.follow('console', {}, () => {}, { keep: true });
	await one.settle();
	await one.hide(true);
	await one.tick();
	assert.deepEqual(one.left, []);
});

test('a tab that is hidden again while it connects holds nothing', async () => {
	const one = scene();
	let answer;
	one.parts.calls.open = () => new Promise(done => {
		answer = () => done({ id: 'late', object: 'x' });
	});
	one.tab.follow('status', {}, () => {});
	await one.settle();
	await one.hide(true);
	await one.tick();
	answer();
	await one.settle();
	assert.deepEqual(one.left, [ 'late' ]);
	assert.equal(one.readers.length, 0);
});

test('the last stream that stops takes the object with it', async () => {
	const one = scene();
	const first = one.tab.follow('logs', {}, () => {}), second = one.tab.follow('stats', {}, () => {});
	await one.settle();
	assert.deepEqual(first.place(), [ 'o', 2 ]);
	first.stop();
	assert.deepEqual([ one.closed, one.left ], [ [ 2 ], [] ]);
	second.stop();
	assert.deepEqual([ one.closed, one.left ], [ [ 2, 3 ], [ 'o' ] ]);
});

test('a stream that may not be opened says so and leaves the others alone', async () => {
	const one = scene(), seen = [];
	const open = one.parts.calls.open;
	one.parts.calls.open = asked => asked?.kind === 'console' ? Promise.reject(new Error('Permission denied')) : open(asked);
	one.tab.follow('console', {}, item => seen.push(item));
	const logs = one.tab.follow('logs', {}, () => {});
	await one.settle();
	assert.deepEqual(seen[1], { name: 'error', json: { message: 'Permission denied' } });
	assert.ok(logs.place());
});

test('without /ubus/subscribe the packets are fetched, each after the one before', async () => {
	const one = scene({ eventStream: false }), seen = [];
	one.tab.follow('logs', {}, item => seen.push(item.text ?? item.name));
	await one.settle();
	one.reads[0].done({ packets: [ { seq: 1, items: [ { stream: 2, name: 'stdout', text: 'a' } ] }, { seq: 2, items: [] } ] });
	await one.settle();
	assert.equal(one.reads[1].after, 2);
	one.reads[1].done({ packets: [], closed: 'the session ended' });
	await one.settle();
	assert.deepEqual([ seen, one.left ], [ [ 'begin', 'a' ], [ 'o' ] ]);
});
