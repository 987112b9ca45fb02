// SPDX-License-Identifier: GPL-2.0-or-later
// What the schemas (the agent's own, installed beside this file) say about an option, as a form needs it.
'use strict';
'require baseclass';
'require ucidockd.checks as checks';

const WORDS = [ '0', 'no', 'off', 'false', 'disabled', '1', 'yes', 'on', 'true', 'enabled' ];

function isBoolean(property) {
	return Array.isArray(property.enum) && property.enum.length === WORDS.length && WORDS.every(word => property.enum.includes(word));
}

return baseclass.extend({
	// JSON Schema of a section type
	async load(type) {
		const response = await fetch(L.resource('ucidockd/schemas/%s.schema.json').format(type));

		if (!response.ok)
			throw new Error(_('the schema of %s is missing: status %d').format(type, response.status));

		return response.json();
	},

	// flag: yes or no, with a default; choice: one of `values`, '' for unset; list; secret; text
	kindOf(property) {
		if (property.type === 'array')
			return 'list';

		if (isBoolean(property))
			return property.default === undefined ? 'choice' : 'flag';

		if (property.enum)
			return 'choice';

		return property.writeOnly ? 'secret' : 'text';
	},

	// [value, words] of a choice
	choicesOf(property) {
		return isBoolean(property) ? [ [ '1', _('yes') ], [ '0', _('no') ] ] : property.enum.map(value => [ value, value ]);
	},

	placeholderOf(property) {
		const example = Array.isArray(property.examples?.[0]) ? property.examples[0][0] : property.examples?.[0];

		return typeof property.default === 'string' && property.default !== '' ? property.default : example;
	},

	// '' or what is wrong with one value: the schema's pattern, then the finer check
	check(type, name, property, value) {
		const rule = property.type === 'array' ? property.items : property;
		const expected = rule['x-expected'] ?? rule.enum?.join(', ') ?? _('another value');

		if ((rule.pattern && !new RegExp(rule.pattern).test(value)) || (rule.enum && !rule.enum.includes(value)))
			return _('expected: %s').format(expected);

		return checks.byOption[type]?.[name]?.(value) ?? '';
	}
});
