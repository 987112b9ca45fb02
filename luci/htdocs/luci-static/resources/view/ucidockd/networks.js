// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Networks: those of the engine, and those that UCI declares.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.format as format';
'require ucidockd.inspect as inspect';
'require ucidockd.prune as prune';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.status as status';

const CONFIG = 'containers';
const OWN = [ 'bridge', 'host', 'none' ];

return view.extend({
	async load() {
		const [ found, readable, schema ] = await Promise.all([ this.look(), editor.load(CONFIG), schemas.load('network') ]);

		return { found, readable, schema };
	},

	async look() {
		const [ networks, snapshot ] = await Promise.all([ L.resolveDefault(calls.network.list(), []), L.resolveDefault(calls.agent.status(), {}) ]);

		return { networks, owners: new Map((snapshot.resources ?? []).map(one => [ one.object_id, one ])) };
	},

	draw({ networks, owners }) {
		D.fill(this.list, D.table([ _('Name'), _('ID'), _('Driver'), _('Subnet'), _('Gateway'), _('Section'), '' ],
			networks.map(one => this.row(one, owners.get(one.Id))), _('The engine does not answer.')));
	},

	async refresh() {
		this.draw(await this.look());
	},

	remove(network) {
		D.ask(_('Remove network'), [ _('%s goes. The engine refuses while a container is in it.').format(network.Name) ], _('Remove'), async () => {
			await calls.network.remove(network.Id);
			await this.refresh();
		});
	},

	row(network, owner) {
		const subnets = network.IPAM?.Config ?? [];

		return [
			D.el('strong', {}, network.Name), format.shortId(network.Id), network.Driver,
			subnets.map(one => D.el('div', {}, one.Subnet)), subnets.map(one => D.el('div', {}, one.Gateway ?? '-')),
			owner ? [ owner.section, ' ', D.badge(status.verdict(owner).level, status.verdict(owner).reason) ] : D.el('em', {}, _('not in UCI')),
			[ inspect.button(network.Name, () => calls.network.inspect(network.Id)), ' ', !owner && !OWN.includes(network.Name) && D.button('negative', _('Remove'), () => this.remove(network)) ]
		];
	},

	render({ found, readable, schema }) {
		const declared = readable ? sections.page({ config: CONFIG, type: 'network', schema, title: _('Declared networks'), words: _('Containers in the same network reach each other by name.'), label: _('Add network'), main: [ 'driver', 'zone', 'subnet' ] }) : editor.refused();

		this.list = D.el('div', {});
		this.draw(found);

		const unused = prune.button('networks', _('Remove unused'), _('All networks without a container go.'), () => this.refresh());

		return D.el('div', {}, D.el('h2', {}, _('Networks')), D.el('p', {}, unused), this.list, declared);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
