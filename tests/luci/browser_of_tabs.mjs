// SPDX-License-Identifier: GPL-2.0-or-later
// One browser with several tabs, and the agent's stream objects, in virtual time: `settle` lets all go on that needs no time,
// `pass(ms)` lets time pass. A tab can be hidden, closed, killed (it says nothing), and put to sleep (its messages wait).
import { load } from './load.mjs';

const circle = load('ucidockd.circle'), stream = load('ucidockd.stream');

export class Clock {
	now = 1_000_000;
	#timers = new Map();
	#next = 1;

	set(call, span, tab) {
		this.#timers.set(this.#next, { at: this.now + span, call, tab });
		return this.#next++;
	}

	clear(id) {
		this.#timers.delete(id);
	}

	async settle() {
		for (let turn = 0; turn < 40; turn++)
			await new Promise(done => setImmediate(done));
	}

	async pass(span) {
		const end = this.now + span;
		await this.settle();
		for (;;) {
			const due = [ ...this.#timers ].filter(([ , one ]) => one.at <= end && !one.tab?.asleep).sort(([ , a ], [ , b ]) => a.at - b.at)[0];
			if (!due)
				break;
			this.now = Math.max(this.now, due[1].at);
			this.#timers.delete(due[0]);
			if (!due[1].tab?.dead)
				due[1].call();
			await this.settle();
		}
		this.now = end;
	}
}

// what `ucidockd.stream_*` does (agent/api/ubus/stream_tab.py), as far as the pages see it
export class Agent {
	objects = new Map();
	opened = 0;
	reads = 0;
	failing = null;
	reachable = true;
	#next = 1;

	constructor(clock) {
		this.clock = clock;
	}

	async open({ id, kind, args, owner, tag } = {}) {
		if (this.failing)
			throw this.failing;
		if (kind === 'refused')
			throw new Error('Permission denied');
		if (!id) {
			this.opened++;
			id = `object${this.#next++}`;
			this.objects.set(id, { packets: [], last: 0, streams: new Map(), streamCount: 0, fetch: null, attended: this.clock.now });
			this.#watch(id);
		}
		if (!kind)
			return { id };
		const object = this.#get(id);
		const number = ++object.streamCount;
		object.streams.set(number, { kind, args, owner });
		this.put(id, { stream: number, name: 'opened', json: { owner, tag } });
		if (kind === 'status')
			this.put(id, { stream: number, name: 'status', json: { agent: { engine: { reachable: this.reachable } } } });
		return { id, stream: number };
	}

	// an object that nobody reads ends
	#watch(id) {
		const object = this.objects.get(id);
		if (!object)
			return;
		if (object.fetch)
			object.attended = this.clock.now;
		if (this.clock.now - object.attended > 25000)
			return this.end(id, 'nobody reads');
		this.clock.set(() => this.#watch(id), 1000);
	}

	#get(id) {
		const object = this.objects.get(id);
		if (!object)
			throw new Error('failed with ubus code 4: Not found');
		return object;
	}

	put(id, ...items) {
		const object = this.#get(id);
		object.packets.push({ seq: ++object.last, items });
		this.#wake(object);
	}

	// an item for each stream of that kind
	send(kind, text, name = 'text') {
		for (const [ id, object ] of this.objects)
			for (const [ number, one ] of object.streams)
				if (one.kind === kind)
					this.put(id, { stream: number, name, text });
	}

	// Docker goes: its streams end. The status is the agent's own, and goes on
	lose() {
		for (const [ id, object ] of this.objects)
			for (const [ number, { kind } ] of object.streams)
				if (![ 'status', 'console' ].includes(kind)) {
					object.streams.delete(number);
					this.put(id, { stream: number, name: 'error', json: { code: 'engine-unreachable', message: 'Docker went away' } });
				}
	}

	// Docker goes or comes, and the status says so
	engine(reachable) {
		reachable || this.lose();
		this.reachable = reachable;
		for (const [ id, object ] of this.objects)
			for (const [ number, { kind } ] of object.streams)
				if (kind === 'status')
					this.put(id, { stream: number, name: 'change', json: { agent: { engine: { reachable } } } });
	}

	#wake(object) {
		const { fetch } = object;
		if (!fetch)
			return;
		const packets = object.packets.filter(one => one.seq > fetch.after);
		if (packets.length) {
			object.fetch = null;
			fetch.done({ packets: structuredClone(packets) });
		}
	}

	read(id, after, wait) {
		this.reads++;
		return new Promise((done, failed) => {
			if (this.failing)
				return failed(this.failing);
			const object = this.objects.get(id);
			if (!object)
				return done({ packets: [], closed: 'it is gone' });
			object.packets = object.packets.filter(one => one.seq > after);
			object.fetch?.done({ packets: [], replaced: true });
			object.attended = this.clock.now;
			const fetch = object.fetch = { after, done };
			this.clock.set(() => {
				if (object.fetch === fetch) {
					object.fetch = null;
					done({ packets: [] });
				}
			}, wait * 1000);
			this.#wake(object);
		});
	}

	async close(id, number) {
		this.objects.get(id)?.streams.delete(number);
	}

	leave(id, owner) {
		const object = this.objects.get(id);
		if (owner)
			for (const [ number, one ] of object?.streams ?? [])
				one.owner === owner && object.streams.delete(number);
		else
			this.end(id, 'closed');
	}

	end(id, reason) {
		const object = this.objects.get(id);
		this.objects.delete(id);
		object?.fetch?.done({ packets: [], closed: reason });
	}
}

export class Browser {
	clock = new Clock();
	agent = new Agent(this.clock);
	#channels = new Map();
	#next = 1;

	// `alone`: a browser without BroadcastChannel
	tab({ session = 's', hidden = false, alone = false } = {}) {
		const { agent, clock } = this, members = this.#channels.get(session) ?? new Set();
		const page = Object.assign(new EventTarget(), { hidden });
		const tab = { page, dead: false, asleep: false, waiting: [], heard: [] };
		const run = call => tab.dead || (tab.asleep ? tab.waiting.push(call) : setImmediate(() => tab.dead || call()));
		const later = promise => new Promise((done, failed) => promise.then(value => run(() => done(value)), error => run(() => failed(error))));
		this.#channels.set(session, members);
		tab.live = stream.make({
			circle: circle.make, id: `tab${String(this.#next++).padStart(3, '0')}`, page, now: () => clock.now,
			calls: {
				open: asked => later(agent.open(asked)), read: (...given) => later(agent.read(...given)),
				close: (...given) => agent.close(...given), leave: (...given) => agent.leave(...given)
			},
			timer: { set: (call, span) => clock.set(call, span, tab), clear: id => clock.clear(id) },
			channel: () => {
				if (alone)
					return null;
				const channel = {
					postMessage: message => {
						const data = structuredClone(message);
						members.forEach(one => one !== channel && one.run(() => one.onmessage?.({ data })));
					},
					close: () => members.delete(channel),
					run
				};
				members.add(channel);
				return channel;
			}
		});
		tab.live.onConnection((connected, error) => tab.heard.push(connected || error.message));
		tab.follow = (kind, how) => {
			const seen = [];
			return { seen, ...tab.live.follow(kind, {}, item => seen.push(item.text ?? item.name), how) };
		};
		tab.hide = async value => {
			page.hidden = value;
			page.dispatchEvent(new Event('visibilitychange'));
			await clock.settle();
		};
		tab.close = async () => {
			tab.live.drop();
			tab.dead = true;
			await clock.settle();
		};
		tab.kill = () => {
			tab.dead = true;
		};
		tab.sleep = () => {
			tab.asleep = tab.slept = true;
		};
		tab.wake = async () => {
			tab.asleep = false;
			for (const call of tab.waiting.splice(0)) {
				tab.dead || call();
				await clock.settle();
			}
		};
		tab.leads = () => tab.live.circle.leads();
		return tab;
	}
}
