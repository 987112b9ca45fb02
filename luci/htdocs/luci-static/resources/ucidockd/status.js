// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent says about every section, kept up to date from its status stream. Before it comes `stream` (items) or a
// call of `status` (a snapshot), after it the pages. Pure.
'use strict';
'require baseclass';
'require ucidockd.sentences as sentences';

// The agent's own words, which the catalogues know (luci/i18n): a few for its state, a sentence where it has no
// more to say, and what people can do.
const labelOf = condition => _(condition.label), messageOf = condition => sentences.say(condition.message), adviceOf = condition => condition.advice ? _(condition.advice) : '';

// what a section is shown as: the agent says which of its conditions decides, and how bad it is
function verdict(resource) {
	const told = (resource.conditions ?? []).find(condition => condition.type === resource.verdict);

	return {
		level: resource.level, type: resource.verdict,
		label: told ? labelOf(told) : _('Not checked yet'), message: told ? messageOf(told) : '', advice: told ? adviceOf(told) : '', since: told?.since ?? 0,
		output: (resource.conditions ?? []).map(one => one.details?.output).find(Boolean) ?? ''
	};
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
		const counts = { ok: 0, waiting: 0, off: 0, warning: 0, error: 0 };

		for (const resource of this.known.values())
			counts[verdict(resource).level]++;

		return counts;
	}
});

return baseclass.extend({ verdict, labelOf, messageOf, adviceOf, make: () => new Model() });
