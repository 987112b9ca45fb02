// SPDX-License-Identifier: GPL-2.0-or-later
// All sections of one type on a page: each folded, with its form and a button that removes it, and a button that adds one.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';

const NAME = /^[A-Za-z0-9_]+$/;

class Sections {
	// `main`: options that are shown at once, all others are folded; `given`: what a new section says at first; `titleOf(said, id)`; `prefix`: names for sections that nobody calls by
	// name; `more(option, section)`: what a field needs beside its schema; `buttons(id)`: of a section that is there already
	constructor(page, { config, type, schema, title, words, label, main, given, titleOf, prefix, more, buttons }) {
		Object.assign(this, { page, config, type, schema, main, prefix, given: given ?? {} });
		this.titleOf = titleOf ?? ((_said, id) => id);
		this.more = more ?? (() => ({}));
		this.buttons = buttons ?? (() => '');
		this.place = D.el('div', {}, uci.sections(config, type).map(one => this.one(one['.name'], false)));
		this.node = D.el('div', { 'class': 'ucid-form' }, title ? D.el('h3', {}, title) : '', words ? D.el('p', {}, words) : '', this.place, D.el('p', {}, this.adding(label)));
	}

	one(id, isNew) {
		const section = this.page.section({ config: this.config, type: this.type, id, schema: this.schema, isNew, given: this.given, isWanted: isNew || undefined });
		const field = name => section.field(name, this.more(name, section)), rest = Object.keys(this.schema.properties).filter(name => !this.main.includes(name));
		const set = rest.filter(name => section.raw[name] !== undefined).length;
		const remove = D.button('negative', _('Remove'), () => {
			section.isGone = true;
			node.remove();
			this.page.changed();
		});
		const node = editor.folded(this.titleOf(section.raw, id), [ this.main.map(field), rest.length ? editor.folded(_('Advanced'), rest.map(field), set) : '', D.el('p', {}, isNew ? '' : this.buttons(id), ' ', remove) ], 0, isNew);

		return node;
	}

	taken() {
		return [ ...uci.sections(this.config).map(one => one['.name']), ...this.page.sections.map(one => one.id) ];
	}

	adding(label) {
		if (this.prefix)
			return D.button('add', label, () => this.add('%s%d'.format(this.prefix, [ 1, 2, 3, 4, 5, 6, 7, 8, 9 ].find(number => !this.taken().includes('%s%d'.format(this.prefix, number))) ?? Date.now())));

		const input = D.el('input', { 'type': 'text', 'placeholder': _('Name: letters, digits and _'), 'aria-label': _('Name') });

		return [ input, ' ', D.button('add', label, () => {
			const name = input.value.trim();

			if (!NAME.test(name) || this.taken().includes(name))
				throw new Error(_('Enter a name of letters, digits and _ that is not in use yet.'));

			input.value = '';
			this.add(name);
		}) ];
	}

	add(name) {
		const node = this.one(name, true);

		this.place.append(node);
		node.querySelector('input')?.focus();
		this.page.changed();
	}
}

return baseclass.extend({
	make: (page, spec) => new Sections(page, spec),

	// with a Save of their own
	page(spec) {
		const page = editor.make(), node = D.el('div', { 'class': 'cbi-section' }, this.make(page, spec).node, page.bar());

		page.showMistakes(spec.mistakes);

		return node;
	}
});
