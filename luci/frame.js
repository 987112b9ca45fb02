// SPDX-License-Identifier: GPL-2.0-or-later
// What the package puts around each page, so that a file that cannot be fetched leaves a sentence and a button instead of an
// empty page. `BUNDLES` and `make`, which gives the page's class, stand before it (luci/bundle.py).
'use strict';
'require view';

/* global BUNDLES, make */
const bundles = Promise.all(BUNDLES.map(name => L.require(name)));

bundles.catch(() => {}); // `load` tells

return view.extend({
	async load() {
		try {
			this.page = Object.create(make(...await bundles).prototype);
		} catch (error) {
			this.error = error;

			return null;
		}

		return this.page.load();
	},

	render(given) {
		return this.page ? this.page.render(given) : E('div', { 'class': 'alert-message error', 'role': 'alert' }, [
			E('p', {}, [ _('A part of this page could not be loaded: %s').format(this.error.message) ]),
			E('button', { 'type': 'button', 'class': 'btn cbi-button', 'click': () => location.reload() }, [ _('Reload the page') ])
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
