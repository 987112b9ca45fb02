// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent says about every section, kept up to date from its status stream. Before it comes `stream` (items) or a
// call of `status` (a snapshot), after it the pages. Pure.
'use strict';
'require baseclass';

// the first condition that holds decides what a section is shown as
const VERDICTS = [
	{ type: 'Accepted', status: false, level: 'error' },
	{ type: 'Degraded', status: true, level: 'error' },
	{ type: 'RolledBack', status: true, level: 'error' },
	{ type: 'InsecureAPI', status: true, level: 'error' },
	{ type: 'EngineChanged', status: true, level: 'error' },
	{ type: 'Waiting', status: true, level: 'wait' },
	{ type: 'RestartNeeded', status: true, level: 'wait' },
	{ type: 'ImageReady', status: false, level: 'wait' },
	{ type: 'DaemonUnmanaged', status: true, level: 'off' },
	{ type: 'Synced', status: false, level: 'wait' },
	{ type: 'Healthy', status: false, level: 'wait' },
	{ type: 'Running', status: false, level: 'off' }
];
const LEVEL_OF_REASON = { Conflict: 'error', NewerVersion: 'error', CrashLoop: 'error', Held: 'off', Grace: 'off', Disabled: 'off' };

function verdict(resource) {
	const conditions = resource.conditions ?? [];

	for (const { type, status, level } of VERDICTS) {
		const found = conditions.find(condition => condition.type === type && condition.status === status);

		if (found)
			return { level: LEVEL_OF_REASON[found.reason] ?? level, type, reason: found.reason, message: found.message, since: found.since };
	}

	const synced = conditions.find(condition => condition.type === 'Synced');

	return synced
		? { level: 'ok', type: 'Synced', reason: synced.reason, message: synced.message, since: synced.since }
		: { level: 'wait', type: 'Synced', reason: 'Pending', message: '', since: 0 };
}

const Model = baseclass.extend({
	__init__() {
		this.agent = {};
		this.known = new Map();
		this.version = 0;
		this.complete = false;
	},

	// what a call of `status` gave
	replace(snapshot) {
		this.agent = snapshot.agent ?? {};
		this.known = new Map((snapshot.resources ?? []).map(resource => [ resource.key, resource ]));
		this.version = snapshot.version ?? 0;
		this.complete = true;
	},

	// one item of a `status` stream; gives whether a page has anything new to show
	take(item) {
		const value = item.json ?? {};

		switch (item.name) {
		case 'status':
			this.replace({ agent: value.agent, version: value.version });
			this.complete = false;

			return false;
		case 'resource':
			this.known.set(value.key, value);

			return false;
		case 'synced':
			this.complete = true;

			return true;
		case 'change':
			return this.change(value);
		}

		return false;
	},

	change(event) {
		this.version = event.id ?? this.version;

		if (event.agent)
			this.agent = event.agent;
		else if (event.removed)
			this.known.delete(event.key);
		else if (event.resource)
			this.known.set(event.key, event.resource);

		return this.complete;
	},

	// sorted by kind and section
	resources() {
		return Array.from(this.known.values()).sort((a, b) => a.key < b.key ? -1 : 1);
	},

	// the section's entry that a container on the engine belongs to
	ownerOf(containerId) {
		return this.resources().find(resource => resource.kind === 'container' && resource.object_id === containerId);
	},

	// when the agent last did something for it
	lastOperation(key) {
		return this.known.get(key)?.operations?.at(-1)?.at ?? 0;
	},

	counts() {
		const counts = { ok: 0, wait: 0, off: 0, error: 0 };

		for (const resource of this.known.values())
			counts[verdict(resource).level]++;

		return counts;
	}
});

return baseclass.extend({ verdict, make: () => new Model() });
