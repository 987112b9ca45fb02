// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Networks: those of the engine with who uses them, and those of the router's configuration.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.inspect as inspect';
'require ucidockd.live as live';
'require ucidockd.prune as prune';
'require ucidockd.containerlist as rows';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.status as status';
'require ucidockd.watch as watch';

const CONFIG = 'containers';
const OWN = [ 'bridge', 'host', 'none' ]; // the engine's own: last

return view.extend({
	async load() {
		const [ found, readable, schema ] = await Promise.all([ this.look(), editor.load(CONFIG), schemas.load('network') ]);

		return { found, readable, schema };
	},

	async look() {
		const ask = calls.together();
		const [ networks, containers, snapshot ] = await Promise.all([
			watch.list(ask.network.list()), L.resolveDefault(ask.container.list({ all: true }), []), L.resolveDefault(ask.agent.status(), {})
		]);
		const all = snapshot.resources ?? [];

		networks?.sort((one, other) => OWN.includes(one.Name) - OWN.includes(other.Name) || one.Name.localeCompare(other.Name));

		return { networks, made: rows.make(containers, all, 0), mistakes: snapshot.agent?.config_issues, owners: new Map(all.filter(one => one.kind === 'network').map(one => [ one.object_id, one ])) };
	},

	draw({ networks, made, owners }) {
		this.isAway = !networks;

		const usersOf = network => made.filter(row => row.container?.NetworkSettings?.Networks?.[network.Name]);

		D.fill(this.list, D.table([ _('Name'), _('Used by'), _('Subnet'), _('Gateway'), _('Driver'), '' ],
			(networks ?? []).map(one => this.row(one, owners.get(one.Id), usersOf(one))), networks ? _('There is no network.') : watch.silence()));
	},

	remove(network) {
		D.ask(_('Remove network %s').format(network.Name), [ _('No container uses it. Containers that are started with it later fail until it is created again.') ], _('Remove'), async () => {
			await calls.network.remove(network.Id);
			await this.refresh();
		}, 'negative');
	},

	row(network, owner, users) {
		const subnets = network.IPAM?.Config ?? [], told = owner && status.verdict(owner);

		return [
			[ D.el('strong', { 'class': 'ucidockd-any' }, network.Name), owner ? '' : [ ' ', D.el('small', { 'class': 'ucidockd-quiet' }, OWN.includes(network.Name) ? _('built in') : _('not managed')) ],
				told && told.level !== 'ok' && D.verdict(told) ],
			D.listed(users.map(row => D.page([ 'container', row.path ], row.name))),
			subnets.map(one => D.el('div', {}, one.Subnet)), subnets.map(one => D.el('div', {}, one.Gateway ?? '-')), network.Driver,
			D.el('div', { 'class': 'ucidockd-actions' }, inspect.button(network.Name, () => calls.network.inspect(network.Id)), ' ',
				!owner && !OWN.includes(network.Name) && !users.length && D.button('negative', _('Remove'), () => this.remove(network)))
		];
	},

	render({ found, readable, schema }) {
		const declared = readable ? sections.page({ config: CONFIG, type: 'network', schema, mistakes: found.mistakes, title: _('Managed networks'), words: _('Containers in the same network reach each other by name.'), label: _('Add network'), main: [ 'driver', 'zone', 'subnet' ] }) : editor.refused();

		this.refresh = watch.inOrder(() => this.look(), again => this.draw(again));
		this.list = D.el('div', {});
		this.draw(found);
		watch.engine(() => this.isAway, () => this.refresh());

		const unused = prune.button('networks', _('Remove unused'), _('Removes all networks that no container uses and that are not managed.'), () => this.refresh());

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Networks')), D.bar(D.menu(_('Clean up'), [ unused ])), this.list, declared);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
