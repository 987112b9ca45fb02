// SPDX-License-Identifier: GPL-2.0-or-later
// The options of a LuCI form section, made from a schema. Before it come `schemas` and `options`, after it the forms.
'use strict';
'require baseclass';
'require form';
'require ucidockd.dom as D';
'require ucidockd.options as options';
'require ucidockd.schemas as schemas';

const WIDGETS = { flag: form.Flag, choice: form.ListValue, list: form.DynamicList, secret: form.Value, text: form.Value };

function addOption(section, tab, type, name, property) {
	const kind = schemas.kindOf(property);
	const option = section.taboption(tab, WIDGETS[kind], name, _(property.title), D.escape(_(property.description)));

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
		// LuCI checks an entry of a list only while it is typed
		option.getUIElement(id).node.querySelectorAll('.item')[index ?? 0]?.style.setProperty('outline', '2px solid #b94a48');
	},

	// all options of `schema` on their tabs; gives them by name, to be refined
	add(section, type, schema) {
		const made = {};

		for (const [ tab, names ] of options.tabsOf(type, schema)) {
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
