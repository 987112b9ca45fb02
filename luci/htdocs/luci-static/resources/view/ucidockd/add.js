// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers > Add container: an empty form, or one that a `docker run` line, a compose file or another container fills.
'use strict';
'require view';
'require uci';
'require ucidockd.clone as clone';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.form as form';

const CONFIG = 'containers';

return view.extend({
	load: () => form.prepare(),

	show(given) {
		D.fill(this.place, form.create(this.prepared, given));
		this.place.querySelector('input').focus();
	},

	// from another container
	copy() {
		const names = uci.sections(CONFIG, 'container').map(section => section['.name']);
		const choice = D.el('select', { 'aria-label': _('Container') }, names.map(name => D.el('option', { 'value': name }, name)));
		const use = () => this.show({ name: clone.freeName(choice.value, uci.sections(CONFIG).map(one => one['.name'])), given: Object.fromEntries(clone.valuesOf(uci.get(CONFIG, choice.value))) });

		return names.length ? D.el('p', {}, choice, ' ', D.button('neutral', _('Copy its settings'), use)) : D.el('p', {}, _('No container is declared yet.'));
	},

	render(prepared) {
		if (!prepared)
			return editor.refused();

		this.prepared = prepared;
		this.place = D.el('div', {});

		const node = D.el('div', {}, D.el('h2', {}, _('Add container')), editor.folded(_('Copy from another container'), this.copy()), this.place);

		this.show();

		return node;
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
