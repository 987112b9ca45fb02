// SPDX-License-Identifier: GPL-2.0-or-later
// All live data of a browser tab: its streams in the stream object that the tabs of a browser share (`circle`, docs/ubus.md).
// Closed while the tab is hidden, opened again with growing pauses when it broke, and not any more once the login has ended.
//
// `make` takes what it works with, so that a test can give other: `circle` (parts -> Circle), `calls` {open, read, close, leave},
// `page` (the document), `timer` {set, clear}, and what else a circle takes.
'use strict';
'require baseclass';

const HIDDEN_MS = 2000;
const PAUSES_MS = [ 500, 1000, 2000, 5000, 10000 ];
const LOST = 'engine-unreachable', LOST_MS = 2000; // Docker went away under a stream

class Left extends Error {}

const Tab = baseclass.extend({
	__init__(parts) {
		this.parts = parts;
		this.wanted = new Set();
		this.listeners = new Set();
		this.broken = 0;
		this.tags = 0;
		this.running = this.connected = this.dropped = this.over = false;
		this.hidden = null;
		this.isEngineAway = false; // as the status says, where a page follows it
		this.end = () => {};
		this.circle = parts.circle({
			...parts,
			take: packet => packet.items.forEach(item => this.hand(item)),
			broken: error => this.end(error),
			mayMove: () => !this.keeps(),
			first: () => this.first()
		});
		parts.page.addEventListener('visibilitychange', () => this.onVisibility());
	},

	// `args`: an object, or a function that gives it whenever the stream begins (again). `take(item)` gets every item,
	// also {name: 'begin'} each time before the first one. Gives {stop, place}: `place` is [object id, number] for calls.
	// `keep`: goes on while the tab is hidden. A stream that Docker's going has ended begins again once Docker is back.
	follow(kind, args, take, { keep } = {}) {
		const entry = { kind, args, take, keep: keep ?? false, number: 0 };

		this.wanted.add(entry);

		if (this.connected)
			this.start(entry);
		else
			this.run();

		return {
			stop: () => this.forget(entry),
			place: () => this.connected && entry.number ? [ this.circle.object.id, entry.number ] : null
		};
	},

	// `listener(connected, error)` hears when the agent is lost and found
	onConnection(listener) {
		this.listeners.add(listener);
	},

	forget(entry) {
		this.wanted.delete(entry);

		if (this.connected && entry.number)
			this.close(entry.number);

		if (!this.wanted.size)
			this.drop();
	},

	close(number) {
		this.parts.calls.close(this.circle.object.id, number).catch(() => {});
	},

	onVisibility() {
		const { timer } = this.parts;

		timer.clear(this.hidden);
		this.hidden = null;
		this.circle.onVisibility();

		if (this.resting())
			this.hidden = timer.set(() => this.resting() && this.drop(), HIDDEN_MS);
		else
			this.run();
	},

	resting() {
		return this.parts.page.hidden && !this.keeps();
	},

	keeps() {
		return [ ...this.wanted ].some(entry => entry.keep);
	},

	wants() {
		return this.wanted.size > 0 && !this.resting() && !this.dropped && !this.over;
	},

	// one after the other until nobody wants anything, the tab is hidden, or the login has ended
	async run() {
		this.dropped = false;

		if (this.running)
			return;

		this.running = true;

		while (this.wants()) {
			const began = this.parts.now();
			const wait = await this.attempt();

			if (this.parts.now() - began > PAUSES_MS[PAUSES_MS.length - 1])
				this.broken = 0;

			if (wait && this.wants())
				await this.pause();
		}

		this.running = false;
	},

	pause() {
		const span = PAUSES_MS[Math.min(this.broken++, PAUSES_MS.length - 1)];

		return new Promise(done => this.parts.timer.set(done, span));
	},

	// whether to wait before the next one
	async attempt() {
		try {
			const ended = new Promise((_done, failed) => {
				this.end = failed;
			});

			const isNew = await Promise.race([ ended, this.circle.join() ]);

			this.connected = true;
			[ ...this.wanted ].filter(entry => entry !== this.circle.object.first).forEach(entry => this.start(entry));
			isNew && this.circle.lead(); // what it reads first goes in one request with what is asked for
			this.report(true);
			await ended;
		} catch (error) {
			if (error instanceof Left || error.moved)
				return false;

			this.over = error.name === 'SessionError';
			this.report(false, error);
		} finally {
			this.leave();
		}

		return true;
	},

	report(connected, error) {
		for (const listener of this.listeners)
			listener(connected, error);
	},

	// what a stream is opened with; its number comes with its first item, and so in order with all others
	begin(entry) {
		const args = typeof entry.args === 'function' ? entry.args() : entry.args;

		entry.number = 0;
		entry.isLost = false;
		entry.tag = String(++this.tags);
		entry.take({ name: 'begin' });

		return { kind: entry.kind, args: args ?? {}, owner: this.circle.id, tag: entry.tag };
	},

	// The status, which can always be had, is asked for together with a new object: a request less
	first() {
		const entry = [ ...this.wanted ].find(one => one.kind === 'status');

		return entry && { entry, spec: this.begin(entry) };
	},

	async start(entry) {
		const { object } = this.circle;

		try {
			await this.parts.calls.open({ id: object.id, ...this.begin(entry) });
		} catch (error) {
			if (this.circle.object !== object)
				return;

			if (error.name === 'SessionError')
				this.end(error);
			else
				entry.take({ name: 'error', json: { message: error.message } });
		}
	},

	hand(item) {
		if (item.name === 'opened')
			return this.bind(item.stream, item.json);

		const entry = item.stream && [ ...this.wanted ].find(one => one.number === item.stream);

		if (!entry)
			return;

		if (item.name === 'end' || item.name === 'error') // the agent has closed it
			entry.number = 0;

		this.listen(entry, item);

		try {
			entry.take(item);
		} catch (error) {
			Promise.reject(error); // one page's mistake is no reason that others hear less; the browser's console shows it
		}
	},

	// Docker may be back before the status says that it went, so each lost stream is tried again unless the status says it is away
	listen(entry, { name, json }) {
		if (name === 'error' && json?.code === LOST) {
			entry.isLost = true;
			this.parts.timer.set(() => this.revive(), LOST_MS);
		} else if (entry.kind === 'status' && json?.agent?.engine) {
			this.isEngineAway = json.agent.engine.reachable === false;
			this.revive();
		}
	},

	revive() {
		if (this.connected && !this.isEngineAway)
			[ ...this.wanted ].filter(entry => entry.isLost).forEach(entry => this.start(entry));
	},

	bind(number, { owner, tag }) {
		if (owner !== this.circle.id)
			return;

		const entry = [ ...this.wanted ].find(one => one.tag === tag);

		if (entry)
			entry.number = number;
		else
			this.close(number); // it was stopped before
	},

	// lets go, until `run`
	drop() {
		this.dropped = true;
		this.leave();
		this.end(new Left());
	},

	leave() {
		const left = this.circle.part();

		this.connected = false;

		for (const entry of this.wanted)
			entry.number = 0;

		if (left)
			this.parts.calls.leave(left.id, left.alone ? null : this.circle.id);
	}
});

return baseclass.extend({ make: parts => new Tab(parts) });
