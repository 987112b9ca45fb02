// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Registries: logins. The first one that matches an image's registry is used, tokens before passwords.
'use strict';
'require view';
'require form';
'require ucidockd.declare as declare';
'require ucidockd.schemas as schemas';

const CONFIG = 'containers';

return view.extend({
	async load() {
		return { readable: await declare.load(CONFIG), schema: await schemas.load('auth') };
	},

	render({ readable, schema }) {
		if (!readable)
			return declare.refused(this);

		this.map = new form.Map(CONFIG, _('Registries'), _('They are used for pulls and pushes, and lie in clear text in /etc/config/containers, which only root may read.'));

		const made = declare.grid(this.map, 'auth', schema, { title: _('Registry logins'), columns: [ 'serveraddress' ] });

		made.serveraddress.value('docker.io', 'Docker Hub');
		made.serveraddress.value('ghcr.io');
		made.serveraddress.value('quay.io');

		return this.map.render();
	},

	handleSave() {
		return declare.save(this.map);
	}
});
