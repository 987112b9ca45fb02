// SPDX-License-Identifier: GPL-2.0-or-later
// The form of one container's section, on its page.
'use strict';
'require baseclass';
'require form';
'require ucidockd.actions as actions';
'require ucidockd.declare as declare';
'require ucidockd.dom as D';
'require ucidockd.fields as fields';
'require ucidockd.schemas as schemas';

const CONFIG = 'containers';

return baseclass.extend({
	// a node with the form of that section of /etc/config/containers; for a login that may not read it, a note
	async edit(section) {
		if (!await declare.load(CONFIG))
			return declare.refused({});

		const map = new form.Map(CONFIG, null);

		fields.add(map.section(form.NamedSection, section, 'container', null), 'container', await schemas.load('container'));

		return D.el('div', {}, await map.render(), D.el('div', { 'class': 'cbi-page-actions' },
			D.button('apply', _('Save & Apply'), () => this.apply(map)), ' ',
			D.button('reset', _('Reset'), () => map.reset())));
	},

	async apply(map) {
		await declare.save(map);
		await actions.apply();
	}
});
