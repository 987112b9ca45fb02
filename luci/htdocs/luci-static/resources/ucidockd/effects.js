// SPDX-License-Identifier: GPL-2.0-or-later
// What a change does, in words: of an option by its schema, and of a whole change by the agent's plan for it (`preview`). Pure.
'use strict';
'require baseclass';
'require ucidockd.sentences as sentences';

const OF_OPTION = {
	nothing: () => _('does not affect running containers'),
	update: () => _('is applied without a restart'),
	run: () => _('starts or stops the container'),
	recreate: () => _('replaces the container'),
	replace: () => _('replaces the network'),
	fixed: () => _('applies to new volumes only'),
	agent: () => _('applies when the agent starts again'),
	reload: () => _('reloads dockerd'),
	restart: () => _('restarts dockerd, containers keep running'),
	stop: () => _('restarts dockerd and stops containers meanwhile')
};
const STEPS = {
	start: name => _('%s is started.').format(name), stop: name => _('%s is stopped.').format(name), unpause: name => _('%s continues.').format(name)
};
const DAEMON = 'daemon:dockerd';

function daemonText({ level }) {
	return level === 'in place' ? _('dockerd reloads its settings; nothing stops.') : _('dockerd restarts.');
}

function textOf(operation) {
	const { op, key, level, effect, down_s: down } = operation, name = key.split(':').slice(1).join(':');

	if (key === DAEMON)
		return daemonText(operation);

	switch (level) {
	case 'replace':
		return !key.startsWith('container:') ? _('The network %s is replaced; its containers lose it for a moment.').format(name)
			: down == null ? _('%s is replaced. It does not run; its volumes stay.').format(name) : _('%s is replaced: down for about %d s, its volumes stay.').format(name, down);
	case 'create':
		return _('%s is created.').format(name);
	case 'in place':
		return _('%s changes in place: no restart.').format(name);
	case 'run':
		return down != null ? _('%s is restarted: down for about %d s.').format(name, down) : STEPS[op]?.(name) ?? '%s: %s'.format(name, op);
	case 'remove':
		return '%s: %s'.format(name, sentences.say(effect || op));
	}

	return '';
}

return baseclass.extend({
	DAEMON,

	// the worst of what options of dockerd say; `stopsAll`: containers do not outlive a restart
	ofDaemon(found, stopsAll) {
		if (found.includes('stop') || (stopsAll && found.includes('restart')))
			return [ { text: _('dockerd restarts, and all containers stop meanwhile.'), heavy: true } ];

		if (found.includes('restart'))
			return [ { text: _('dockerd restarts; containers keep running.'), heavy: false } ];

		return found.includes('reload') ? [ { text: _('dockerd reloads its settings; nothing stops.'), heavy: false } ] : [];
	},

	// of an option; '' where its schema does not say
	ofOption: property => OF_OPTION[property['x-effect']]?.() ?? '',

	// [{text, heavy}, ...] of the agent's plan; `heavy`: something stops or goes
	ofPlan({ operations = [], pending = [] }) {
		const made = new Set(operations.filter(({ level }) => level === 'create' || level === 'replace').map(({ key }) => key));
		const lines = operations.filter(({ key, level }) => level !== 'run' || !made.has(key)).map(operation => ({
			text: [ textOf(operation), operation.follows?.length ? _('This also affects: %s.').format(operation.follows.join(', ')) : '' ].filter(Boolean).join(' '),
			heavy: operation.down_s != null || operation.level === 'remove' || (operation.key === DAEMON && operation.level !== 'in place')
		}));
		const waits = pending.filter(({ state }) => state === 'waiting' || state === 'conflict').map(({ key, message }) => ({ text: '%s: %s'.format(key.split(':').slice(1).join(':') || key, sentences.say(message)), heavy: false }));

		return [ ...lines, ...waits ].filter(({ text }) => text);
	}
});
