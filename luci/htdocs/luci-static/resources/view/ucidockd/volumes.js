// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Volumes: those of the engine, and those that UCI declares.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.inspect as inspect';
'require ucidockd.prune as prune';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.status as status';

const CONFIG = 'containers';

return view.extend({
	async load() {
		const [ found, readable, schema ] = await Promise.all([ this.look(), editor.load(CONFIG), schemas.load('volume') ]);

		return { found, readable, schema };
	},

	async look() {
		const [ volumes, containers, snapshot ] = await Promise.all([
			L.resolveDefault(calls.volume.list(), {}), L.resolveDefault(calls.container.list({ all: true }), []), L.resolveDefault(calls.agent.status(), {})
		]);
		const owners = (snapshot.resources ?? []).filter(one => one.kind === 'volume');

		return { volumes: volumes.Volumes ?? [], containers, owners: new Map(owners.map(one => [ one.object_id, one ])) };
	},

	draw({ volumes, containers, owners }) {
		const usersOf = name => containers.filter(one => one.Mounts.some(mount => mount.Name === name)).map(one => one.Names.join(' ').replaceAll('/', ''));

		D.fill(this.list, D.table([ _('Name'), _('Driver'), _('Place'), _('Containers'), _('Section'), '' ],
			volumes.map(one => this.row(one, owners.get(one.Name), usersOf(one.Name))), _('no volume yet: add one below, or name one in a container')));
	},

	async refresh() {
		this.draw(await this.look());
	},

	remove(volume) {
		const force = D.el('input', { 'type': 'checkbox' });

		D.ask(_('Remove volume'), [ _('All data in %s is lost for good.').format(volume.Name), [ force, ' ', _('also when its driver does not answer (force)') ] ], _('Remove'), async () => {
			await calls.volume.remove(volume.Name, force.checked ? { force: true } : undefined);
			await this.refresh();
		});
	},

	row(volume, owner, users) {
		return [
			D.el('strong', { 'style': 'overflow-wrap:anywhere' }, volume.Name), volume.Driver, D.el('small', { 'style': 'overflow-wrap:anywhere' }, volume.Mountpoint),
			users.map(name => D.el('div', {}, name)),
			owner ? [ owner.section, ' ', D.badge(status.verdict(owner).level, status.verdict(owner).reason) ] : D.el('em', {}, _('not in UCI')),
			[ inspect.button(volume.Name, () => calls.volume.inspect(volume.Name)), ' ', !owner && !users.length && D.button('negative', _('Remove'), () => this.remove(volume)) ]
		];
	},

	render({ found, readable, schema }) {
		const declared = readable ? sections.page({ config: CONFIG, type: 'volume', schema, title: _('Declared volumes'), words: _('A volume whose section is removed keeps its data, unless the agent is told otherwise in Settings.'), label: _('Add volume'), main: [ 'driver' ] }) : editor.refused();

		this.list = D.el('div', {});
		this.draw(found);

		const unused = prune.button('volumes', _('Remove unused'), _('All volumes without a name and without a container go, with their data.'), () => this.refresh());

		return D.el('div', {}, D.el('h2', {}, _('Volumes')), D.el('p', {}, unused), this.list, declared);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
