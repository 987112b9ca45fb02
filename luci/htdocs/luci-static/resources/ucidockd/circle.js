// SPDX-License-Identifier: GPL-2.0-or-later
// The tabs of one browser and one session share one stream object (docs/ubus.md): one tab, the leader, reads it by long poll
// and passes each packet on over a BroadcastChannel, so that live data take one of a browser's six connections in all.
// (Web Locks would choose a leader more simply, but they need HTTPS, and not every phone has SharedWorker.)
//
// No moment of a change of leaders loses or doubles anything: a packet counts as read only when its reader asks for what comes
// after it, and each tab drops what it has. That two tabs lead for a while does no harm either: the agent ends the older
// fetch with `replaced`, and whoever hears that follows.
//
// `make` takes what it works with: `calls` {open, read, leave}, `channel` () -> BroadcastChannel or null, `page` (the document),
// `timer` {set, clear}, `now` () -> ms, `take(packet)`, `broken(error)`, `mayMove()`, `first()` -> {entry, spec} of a stream that a
// new object is opened with, or undefined.
'use strict';
'require baseclass';

const JOIN_MS = 100; // a leader answers within
const LATER_MS = 500; // of two that come at once, one opens the object within
const BEAT_MS = 2000, LOOK_MS = 1000;
const SILENT_MS = [ 5000, 8000 ]; // the leader is gone: for a visible tab, for a hidden one
const TURN_MS = [ 0, 300 ]; // a leader resigned: visible tabs are asked first
const HERE_MS = 20000, LOST_MS = 180000; // timers of a hidden tab fire once a minute
const READ_S = 15;
const AGAIN = 5, AGAIN_MS = 2000; // the agent keeps an object without a reader for 25 s

// the object has ended; `moved`: another one is there at once
class Broken extends Error {
	constructor(reason, moved) {
		super(reason);
		this.moved = moved;
	}
}

const Circle = baseclass.extend({
	__init__(parts) {
		this.parts = parts;
		this.id = parts.id;
		this.reset();
	},

	reset() {
		this.object = null; // {id, since}
		this.read = 0; // the last packet that this tab has
		this.turn = null; // while it leads
		this.others = new Map(); // tab -> when it was heard
		this.channel = null;
		this.here = null; // while it is in
		this.later = false; // another tab comes in as well, and opens the object
	},

	leads() {
		return this.turn !== null;
	},

	// which of two spans counts
	patience: (spans, { hidden }) => spans[hidden ? 1 : 0],

	// Into the object that another tab reads, else true: a new one, which the caller has to `lead`. Rejects when there is no agent.
	async join() {
		const here = this.here = {}, channel = this.channel = this.parts.channel();

		if (channel) {
			const heard = new Promise(done => {
				this.answered = done;
			});

			channel.onmessage = ({ data }) => channel === this.channel && this.hear(data);
			this.say({ word: 'join' });
			await Promise.race([ heard, this.wait(JOIN_MS) ]);

			if (this.later)
				await Promise.race([ heard, this.wait(LATER_MS) ]);
		}

		const isNew = this.here === here && !this.object && await this.open(here);

		if (this.here !== here)
			throw new Broken('left');

		this.heard = this.told = this.looked = this.parts.now();
		this.look(here);

		return isNew;
	},

	async open(here) {
		const first = this.parts.first?.();
		const { id } = await this.parts.calls.open(first?.spec);

		if (this.here !== here || this.object)
			return void this.parts.calls.leave(id);

		this.object = { id, since: this.parts.now(), first: first?.entry };

		return true;
	},

	// Gives what is to be done about the object: {id, alone}, or null.
	part() {
		const left = this.object && { id: this.object.id, alone: !this.others.size };

		this.say({ word: 'bye', leads: this.leads() });
		this.channel?.close();
		this.reset();

		return left;
	},

	// the tab was hidden or shown: a hidden one leads only when no other one can
	onVisibility() {
		if (!this.leads() || !this.parts.page.hidden || !this.others.size)
			return;

		this.turn = null;
		this.say({ word: 'resign', leads: true });
		this.candidate();
	},

	wait(span) {
		return new Promise(done => this.parts.timer.set(done, span));
	},

	say(message) {
		this.channel?.postMessage({ ...message, from: this.id, id: this.object?.id });
	},

	hear(message) {
		const { word, from, id } = message, mine = this.object?.id;

		if (word === 'bye')
			this.others.delete(from);
		else
			this.others.set(from, this.parts.now());

		if (word === 'join')
			return this.meet(from);

		if (word === 'first')
			this.later ||= message.to === this.id;

		if (word === 'lead' && id !== mine)
			return this.choose(message);

		if (id !== mine)
			return;

		switch (word) {
		case 'lead':
			this.heard = this.parts.now();
			break;
		case 'packet':
			this.heard = this.parts.now();
			message.packet.seq > this.read && this.take(message.packet);
			break;
		case 'resign':
		case 'bye':
			message.leads && this.candidate();
			break;
		case 'lost':
			message.who === this.id && this.fail(new Broken('lost', true));
			break;
		case 'closed':
			this.fail(new Broken(message.reason));
			break;
		}
	},

	// of two that come in at once, one opens the object
	meet(from) {
		if (this.leads())
			this.announce();
		else if (!this.object && from < this.id)
			this.later = true;
		else if (!this.object)
			this.say({ word: 'first', to: from });
	},

	// Another tab leads with another object, as after a sleep of the leader: the older one stays. Whoever would lose a process
	// by it stays as well, until its page goes.
	choose({ id, since, read, members, from }) {
		const { object } = this;

		if (!object) {
			this.object = { id, since };
			this.read = read;
			this.heard = this.parts.now();
			[ ...members, from ].forEach(one => one !== this.id && this.others.set(one, this.heard));
			this.answered();
		} else if (since < object.since || (since === object.since && id < object.id)) {
			this.parts.mayMove() && this.fail(new Broken('moved', true));
		} else if (this.leads()) {
			this.announce();
		}
	},

	announce() {
		this.say({ word: 'lead', since: this.object.since, read: this.read, members: [ ...this.others.keys() ] });
	},

	// takes the lead, unless another one does before
	async candidate() {
		const { object } = this, since = this.heard = this.parts.now();

		await this.wait(this.patience(TURN_MS, this.parts.page) + Math.random() * 50);

		this.object === object && object && !this.leads() && this.heard === since && this.lead();
	},

	lead() {
		const turn = this.turn = {};

		this.heard = this.parts.now();

		for (const one of this.others.keys())
			this.others.set(one, this.heard);

		this.beat(turn);
		this.readOn(turn);
	},

	beat(turn) {
		if (this.turn !== turn)
			return;

		this.announce();

		for (const [ who, heard ] of this.others)
			if (this.parts.now() - heard > LOST_MS) {
				this.others.delete(who);
				this.say({ word: 'lost', who });
				this.parts.calls.leave(this.object.id, who);
			}

		this.parts.timer.set(() => this.beat(turn), BEAT_MS);
	},

	// says that it is here, and that the leader is not
	look(here) {
		if (this.here !== here)
			return;

		const now = this.parts.now();

		// what came while the tab slept is still to be heard
		if (now - this.looked > SILENT_MS[0])
			this.heard = now;

		this.looked = now;

		if (!this.leads() && now - this.heard > this.patience(SILENT_MS, this.parts.page))
			this.lead();

		if (now - this.told > HERE_MS) {
			this.told = now;
			this.say({ word: 'here' });
		}

		this.parts.timer.set(() => this.look(here), LOOK_MS);
	},

	async readOn(turn) {
		const { id } = this.object;

		for (let left = AGAIN, wait = this.read ? READ_S : 0; this.turn === turn; wait = READ_S) {
			try {
				const answer = await this.parts.calls.read(id, this.read, wait);

				if (this.turn !== turn)
					return;

				left = AGAIN;
				answer.packets.forEach(packet => this.pass(packet));

				if (answer.closed !== undefined)
					throw new Broken(answer.closed);

				if (answer.replaced)
					[ this.turn, this.heard ] = [ null, this.parts.now() ];
			} catch (error) {
				if (this.turn !== turn)
					return;

				if (error instanceof Broken || error.name === 'SessionError' || left-- <= 0) {
					this.say({ word: 'closed', reason: error.message });
					return this.fail(error);
				}

				await this.wait(AGAIN_MS);
			}
		}
	},

	pass(packet) {
		if (packet.seq <= this.read)
			return;

		this.say({ word: 'packet', packet });
		this.take(packet);
	},

	// a gap cannot be, but if there is one it is not passed over
	take(packet) {
		if (packet.seq > this.read + 1)
			return this.fail(new Broken('a packet is missing', true));

		this.read = packet.seq;
		this.parts.take(packet);
	},

	fail(error) {
		this.turn = null;
		this.parts.broken(error);
	}
});

return baseclass.extend({ make: parts => new Circle(parts) });
