// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > one container: what it is, its log, load, processes, files and a console in it.
'use strict';
'require view';
'require ui';
'require ucidockd.actions as actions';
'require ucidockd.adopt as adopt';
'require ucidockd.calls as calls';
'require ucidockd.containerinfo as containerinfo';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.graph as graph';
'require ucidockd.live as live';
'require ucidockd.logview as logview';
'require ucidockd.resources as resources';
'require ucidockd.status as status';
'require ucidockd.terminal as terminal';

const CHANGES = [ 'C', 'A', 'D' ];
const SPECIAL = [ 'host', 'none' ];
const TTYD_PORT = 7682;
const SHELLS = [ '/bin/sh', '/bin/bash', '/bin/ash' ];

function idOfPage() {
	return decodeURIComponent(location.pathname.split('/').pop());
}

function networksOf(found) {
	return Object.entries(found.NetworkSettings?.Networks ?? {});
}

return view.extend({
	load() {
		return Promise.all([ calls.container.inspect(idOfPage()).catch(error => error), L.resolveDefault(calls.agent.status(), {}) ]);
	},

	act(action, label) {
		const decision = actions.decide(action, this.found, this.owner);

		D.ask(label, [ actions.consequence(decision, this.name) ], label, async () => {
			await actions.run([ decision ]);
			this.after(decision, action === 'remove' ? L.url('admin/services/ucidockd/containers') : location.href);
		});
	},

	// what UCI says is applied by LuCI, which waits for the page before it comes back
	after(decision, next) {
		if (decision.by !== 'uci')
			location.assign(next);
	},

	rename() {
		const field = D.el('input', { 'type': 'text', 'value': this.name });
		const decided = () => actions.decide('rename', this.found, this.owner, { name: field.value.trim() });

		D.ask(_('Rename'), [ field, actions.consequence(decided(), this.name) ], _('Rename'), async () => {
			await actions.run([ decided() ]);
			this.after(decided(), location.href);
		});
	},

	buttons() {
		const isPaused = this.found.State.Paused;
		const all = [
			[ 'start', _('Start'), 'apply' ], [ 'stop', _('Stop'), 'neutral' ], [ 'restart', _('Restart'), 'neutral' ],
			isPaused ? [ 'unpause', _('Unpause'), 'neutral' ] : [ 'pause', _('Pause'), 'neutral' ], [ 'kill', _('Kill'), 'negative' ], [ 'remove', _('Remove'), 'negative' ]
		];

		return D.el('p', {}, all.map(([ action, label, kind ]) => [ D.button(kind, label, () => this.act(action, label)), ' ' ]),
			D.button('neutral', _('Rename'), () => this.rename()), ' ',
			this.owner ? ''
				: D.button('positive', _('Adopt'), () => adopt.show(this.found.Id, () => location.reload())));
	},

	// a tab whose content is fetched when it is asked for
	fetched(name, title, fetch, ...inputs) {
		const place = D.el('div', {});
		const draw = async () => D.fill(place, await fetch().catch(error => D.el('p', { 'class': 'alert-message notice' }, error.message)));

		this.onShow[name] = draw;

		return D.el('div', { 'data-tab': name, 'data-tab-title': title }, D.el('p', {}, inputs, ' ', D.always('neutral', _('Refresh'), draw)), place);
	},

	async processes() {
		const given = this.psFlags.value.trim();
		const { Titles: titles, Processes: rows } = await calls.container.top(this.found.Id, given ? { ps_args: given } : undefined);

		return D.table(titles, rows ?? []);
	},

	async changes() {
		const found = await calls.container.changes(this.found.Id) || [];

		return D.table([ '', _('Path') ], found.slice(0, 2000).map(change => [ CHANGES[change.Kind], change.Path ]), _('nothing was changed'));
	},

	// of a container that a section declares, the section says in which networks it is
	async networks() {
		const [ found, all ] = await Promise.all([ calls.container.inspect(this.found.Id), calls.network.list() ]);
		const joined = networksOf(found), names = new Set(joined.map(([ name ]) => name));
		const free = all.filter(one => !names.has(one.Name) && !SPECIAL.includes(one.Name)).map(one => one.Name).sort();
		const isFixed = this.owner !== undefined || names.has('host');
		const choice = D.el('select', {}, free.map(name => D.el('option', { 'value': name }, name)));
		const change = (method, network) => calls.network[method](network, { Container: this.found.Id }).then(() => this.onShow.networks());

		return [
			D.table([ _('Network'), _('IPv4'), _('IPv6'), _('MAC'), '' ], joined.map(([ name, one ]) => [
				name, one.IPAddress || '-', one.GlobalIPv6Address || '-', one.MacAddress || '-',
				isFixed ? '' : D.button('negative', _('Disconnect'), () => change('disconnect', name))
			]), _('in no network')),
			this.owner ? D.el('p', {}, _('The section says in which networks it is.')) : '',
			!isFixed && free.length ? D.el('p', {}, L.hasViewPermission() ? choice : '', ' ', D.button('apply', _('Connect'), () => change('connect', choice.value))) : ''
		];
	},

	filesTab() {
		if (!L.hasViewPermission())
			return null;

		const progress = files.progress(), container = this.found.Id;
		const stat = D.el('pre', {}), look = async () => {
			D.fill(stat); // else the line of the one before would stand beside an error
			D.fill(stat, format.fileStat(await calls.files.info_archive(container, { path: path.value })));
		};
		const path = D.el('input', { 'type': 'text', 'value': '/', 'placeholder': '/etc' }), chosen = D.el('input', { 'type': 'file', 'accept': '.tar' });

		return D.el('div', { 'data-tab': 'files', 'data-tab-title': _('Files') },
			D.el('p', {}, path, ' ', D.button('neutral', _('Download as tar'), () => files.download({ target: 'archive', container, path: path.value }, progress)), ' ', D.button('neutral', _('Details'), look)),
			stat,
			D.el('p', {}, chosen, ' ', D.button('neutral', _('Unpack tar there'), () => files.upload({ target: 'archive', container, path: path.value }, chosen.files[0], progress))),
			D.el('p', {}, D.button('neutral', _('Export the whole file system'), () => files.download({ target: 'export', container }, progress))),
			progress.node);
	},

	consoleTab() {
		if (!L.hasViewPermission())
			return null;

		const place = D.el('div', {}), other = D.el('p', {}), user = D.el('input', { 'type': 'text', 'placeholder': _('user') });
		const command = D.el('select', {}, SHELLS.map(shell => D.el('option', { 'value': shell }, shell)));
		const open = async () => {
			this.console?.close();
			D.fill(other);
			this.console = terminal.make({ container: this.found.Id, command: [ command.value ], user: user.value.trim() },
				() => D.fill(other, D.button('neutral', _('Try ttyd'), () => this.ttyd(other, command.value, user.value.trim()))));
			D.fill(place, this.console.render());
			await this.console.open();
		};

		return D.el('div', { 'data-tab': 'console', 'data-tab-title': _('Console') },
			D.el('p', {}, command, ' ', user, ' ', D.button('apply', _('Open'), open), ' ', D.button('neutral', _('Close'), () => this.console?.close())), other, place);
	},

	// where our own console cannot be had; ttyd asks for no password, so it listens on the router's loopback device only
	async ttyd(place, command, user) {
		await calls.ttyd.ttyd_start(this.found.Id, command, user);
		D.fill(place, _('ttyd waits on the router for one client, and ends with it; leave the shell with exit. Run this on the machine in front of you, then open the page:'), ' ',
			D.el('code', {}, 'ssh -L %d:127.0.0.1:%d root@%s'.format(TTYD_PORT, TTYD_PORT, location.hostname)), ' ',
			D.link('http://127.0.0.1:%d/'.format(TTYD_PORT), _('Open')));
	},

	tabs() {
		const log = logview.make(this.found.Id), load = graph.make(this.found.Id);

		this.psFlags = D.el('input', { 'type': 'text', 'placeholder': _('columns, such as -o pid,user,args') });

		this.onShow = { log: () => log.start(), stats: () => load.start() };

		return [
			D.el('div', { 'data-tab': 'info', 'data-tab-title': _('Info') }, D.facts(containerinfo.factsOf(this.found))),
			D.el('div', { 'data-tab': 'log', 'data-tab-title': _('Log') }, log.render()),
			D.el('div', { 'data-tab': 'stats', 'data-tab-title': _('Load') }, load.render()),
			this.fetched('networks', _('Networks'), () => this.networks()),
			this.fetched('resources', _('Resources'), () => resources.render(this.found.Id, this.owner)),
			this.fetched('processes', _('Processes'), () => this.processes(), this.psFlags),
			this.fetched('changes', _('Changes'), () => this.changes()),
			this.filesTab(), this.consoleTab(),
			this.owner && this.fetched('settings', _('Settings'), async () => (await L.require('ucidockd.form')).edit(this.owner.section)),
			D.el('div', { 'data-tab': 'inspect', 'data-tab-title': _('Inspect') }, D.el('pre', { 'style': 'overflow:auto' }, JSON.stringify(this.found, null, 2)))
		].filter(Boolean);
	},

	render([ found, snapshot ]) {
		if (found instanceof Error)
			return D.el('div', {}, D.el('h2', {}, _('Container')), D.el('p', { 'class': 'alert-message warning' }, found.message), D.page('containers', _('All containers')));

		this.found = found;
		this.name = found.Name.replace(/^\//, '');
		this.model = status.make();
		this.model.replace(snapshot);
		this.owner = this.model.ownerOf(found.Id);

		const tabs = this.tabs(), verdict = this.owner && status.verdict(this.owner);
		const group = D.el('div', {}, tabs);
		const root = D.el('div', {}, D.connection(live), D.el('h2', {}, this.name),
			D.el('p', {}, this.owner ? [ _('Section'), ' ', this.owner.section, ' ', D.badge(verdict.level, verdict.reason), ' ', verdict.message ] : D.el('em', {}, _('not in UCI'))),
			this.buttons(), group);

		for (const tab of tabs)
			tab.addEventListener('cbi-tab-active', event => this.onShow[event.detail.tab]?.());

		ui.tabs.initTabGroup(group.childNodes);

		return root;
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
