// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers > one: how it is, its log, console, load, files, settings, history, and all that the engine says.
'use strict';
'require view';
'require ucidockd.buttons as buttons';
'require ucidockd.calls as calls';
'require ucidockd.consoletab as consoletab';
'require ucidockd.containerinfo as containerinfo';
'require ucidockd.containerlist as rows';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.filestab as filestab';
'require ucidockd.graph as graph';
'require ucidockd.live as live';
'require ucidockd.logview as logview';
'require ucidockd.networksof as networksof';
'require ucidockd.past as past';
'require ucidockd.ports as ports';
'require ucidockd.problems as problems';
'require ucidockd.status as status';
'require ucidockd.updates as updates';

const QUIET_MS = 300;
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

// a place whose content is fetched, again on request; `fetch(again)` gives it
function fetched(fetch, ...inputs) {
	const place = D.el('div', {});
	const draw = async () => D.fill(place, await fetch(draw).catch(error => D.el('p', { 'class': 'alert-message notice' }, D.wordsOf(error))));

	draw();

	return D.el('div', {}, D.bar(inputs, D.always('neutral', _('Refresh'), draw)), place);
}

return view.extend({
	async load() {
		const ask = calls.together(), [ containers, snapshot, likely ] = await Promise.all([
			L.resolveDefault(ask.container.list({ all: true }), null), L.resolveDefault(ask.agent.status(), {}), L.resolveDefault(ask.container.inspect(wordOfPage()), null)
		]);

		return { containers, snapshot, ...await this.lookAt(containers ?? [], snapshot.resources ?? [], likely) };
	},

	// {row, found}: `found` is what the engine says of it, null where there is no container; `likely`: what it said of that name
	async lookAt(containers, all, likely) {
		const word = wordOfPage(), made = rows.make(containers, all, Date.now() / 1000);
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
			[ _('State'), D.badge(state.level, state.words) ], [ _('Image'), this.row.image ],
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
		const flags = D.el('input', { 'type': 'text', 'placeholder': _('columns, such as -o pid,user,args'), 'aria-label': _('Columns of ps') });

		this.graph?.stop();
		this.graph = graph.make(this.found.Id);
		this.graph.start();

		const { owner } = this.row;

		return D.el('div', {}, this.graph.render(), owner && [ D.el('h3', {}, _('The last 24 hours')), fetched(() => graph.day(owner.section)) ], D.el('h3', {}, _('Processes')), fetched(async () => {
			const given = flags.value.trim(), { Titles: titles, Processes: found } = await calls.container.top(this.found.Id, given ? { ps_args: given } : undefined);

			return D.table(titles, found ?? []);
		}, flags));
	},

	settingsTab() {
		const { owner } = this.row;

		if (owner)
			return D.later(async () => {
				const form = await (await L.require('ucidockd.form')).edit(owner.section);

				// who came here to edit may type at once
				window.setTimeout(() => document.activeElement === document.body && form.querySelector('input')?.focus({ preventScroll: true }));

				return form;
			});

		const { Id: id } = this.found;

		return D.el('div', {},
			D.el('p', {}, _('This container is not managed. Changes made here are lost when it is created again; adopt it to keep its settings in the router\'s configuration.')),
			D.el('h3', {}, _('Networks')), fetched(again => networksof.render(id, owner, again)),
			D.el('h3', {}, _('Limits')), fetched(async () => (await L.require('ucidockd.resources')).render(id, owner)));
	},

	tabs() {
		const { owner } = this.row, { found } = this, isWriter = L.hasViewPermission();
		const none = () => D.el('p', {}, this.isSilent ? _('Docker does not answer.') : _('There is no container yet.'));

		return D.tabs([
			{ name: 'overview', title: _('Overview'), make: () => this.overviewTab() },
			{ name: 'logs', title: _('Logs'), make: () => found ? this.logsTab() : none() },
			isWriter && { name: 'console', title: _('Console'), make: () => found ? (this.console = consoletab.make(found.Id)).node : none() },
			{ name: 'load', title: _('Load'), make: () => found ? this.loadTab() : none() },
			isWriter && { name: 'files', title: _('Files'), make: () => found ? filestab.render(found.Id, this.row.name, decodeURIComponent(location.hash.slice(1)).split('=')[1]) : none() },
			(owner || isWriter) && { name: 'settings', title: _('Settings'), make: () => this.settingsTab() },
			owner && { name: 'history', title: _('History'), make: () => fetched(again => past.render(this.row.owner, again)) },
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

	async refresh() {
		const containers = await L.resolveDefault(calls.container.list({ all: true }), null);

		const { row, found } = containers ? await this.lookAt(containers, this.model.resources()) : { row: { ...this.row, state: { level: 'waiting', words: _('Docker does not answer.'), note: '' } }, found: this.found };

		if (!row)
			return this.gone();

		const isAnother = row.container?.Id !== this.row.container?.Id;

		if (containers && this.isSilent)
			this.graph?.again(); // its stream ended with dockerd

		Object.assign(this, { containers: containers ?? this.containers, isSilent: !containers, row, found });
		this.drawHead();

		// the form of its settings stays as it is, whatever became of the container meanwhile; its log goes on with the new one
		if (isAnother && !(/^#(settings|logs)/).test(location.hash))
			this.drawTabs();
		else if (isAnother)
			window.addEventListener('hashchange', () => this.drawTabs(), { once: true });
	},

	gone() {
		D.fill(this.root, D.el('h2', {}, _('Container')), D.el('p', { 'class': 'alert-message notice' }, this.isSilent ? _('Docker does not answer.') : _('This container no longer exists.')), D.page('containers', _('All containers')));
	},

	drawTabs() {
		this.log?.stop();
		this.graph?.stop();
		this.console?.close();
		this.log = this.graph = this.console = this.card = null;
		D.fill(this.pane, this.tabs());
	},

	soon() {
		window.clearTimeout(this.timer);
		this.timer = window.setTimeout(() => this.refresh(), QUIET_MS);
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
		[ this.title, this.state, this.actions, this.pane ] = [ D.el('h2', {}), D.spoken('p', {}), D.el('div', { 'class': 'ucidockd-bar' }), D.el('div', {}) ];
		this.drawHead();
		this.drawTabs();
		live.follow('events', { filters: EVENTS }, item => item.name === 'event' && !OF_EXEC.test(item.json?.Action) && this.soon());
		live.follow('status', {}, item => this.model.take(item) && item.name === 'change' && this.soon());

		return D.fill(this.root, D.connection(live), this.title, this.state, this.actions, this.pane);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
