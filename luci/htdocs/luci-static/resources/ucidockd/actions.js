// SPDX-License-Identifier: GPL-2.0-or-later
// What a button on a container does: one that a section declares is changed in UCI (what is done to it on the engine would
// be held, or undone), any other one on the engine. `decide` is pure; `run` carries it out.
'use strict';
'require baseclass';
'require uci';
'require ui';
'require ucidockd.calls as calls';

// what UCI has to say; null: the section goes
const BY_UCI = {
	start: { state: '', enabled: '' },
	stop: { state: 'stopped' },
	remove: null,
	rename: ({ name }) => ({ name })
};
// what the engine does at once, whoever declared the container
const AT_ONCE = {
	start: () => _('%s is started now.'),
	stop: () => _('%s stops now. It gets 10 s to finish, or its own stop time-out.'),
	restart: () => _('%s is restarted now. It is down until it has stopped and started again.'),
	pause: () => _('%s is paused now: it keeps its memory, and does nothing until it is resumed.'),
	unpause: () => _('%s continues now.'),
	kill: () => _('%s is killed now, without time to finish.'),
	remove: () => _('%s is deleted now, with everything it wrote outside of volumes.'),
	rename: () => _('%s is renamed now.')
};
const QUERY = { remove: () => ({ force: true }), rename: ({ name }) => ({ name }) };

return baseclass.extend({
	// `owner`: the section's entry in the status, undefined for a container that is nobody's; `given`: {name} of a rename
	decide(action, container, owner, given) {
		if (!owner || !(action in BY_UCI))
			return { by: 'engine', method: action, id: container.Id, query: QUERY[action]?.(given) };

		// the section wants it to run already: it was stopped by hand, or failed
		const running = owner.conditions?.some(one => one.type === 'Synced' && !one.status && one.reason === 'Held');

		if (action === 'start' && running)
			return { by: 'reconcile' };

		return { by: 'uci', section: owner.section, set: typeof BY_UCI[action] === 'function' ? BY_UCI[action](given) : BY_UCI[action] };
	},

	consequence(decision, name) {
		switch (decision.by) {
		case 'uci':
			return this.ofSection(decision, name);
		case 'reconcile':
			return _('%s is started again, as its settings say.').format(name);
		default:
			return AT_ONCE[decision.method]().replace('%s', () => name);
		}
	},

	ofSection({ set }, name) {
		if (!set)
			return _('The settings of %s are deleted. The container stops, and is deleted after its grace time (120 s unless set otherwise). Its volumes stay.').format(name);

		return set.state === 'stopped' ? _('%s stops, and stays stopped until you start it again.').format(name)
			: set.state === '' ? _('%s is started, and kept running.').format(name) : _('The settings of %s are changed.').format(name);
	},

	// all of them; the changes of UCI are applied together, with LuCI's way back
	async run(decisions) {
		const edits = decisions.filter(one => one.by === 'uci');

		for (const one of decisions.filter(each => each.by === 'engine'))
			await calls.container[one.method](one.id, one.query);

		if (decisions.some(one => one.by === 'reconcile'))
			await calls.agent.reconcile();

		if (!edits.length)
			return;

		await uci.load('containers');
		edits.forEach(edit => this.edit(edit));
		await uci.save();
		await this.apply();
	},

	// what was saved, with LuCI's way back of 90 s
	async apply() {
		await ui.changes.init();
		await ui.changes.apply(true);
	},

	edit({ section, set }) {
		if (!uci.get('containers', section))
			throw new Error(_('There is no section %s in /etc/config/containers.').format(section));

		if (set === null)
			uci.remove('containers', section);

		for (const [ option, value ] of Object.entries(set ?? {}))
			value === '' ? uci.unset('containers', section, option) : uci.set('containers', section, option, value);
	}
});
