// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers > Add container.
'use strict';
'require view';
'require form';
'require uci';
'require ucidockd.declare as declare';
'require ucidockd.imagefacts as imagefacts';
'require ucidockd.schemas as schemas';

const CONFIG = 'containers';

return view.extend({
	async load() {
		return { readable: await declare.load(CONFIG), schema: await schemas.load('container') };
	},

	// what other sections are called, as far as an option takes their names
	suggest(made) {
		const names = type => uci.sections(CONFIG, type).map(section => section['.name']);

		names('network').forEach(name => made.network.value(name));
		names('volume').forEach(name => made.volume.value('%s:/data'.format(name)));
		names('container').forEach(name => made.depends_on.value(name));
		[ 'NET_ADMIN', 'NET_RAW', 'SYS_TIME', 'SYS_ADMIN', 'ALL' ].forEach(name => [ made.cap_add, made.cap_drop ].forEach(option => option.value(name)));
		[ 'no', 'always', 'unless-stopped', 'on-failure:3' ].forEach(word => made.restart.value(word));
		[ 'bridge', 'host', 'none' ].forEach(word => made.network_mode.value(word));
	},

	render({ readable, schema }) {
		if (!readable)
			return declare.refused(this);

		this.map = new form.Map(CONFIG, _('Declared containers'), _('What is declared here the agent creates, keeps running, and brings back when it is changed behind its back.'));

		const made = declare.grid(this.map, 'container', schema, { title: _('Containers'), description: _('To add one: a name, then its image and what it needs, then Save & Apply. The agent pulls the image and starts it; Sync shows how far it is.'), columns: [ 'enabled', 'image', 'state', 'restart' ],
			inform: (section, id) => imagefacts.add(section, id, 'general') });

		this.suggest(made);

		return this.map.render().then(node => {
			this.editNamed();

			return node;
		});
	},

	// the form of the section that the address names after its #
	editNamed() {
		const id = decodeURIComponent(location.hash.slice(1));

		if (id && uci.get(CONFIG, id)?.['.type'] === 'container')
			this.map.children[0].renderMoreOptionsModal(id);
	},

	handleSave() {
		return declare.save(this.map);
	}
});
