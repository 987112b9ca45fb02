// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers > one: how it is, its log, console, load, files, settings, history, and all that the engine says.
'use strict';
'require view';
'require ucidockd.buttons as buttons';
'require ucidockd.calls as calls';
'require ucidockd.consoletab as consoletab';
'require ucidockd.containertabs as containertabs';
'require ucidockd.containerinfo as containerinfo';
'require ucidockd.containerlist as rows';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.filestab as filestab';
'require ucidockd.formdata as formdata';
'require ucidockd.graph as graph';
'require ucidockd.live as live';
'require ucidockd.logview as logview';
'require ucidockd.past as past';
'require ucidockd.ports as ports';
'require ucidockd.problems as problems';
'require ucidockd.status as status';
'require ucidockd.updates as updates';
'require ucidockd.watch as watch';

const FORM_MS = 2000; // until what is shown beside the form is kept up to date: the form comes first
const EVENTS = JSON.stringify({ type: [ 'container' ] });
const OF_EXEC = (/^exec_/);

// a section's name, an id, or a name on the engine
function wordOfPage() {
	return decodeURIComponent(location.pathname.split('/').pop());
}

// a declared one by its name, which stays when the container is replaced
function logOf({ container, owner, name }) {
	return { id: owner ? name : container.Id, name };
}

return view.extend({
	async load() {
		const ask = calls.together(), inspected = L.resolveDefault(ask.container.inspect(wordOfPage()), null);

		this.asked = location.hash === '#settings' ? formdata.ask(inspected) : undefined;

		const [ containers, snapshot, likely, reach ] = await Promise.all([ watch.list(ask.container.list({ all: true })), L.resolveDefault(ask.agent.status(), {}), inspected, L.resolveDefault(ask.agent.reach(), {}) ]);

		this.reach = reach.containers;

		return { containers, snapshot, ...await this.lookAt(containers ?? [], snapshot.resources ?? [], likely) };
	},

	// {row, found}: `found` is what the engine says of it, null where there is no container; `likely`: what it said of that name
	async lookAt(containers, all, likely) {
		const word = wordOfPage(), made = rows.make(containers, all, Date.now() / 1000, this.reach);
		const row = made.find(one => one.owner?.section === word) ?? made.find(one => one.container?.Id === word) ?? made.find(one => one.name === word);
		const id = row?.container?.Id, found = !id ? null : likely?.Id === id ? likely : await L.resolveDefault(calls.container.inspect(id), null);

		return { row, found };
	},

	overviewTab() {
		this.card = D.spoken('div', {});
		this.info = D.el('div', {});
		this.drawOverview();

		return D.el('div', {}, this.card, this.info);
	},

	drawOverview() {
		const { owner, state } = this.row;

		if (!this.card)
			return;

		D.fill(this.card, owner && [ 'error', 'warning', 'waiting' ].includes(owner.level) ? problems.node(owner, true) : '');
		D.fill(this.info, D.facts([
			[ _('State'), D.badge(state.level, state.words) ], [ _('Docker image'), this.row.image ],
			...(ports.webui(this.row) ? [ [ _('Web page'), ports.webui(this.row) ] ] : []),
			...updates.factsOf(owner, () => this.refresh()),
			...(this.row.ports.length ? [ [ _('Ports'), this.row.ports.map(ports.node) ] ] : []),
			...(this.found ? containerinfo.factsOf(this.found, this.row.ports.length > 0) : [])
		]));
	},

	logsTab() {
		const [ tab, more ] = decodeURIComponent(location.hash.slice(1)).split('=');
		const made = rows.make(this.containers, this.model.resources(), 0), others = tab === 'logs' && more ? more.split(',') : [];
		const sources = [ this.row, ...made.filter(one => others.includes(one.path) && one.key !== this.row.key) ].filter(one => one.container).map(logOf);
		const add = D.select(_('Show another log too'), [ [ '', _('+ another container…') ], ...made.filter(one => one.container && !sources.some(source => source.id === logOf(one).id)).map(one => [ one.path, one.name ]) ], () => {
			location.hash = 'logs=' + [ ...others, add.value ].join(',');
			D.fill(place, this.logsTab());
		});
		const progress = files.progress(), place = D.el('div', {});

		this.log?.stop();
		this.log = logview.make(sources, options => files.download({ target: 'logs', container: sources[0].id, name: this.row.name, ...options }, progress));
		this.log.start();

		return D.fill(place, progress.node, this.log.render(add));
	},

	loadTab() {
		this.graph?.stop();
		this.graph = graph.make(this.found.Id);
		this.graph.start();

		return containertabs.load(this.graph, this.found.Id, this.row.owner);
	},

	// what was asked for with the page serves the form that is shown first
	taken() {
		const { asked } = this;

		this.asked = undefined;

		return asked;
	},

	tabs() {
		const { owner } = this.row, { found } = this, isWriter = L.hasViewPermission();
		const none = () => D.el('p', {}, this.isSilent ? watch.silence() : _('There is no container yet.'));

		return D.tabs([
			{ name: 'overview', title: _('Overview'), make: () => this.overviewTab() },
			{ name: 'logs', title: _('Logs'), make: () => found ? this.logsTab() : none() },
			isWriter && { name: 'console', title: _('Console'), make: () => found ? (this.console = consoletab.make(found.Id)).node : none() },
			{ name: 'load', title: _('Load'), make: () => found ? this.loadTab() : none() },
			isWriter && { name: 'files', title: _('Files'), make: () => found ? filestab.render(found.Id, this.row.name) : none() },
			(owner || isWriter) && { name: 'settings', title: _('Settings'), make: () => containertabs.settings(this.row.owner, this.found?.Id, this.taken()) },
			owner && { name: 'history', title: _('History'), make: () => containertabs.fetched(again => past.render(this.row.owner, again)) },
			{ name: 'inspect', title: _('Inspect'), make: () => found ? D.el('pre', { 'style': 'overflow:auto' }, JSON.stringify(this.found, null, 2)) : none() }
		].filter(Boolean));
	},

	drawHead() {
		const { owner, state } = this.row;
		const sign = JSON.stringify([ this.row.name, state, this.row.image, this.found?.Id ]);

		if (sign === this.drawn)
			return;

		this.drawn = sign;
		D.fill(this.title, this.row.name);
		D.fill(this.state, D.badge(state.level, state.words), ' ', D.el('span', { 'class': 'ucidockd-any' }, this.row.image), owner ? '' : [ ' · ', _('not managed') ]);
		D.fill(this.actions, buttons.of(this.row, decisions => this.after(decisions), true));
		this.drawOverview();
	},

	// where to when an action is done: what UCI says is applied by LuCI, which brings the page back
	after(decisions) {
		if (decisions.some(one => one.method === 'remove'))
			location.assign(L.url('admin/services/ucidockd/containers'));
		else
			this.refresh();
	},

	async look() {
		const ask = calls.together(), [ containers, reach ] = await Promise.all([ watch.list(ask.container.list({ all: true })), L.resolveDefault(ask.agent.reach(), {}) ]);

		this.reach = reach.containers;

		return { containers, ...containers && await this.lookAt(containers, this.model.resources()) };
	},

	take({ containers, row = containers ? null : { ...this.row, state: { level: 'waiting', words: watch.silence(), note: '' } }, found = this.found }) {
		if (!row)
			return this.gone();

		const isAnother = row.container?.Id !== this.row.container?.Id;

		Object.assign(this, { containers: containers ?? this.containers, isSilent: !containers, row, found });
		this.drawHead();

		if (containers && row.container?.State === 'running')
			this.log?.goOn();

		if (!isAnother)
			return;

		if (!this.stays())
			return this.drawTabs();

		found && this.console?.move(found.Id);
		window.addEventListener('hashchange', () => this.drawTabs(), { once: true });
	},

	// Whether the open tab is kept when another container comes: the form of the settings stays as it is, a log goes on with the
	// new container, and a console shows how its process ended.
	stays() {
		const [ tab ] = location.hash.slice(1).split('=');

		return tab === 'settings' || (tab === 'logs' && this.log) || (tab === 'console' && this.console);
	},

	gone() {
		if (this.isSilent)
			watch.engine(() => true, () => location.reload()); // what the page is about, Docker has to say

		D.fill(this.root, D.el('h2', {}, _('Container')), D.el('p', { 'class': 'alert-message notice' }, this.isSilent ? watch.silence() : _('This container no longer exists.')), D.page('containers', _('All containers')));
	},

	drawTabs() {
		this.log?.stop();
		this.graph?.stop();
		this.console?.close();
		this.log = this.graph = this.console = this.card = null;
		D.fill(this.pane, this.tabs());
	},

	render({ containers, snapshot, row, found }) {
		this.root = D.el('div', {});
		this.isSilent = !containers;

		if (!row) {
			this.gone();

			return this.root;
		}

		Object.assign(this, { containers: containers ?? [], row, found, drawn: null });
		this.model = status.make();
		this.model.replace(snapshot);
		this.refresh = watch.inOrder(() => this.look(), seen => this.take(seen));
		this.soon = watch.often(() => this.refresh());
		[ this.title, this.state, this.actions, this.pane ] = [ D.el('h2', {}), D.spoken('p', {}), D.el('div', { 'class': 'ucidockd-bar' }), D.el('div', {}) ];
		this.drawHead();
		this.drawTabs();
		if (location.hash === '#settings')
			window.setTimeout(() => {
				this.follow();
				this.soon(); // what changed meanwhile
			}, FORM_MS);
		else
			this.follow();

		return D.fill(this.root, D.connection(live), this.title, this.state, this.actions, this.pane);
	},

	follow() {
		live.follow('events', { filters: EVENTS }, item => item.name === 'event' && !OF_EXEC.test(item.json?.Action) && watch.isOurEvent(this.row, item.json) && this.soon());
		live.follow('status', {}, item => this.model.take(item) && item.name === 'change' && watch.isOurChange(this.row, this.isSilent, item.json) && this.soon());
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
