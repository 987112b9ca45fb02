// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers: all that are on the engine, live. What buttons do to them, `actions` decides.
'use strict';
'require view';
'require ucidockd.actions as actions';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.loads as loads';
'require ucidockd.prune as prune';
'require ucidockd.status as status';

const QUIET_MS = 300;
const LEVELS = { running: 'ok', paused: 'waiting', restarting: 'waiting', created: 'off', exited: 'off', dead: 'error' };
const EVENTS = JSON.stringify({ type: [ 'container' ] });
const RENAMED_NEVER = /^exec_/;

function nameOf(container) {
	return (container.Names[0] ?? container.Id).replace(/^\//, '');
}

function portText(port) {
	const where = port.PublicPort ? '%s:%d → '.format(port.IP?.includes(':') ? '[%s]'.format(port.IP) : port.IP ?? '', port.PublicPort) : '';

	return '%s%d/%s'.format(where, port.PrivatePort, port.Type);
}

function portLink(port) {
	const anywhere = [ '0.0.0.0', '::' ].includes(port.IP);
	const host = anywhere ? location.hostname : port.IP?.includes(':') ? '[%s]'.format(port.IP) : port.IP;

	return D.el('div', {}, port.PublicPort && port.Type === 'tcp' ? D.link('http://%s:%d/'.format(host, port.PublicPort), portText(port)) : portText(port));
}

return view.extend({
	load() {
		return Promise.all([ L.resolveDefault(calls.container.list({ all: true }), null), L.resolveDefault(calls.agent.status(), {}) ]);
	},

	visible() {
		const term = this.filter.value.toLowerCase();

		return this.containers.filter(one => [ nameOf(one), one.Image, one.State, this.model.ownerOf(one.Id)?.section ?? '' ].some(text => text.toLowerCase().includes(term)));
	},

	tick(container) {
		return D.el('input', {
			'type': 'checkbox', 'checked': this.chosen.has(container.Id) ? '' : null,
			'change': event => event.target.checked ? this.chosen.add(container.Id) : this.chosen.delete(container.Id)
		});
	},

	row(container) {
		const owner = this.model.ownerOf(container.Id);
		const found = owner && status.verdict(owner);

		return [
			L.hasViewPermission() ? this.tick(container) : '',
			[ D.page([ 'container', container.Id ], nameOf(container)), D.el('br', {}), D.el('small', {}, format.image(container.Image)) ],
			[ D.badge(LEVELS[container.State] ?? 'off', container.State), D.el('br', {}), D.el('small', {}, container.Status) ],
			this.loads.cell(container.Id),
			owner ? [ owner.section, ' ', D.badge(found.level, found.reason) ] : D.el('em', {}, _('not in UCI')),
			Object.keys(container.NetworkSettings?.Networks ?? {}).map(name => D.el('div', {}, name)),
			container.Ports.map(portLink),
			container.Command,
			format.age(container.Created, Date.now() / 1000)
		];
	},

	draw() {
		const titles = [ '', _('Name'), _('State'), _('Load'), _('Section'), _('Networks'), _('Ports'), _('Command'), _('Age') ];
		const count = this.containers.filter(one => one.State === 'running').length;

		const shown = this.visible();

		this.loads.follow(shown.filter(one => one.State === 'running').map(one => one.Id));
		D.fill(this.list, D.table(titles, shown.map(one => this.row(one)),
			this.containers.length ? _('no container fits the filter') : _('no container yet: declare one, or pull an image and declare one of it')));
		D.fill(this.footer, _('containers: %d, running: %d').format(this.containers.length, count));
	},

	async refresh() {
		const [ containers, snapshot ] = await this.load();

		if (containers)
			this.containers = containers;

		this.model.replace(snapshot);
		this.draw();
	},

	soon(item) {
		if (item.name !== 'event' || RENAMED_NEVER.test(item.json?.Action))
			return;

		window.clearTimeout(this.timer);
		this.timer = window.setTimeout(() => this.refresh(), QUIET_MS);
	},

	confirm(action, label) {
		const chosen = this.containers.filter(one => this.chosen.has(one.Id));

		if (!chosen.length)
			throw new Error(_('Choose containers first.'));

		const decisions = chosen.map(one => actions.decide(action, one, this.model.ownerOf(one.Id)));
		const texts = decisions.map((decision, index) => actions.consequence(decision, nameOf(chosen[index])));

		D.ask(label, texts, label, async () => {
			await actions.run(decisions);
			this.chosen.clear();
			await this.refresh();
		});
	},

	render([ containers, snapshot ]) {
		this.containers = containers ?? [];
		this.model = status.make();
		this.model.replace(snapshot);
		this.chosen = new Set();
		this.loads = loads.make();
		this.list = D.el('div', {});
		this.footer = D.el('p', {});
		this.filter = D.el('input', { 'type': 'text', 'placeholder': _('Filter'), 'input': () => this.draw() });
		this.draw();
		live.follow('events', { filters: EVENTS }, item => this.soon(item));
		live.follow('status', {}, item => this.model.take(item) && this.draw());

		const bulk = [ [ 'start', _('Start'), 'apply' ], [ 'stop', _('Stop'), 'neutral' ], [ 'restart', _('Restart'), 'neutral' ], [ 'pause', _('Pause'), 'neutral' ], [ 'unpause', _('Unpause'), 'neutral' ], [ 'kill', _('Kill'), 'negative' ], [ 'remove', _('Remove'), 'negative' ] ];

		return D.el('div', {},
			D.connection(live),
			D.el('h2', {}, _('Containers')),
			D.el('p', {}, this.filter, ' ', bulk.map(([ action, label, kind ]) => [ D.button(kind, label, () => this.confirm(action, label)), ' ' ]),
				prune.button('containers', _('Remove stopped'), _('All containers that are stopped go, with what they wrote outside of volumes.'), () => this.refresh()), ' ',
				L.hasViewPermission() ? D.page('add', _('Add container')) : ''),
			this.list, this.footer);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
