// SPDX-License-Identifier: GPL-2.0-or-later
// All live data of a browser tab, over one stream object of the agent (docs/ubus.md, "Streams"). It is read from
// /ubus/subscribe/<object> with fetch(), since EventSource can send no session; where that is missing (LuCI on nginx) the
// same packets are fetched by `stream_read`. Closed while the tab is hidden, opened again with growing pauses when it broke.
//
// `make` takes what it works with, so that a test can give other: `calls` {open, resume, ack, read, close, leave}, `subscribe`
// (object, signal) -> Response, `page` (the document), `timer` (setTimeout and clearTimeout).
'use strict';
'require baseclass';
'require ucidockd.sse as sse';

const ACK_MS = 200;
const HIDDEN_MS = 2000;
const PAUSES_MS = [ 500, 1000, 2000, 5000, 10000 ];
const AGAIN = 5, AGAIN_MS = 2000; // the agent keeps an object without a reader for 25 s
const READ_S = 15;
const EARLY_LIMIT = 1024;

class Broken extends Error {}

const Tab = baseclass.extend({
	__init__(parts) {
		this.parts = parts;
		this.wanted = new Set();
		this.listeners = new Set();
		this.broken = 0;
		this.running = false;
		this.hidden = null;
		parts.page.addEventListener('visibilitychange', () => this.onVisibility());
	},

	// `args`: an object, or a function that gives it whenever the stream begins (again). `take(item)` gets every item,
	// also {name: 'begin'} each time before the first one. Gives {stop, place}: `place` is [object id, number] for calls.
	// `keep`: goes on while the tab is hidden.
	follow(kind, args, take, { keep } = {}) {
		const entry = { kind, args, take, keep: keep ?? false, number: 0 };

		this.wanted.add(entry);

		if (this.object)
			this.start(entry).catch(() => this.drop());
		else
			this.run();

		return {
			stop: () => this.forget(entry),
			place: () => this.object && entry.number ? [ this.object.id, entry.number ] : null
		};
	},

	// `listener(connected)` hears when the agent is lost and found
	onConnection(listener) {
		this.listeners.add(listener);
	},

	forget(entry) {
		this.wanted.delete(entry);

		if (this.object && entry.number)
			this.parts.calls.close(this.object.id, entry.number).catch(() => {});

		if (!this.wanted.size)
			this.drop();
	},

	onVisibility() {
		const { timer } = this.parts;

		timer.clear(this.hidden);
		this.hidden = null;

		if (this.resting())
			this.hidden = timer.set(() => this.resting() && this.drop(), HIDDEN_MS);
		else
			this.run();
	},

	resting() {
		return this.parts.page.hidden && ![ ...this.wanted ].some(entry => entry.keep);
	},

	// one after the other until nobody wants anything, or the tab is hidden
	async run() {
		if (this.running)
			return;

		this.running = true;

		while (this.wanted.size && !this.resting()) {
			const began = Date.now();

			await this.attempt();

			if (Date.now() - began > PAUSES_MS[PAUSES_MS.length - 1])
				this.broken = 0;

			if (this.wanted.size && !this.resting())
				await this.pause();
		}

		this.running = false;
	},

	pause() {
		const span = PAUSES_MS[Math.min(this.broken++, PAUSES_MS.length - 1)];

		return new Promise(done => this.parts.timer.set(done, span));
	},

	async attempt() {
		this.abort = new AbortController();

		try {
			const object = await this.parts.calls.open();

			if (this.abort.signal.aborted) {
				this.parts.calls.leave(object.id);
				return;
			}

			this.object = object;
			this.early = [];
			this.read = this.acked = 0;
			this.fetching = false;

			const reading = this.deliver();

			reading.catch(() => {});
			await Promise.all([ ...this.wanted ].map(entry => this.start(entry)));
			this.report(true);
			await reading;
		} catch (error) {
			this.report(false, error);
		} finally {
			this.drop();
		}
	},

	report(connected, error) {
		for (const listener of this.listeners)
			listener(connected, error);
	},

	async start(entry) {
		const object = this.object;
		const args = typeof entry.args === 'function' ? entry.args() : entry.args;

		entry.number = 0;
		entry.take({ name: 'begin' });

		try {
			const { stream } = await this.parts.calls.open({ id: object.id, kind: entry.kind, args: args ?? {} });

			if (this.object !== object)
				return;

			entry.number = stream;
		} catch (error) {
			entry.take({ name: 'error', json: { message: error.message } });

			return;
		}

		const mine = this.early.filter(item => item.stream === entry.number);

		this.early = this.early.filter(item => item.stream !== entry.number);
		mine.forEach(item => entry.take(item));
	},

	// Reads until the agent closes it, or cannot be reached for a while; always throws. A connection that breaks is made again
	// for the same streams: what was not acknowledged comes again, and consoles go on.
	async deliver() {
		for (let left = AGAIN, again = false; ; left--, again = true) {
			const seen = this.read;

			try {
				if (again && !this.fetching)
					await this.resume();

				await this.listen(!again);
			} catch (error) {
				if (error instanceof Broken || left <= 0)
					throw error;
			}

			if (this.abort.signal.aborted)
				throw new Broken(_('the connection was closed'));

			if (this.read > seen)
				left = AGAIN;

			await new Promise(done => this.parts.timer.set(done, AGAIN_MS));
		}
	},

	// A connection that broke may live on in uhttpd, where it would count as a second reader: the agent gives another object.
	async resume() {
		const mine = this.object, fresh = await this.parts.calls.resume(mine.id);

		if (!fresh || this.object !== mine)
			throw new Broken(_('the stream is gone'));

		mine.object = fresh.object;
	},

	// one connection; `fresh`: the first one, which shows whether there is /ubus/subscribe at all
	async listen(fresh) {
		const response = await this.parts.subscribe(this.object.object, this.abort.signal);

		if (!response.ok || !/^text\/event-stream/.test(response.headers.get('content-type'))) {
			if (!fresh)
				throw new Broken(_('the stream is gone'));

			return this.fetchPackets();
		}

		const parser = sse.make(), decoder = new TextDecoder();
		const reader = response.body.getReader();

		for (let piece = await reader.read(); !piece.done; piece = await reader.read())
			for (const event of parser.push(decoder.decode(piece.value, { stream: true })))
				this.onEvent(event);
	},

	onEvent({ name, data }) {
		const packet = JSON.parse(data);

		if (name === 'closed')
			throw new Broken(packet.reason);

		if (packet.seq === undefined)
			return;

		this.take(packet);
		this.acked = Math.min(this.acked, packet.seq - 1);
		this.acknowledge();
	},

	async fetchPackets() {
		const signal = this.abort.signal;

		this.fetching = true;

		while (!signal.aborted) {
			const { packets, closed } = await this.parts.calls.read(this.object.id, this.read, READ_S);

			if (signal.aborted)
				break;

			packets.forEach(packet => this.take(packet));

			if (closed)
				throw new Broken(closed);
		}

		throw new Broken(_('the connection was lost'));
	},

	take(packet) {
		if (packet.seq <= this.read)
			return;

		this.read = packet.seq;

		for (const item of packet.items)
			this.hand(item);
	},

	// items may come before the answer that says which stream they are of
	hand(item) {
		const entry = [ ...this.wanted ].find(one => one.number === item.stream);

		if (entry)
			entry.take(item);
		else if (item.stream !== 0 && this.early.length < EARLY_LIMIT)
			this.early.push(item);
	},

	// at once what was read in a while, since every call costs; a call that failed is made again
	acknowledge() {
		if (this.acking)
			return;

		this.acking = this.parts.timer.set(() => {
			this.acking = null;

			if (!this.object || this.read === this.acked)
				return;

			const before = this.acked, object = this.object;

			this.acked = this.read;
			this.parts.calls.ack(object.id, this.read).catch(() => {
				if (this.object !== object)
					return;

				this.acked = before;
				this.acknowledge();
			});
		}, ACK_MS);
	},

	drop() {
		this.abort?.abort();

		if (!this.object)
			return;

		this.parts.calls.leave(this.object.id);
		this.object = null;

		for (const entry of this.wanted)
			entry.number = 0;
	}
});

return baseclass.extend({ make: parts => new Tab(parts) });
