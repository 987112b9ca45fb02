// SPDX-License-Identifier: GPL-2.0-or-later
// A dialogue with all that the engine says of an object.
'use strict';
'require baseclass';
'require ucidockd.dom as D';

return baseclass.extend({
	async show(title, asked) {
		const found = await asked;

		D.show(title, D.el('pre', { 'style': 'max-height:65vh;overflow:auto' }, JSON.stringify(found, null, 2)));
	},

	// a button that shows it
	button(title, ask) {
		return D.always('neutral', _('Inspect'), () => this.show(title, ask()));
	}
});
