// SPDX-License-Identifier: GPL-2.0-or-later
// The options of a LuCI form section, made from a schema. Before it come `schemas` and `options`, after it the forms.
'use strict';
'require baseclass';
'require form';
'require ucidockd.dom as D';
'require ucidockd.options as options';
'require ucidockd.schemas as schemas';

const WIDGETS = { flag: form.Flag, choice: form.ListValue, list: form.DynamicList, secret: form.Value, text: form.Value };

function inputOf(option, id) {
	return option.getUIElement(id)?.node.querySelector('.add-item input');
}

// the entries of a list, and what is typed and not yet one: LuCI drops that when it was wrong at its last key stroke
function entriesOf(option, id) {
	const input = inputOf(option, id);

	input?.dispatchEvent(new Event('keyup'));

	return [ ...new Set([ option.formvalue(id) ?? [], input?.value || [] ].flat()) ];
}

// LuCI checks an entry of a list only while it is typed, but what else is set may make it wrong, and mistakes may be in the file
function checkEntries(option) {
	const wrongAt = id => entriesOf(option, id).findIndex(value => option.validate(id, value) !== true);

	option.isValid = function(id) {
		const index = wrongAt(id);

		mark(option, id, index);

		return index < 0 && this.super('isValid', [ id ]);
	};
	option.getValidationError = function(id) {
		const value = entriesOf(option, id)[wrongAt(id)];

		return value === undefined ? this.super('getValidationError', [ id ]) : '%s: %s'.format(value, option.validate(id, value));
	};
}

// shows which entry of a list is wrong, -1 for none
function mark(option, id, index) {
	option.getUIElement(id)?.node.querySelectorAll('.item').forEach((item, at) => {
		item.style.outline = at === index ? '2px solid #b94a48' : '';
	});
}

function addOption(section, tab, type, name, property) {
	const kind = schemas.kindOf(property);
	const words = [ _(property.description), schemas.effectOf(property) ].filter(Boolean).join(' ');
	const option = section.taboption(tab, WIDGETS[kind], name, _(property.title), D.escape(words));

	option.optional = true;
	option.rmempty = true;
	option.load = function(id) {
		return Promise.resolve(this.super('load', [ id ])).then(value => schemas.fromUci(type, name, property, value));
	};

	if (kind === 'flag') {
		option.default = property.default;
	} else if (kind === 'choice') {
		option.value('', property.default ? _('default (%s)').format(property.default) : _('default'));
		schemas.choicesOf(property).forEach(([ value, words ]) => option.value(value, words));
	} else {
		option.placeholder = schemas.placeholderOf(property);
		option.password = kind === 'secret';
		option.validate = function(_section, value) {
			return !value || schemas.check(type, name, property, value) || (value === this.refused?.value ? this.refused.words : true);
		};
	}

	if (kind === 'list')
		checkEntries(option);

	if (schemas.bothWays(property)) {
		option.write = function(id, value) {
			const entries = [ value ].flat();
			const wasList = Array.isArray(this.map.data.get(this.uciconfig ?? this.map.config, id, name));

			return this.super('write', [ id, entries.length > 1 || wasList ? entries : entries[0] ]);
		};
	}

	// in a table: what holds where nothing is said
	if (kind === 'choice' || kind === 'text')
		option.textvalue = function(id) {
			return this.super('textvalue', [ id ]) || D.escape(property.default || '-');
		};

	return option;
}

return baseclass.extend({
	// what the agent said of one value of a section, at its field until it is another one
	refuse(section, id, { option: name, index, message, expected }) {
		const option = section.children.find(one => one.option === name);

		if (!option)
			return;

		option.refused = { value: [ option.formvalue(id) ].flat()[index ?? 0], words: [ message, expected ].filter(Boolean).join('; ') };
		option.triggerValidation(id);
		mark(option, id, index ?? 0);
	},

	// before the agent is asked again: what it refused may be right now, since something else was changed
	forgive(section, id) {
		for (const option of section.children.filter(one => one.refused)) {
			option.refused = null;
			option.triggerValidation(id);
		}
	},

	// all options of `schema` on their tabs; gives them by name, to be refined
	add(section, type, schema) {
		const made = {};

		for (const [ tab, names ] of options.tabsOf(schema)) {
			section.tab(tab, options.titleOf(tab));

			for (const name of names) {
				made[name] = addOption(section, tab, type, name, schema.properties[name]);

				if ((schema.required ?? []).includes(name))
					made[name].optional = made[name].rmempty = false;
			}
		}

		return made;
	}
});
