// SPDX-License-Identifier: GPL-2.0-or-later
// What the schemas (the agent's own, installed beside this file) say about an option, as a form needs it.
'use strict';
'require baseclass';
'require ucidockd.checks as checks';
'require ucidockd.daemonchecks as daemonchecks';
'require ucidockd.words as words';

const WORDS = [ '0', 'no', 'off', 'false', 'disabled', '1', 'yes', 'on', 'true', 'enabled' ];

const DAEMON = [ 'globals', 'proxies', 'tls', 'firewall' ];

function isBoolean(property) {
	return Array.isArray(property.enum) && property.enum.length === WORDS.length && WORDS.every(word => property.enum.includes(word));
}

// some may be written either way, and mean another thing each: see `toUci`
function isList(property) {
	return [ property.type ].flat().includes('array');
}

// options that hold a command line: as an `option` they are split as a shell splits words (agent/model/quantities.py)
const COMMANDS = [ 'command', 'entrypoint', 'dockerd_args' ];

// the stock configuration takes several values in one `option`, ours one
function itemsOf(type, name, text) {
	if (COMMANDS.includes(name))
		return words.split(text) ?? [ text ];

	return type === 'globals' || type === 'firewall' ? text.split(/\s+/).filter(Boolean) : [ text ];
}

// what the values of an option mean; others are names that say it themselves
const OFTEN = { off: _('off'), daily: _('daily'), weekly: _('weekly') };
const CHOICES = {
	schedule: OFTEN, prune_schedule: OFTEN, update_check: OFTEN,
	prune_images: { off: _('off'), dangling: _('those without a name'), unused: _('all that nothing needs') },
	pull: { missing: _('if it is missing'), always: _('always'), never: _('never') },
	state: { running: _('running'), stopped: _('stopped') },
	on_drift: { repair: _('undo them'), report: _('only report them') },
	on_unhealthy: { report: _('only report it'), restart: _('restart the container') },
	update: { off: _('off'), notify: _('show it'), auto: _('update by itself') },
	strategy: { swap: _('stop the old one first'), handover: _('start the new one first'), 'free-first': _('make room first') },
	type: { webhook: _('web server'), mqtt: _('MQTT broker'), exec: _('command') }
};

// with the value itself, which the documentation and the file have
function choiceWords(name, value) {
	const words = CHOICES[name]?.[value];

	return words && words !== value ? '%s (%s)'.format(words, value) : value;
}

return baseclass.extend({
	// a value of UCI as a form shows it: 1 or 0 for all words of a boolean, a list for a list that is written as an `option`
	fromUci(type, name, property, value) {
		if (typeof value !== 'string')
			return value;

		if (isList(property))
			return itemsOf(type, name, value);

		return isBoolean(property) && WORDS.includes(value) ? (WORDS.indexOf(value) < 5 ? '0' : '1') : value;
	},

	packed: {}, // by section type, where the package was packed (luci/bundle.py)

	// JSON Schema of a section type
	async load(type) {
		if (this.packed[type])
			return this.packed[type];

		const response = await fetch(L.resource('ucidockd/schemas/%s.schema.json').format(type));

		if (!response.ok)
			throw new Error(_('the schema of %s is missing: status %d').format(type, response.status));

		return response.json();
	},

	// flag: yes or no, with a default; choice: one of `values`, '' for unset; list; secret; text
	kindOf(property) {
		if (isList(property))
			return 'list';

		if (isBoolean(property))
			return property.default === undefined ? 'choice' : 'flag';

		if (property.enum)
			return 'choice';

		return property.writeOnly ? 'secret' : 'text';
	},

	// a form's value as UCI has it: of what may be both, a single value is an `option`, as long as `before` was no list
	toUci(property, value, before) {
		const single = Array.isArray(property.type) && Array.isArray(value) && value.length === 1 && !Array.isArray(before);

		return single ? value[0] : value;
	},

	// [value, words] of a choice
	choicesOf(name, property) {
		return isBoolean(property) ? [ [ '1', _('yes') ], [ '0', _('no') ] ] : property.enum.map(value => [ value, choiceWords(name, value) ]);
	},

	// what an empty select says
	unsetWords(name, property) {
		if (property.default === undefined || property.default === '')
			return _('default');

		return _('default: %s').format(isBoolean(property) ? property.default === '1' ? _('yes') : _('no') : choiceWords(name, property.default));
	},

	// what an empty field says: never to be taken for a value
	placeholderOf(property) {
		const example = [ property.examples?.[0] ].flat()[0];

		return typeof property.default === 'string' && property.default !== '' ? _('default: %s').format(property.default) : example === undefined ? '' : _('e.g. %s').format(example);
	},

	// '' or what is wrong with one value: the schema's pattern, then the finer check; of dockerd's settings for each part
	check(type, name, property, value) {
		const rule = isList(property) ? property.items : property;
		const expected = rule['x-expected'] ?? rule.enum?.join(', ') ?? _('another value');
		const [ named, ...bounds ] = [ property['x-check'] ?? [] ].flat();
		const finer = checks.byName[named] ?? daemonchecks.byName[named];
		const parts = DAEMON.includes(type) ? daemonchecks.partsOf(type, name, value, isList(property)) : [ value ];

		for (const part of parts) {
			if ((rule.pattern && !new RegExp(rule.pattern).test(part)) || (rule.enum && !rule.enum.includes(part)))
				return _('expected: %s').format(expected);

			const wrong = finer ? finer(part, ...bounds) : '';

			if (wrong)
				return wrong;
		}

		return '';
	}
});
