// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers: all of them in one table, those of UCI and others, live.
'use strict';
'require view';
'require ucidockd.buttons as buttons';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.loads as loads';
'require ucidockd.ports as ports';
'require ucidockd.prune as prune';
'require ucidockd.containerlist as rows';
'require ucidockd.status as status';
'require ucidockd.updates as updates';
'require ucidockd.watch as watch';

const AGES_MS = 30000;
const EVENTS = JSON.stringify({ type: [ 'container' ] });
const OF_EXEC = (/^exec_/);
const MANY = [ 'start', 'stop', 'restart', 'remove' ];

return view.extend({
	load() {
		return null; // an engine that is ending answers late: the page does not wait for it
	},

	all() {
		return rows.make(this.containers ?? [], this.model.resources(), Date.now() / 1000, this.reach);
	},

	tick(row) {
		return D.el('input', {
			'type': 'checkbox', 'aria-label': _('Select %s').format(row.name), 'checked': this.chosen.has(row.key) ? '' : null,
			'change': event => {
				this.chosen[event.target.checked ? 'add' : 'delete'](row.key);
				this.drawMany();
			}
		});
	},

	cells(row) {
		const done = () => this.refresh();

		return [
			L.hasViewPermission() ? this.tick(row) : '',
			[ D.el('strong', { 'class': 'ucidockd-any' }, D.page([ 'container', row.path ], row.name)), D.el('br', {}), D.el('small', { 'class': 'ucidockd-any' }, row.image), updates.isNewer(row.owner) && [ ' ', D.badge('waiting', _('update')) ] ],
			D.el('div', { 'class': 'ucidockd-state' }, D.badge(row.state.level, row.state.words), row.owner ? '' : [ ' ', D.el('small', { 'class': 'ucidockd-quiet' }, _('not managed')) ], row.state.note && D.el('div', {}, D.el('small', { 'class': 'ucidockd-any' }, D.coded(row.state.note)))),
			row.container?.State === 'running' ? this.loads.cell(row.container.Id) : '',
			[ ports.webui(row), row.ports.map(ports.node) ],
			D.el('div', { 'class': 'ucidockd-actions' }, buttons.of(row, done))
		];
	},

	// the head of a stack, whose containers are all chosen by it
	heading(name, rowsOf) {
		const running = rowsOf.filter(row => row.container?.State === 'running').length, isManaged = rowsOf.some(row => row.owner);

		return {
			key: 'stack:' + name, sign: JSON.stringify([ this.containers && running, rowsOf.map(row => row.key), rowsOf.every(row => this.chosen.has(row.key)) ]), isHeading: true,
			cells: () => [
				L.hasViewPermission() ? [ D.el('input', {
					'type': 'checkbox', 'aria-label': _('Select all of %s').format(name), 'checked': rowsOf.every(row => this.chosen.has(row.key)) ? '' : null,
					'change': event => this.choose(rowsOf, event.target.checked)
				}), ' ' ] : '',
				_('Stack %s').format(name), ' ', this.containers && D.el('small', { 'class': 'ucidockd-quiet' }, _('%d of %d running').format(running, rowsOf.length)), ' ',
				isManaged ? D.button('neutral', _('Shared settings'), () => this.openStacks()) : ''
			]
		};
	},

	choose(rowsOf, isChosen) {
		rowsOf.forEach(row => this.chosen[isChosen ? 'add' : 'delete'](row.key));
		this.table.forget(rowsOf.map(row => row.key));
		this.draw();
	},

	// stacks under their heads, after the containers that are in none
	grouped(shown) {
		const found = new Map();

		shown.forEach(row => found.set(row.stack, [ ...found.get(row.stack) ?? [], row ]));

		return [ ...found ].flatMap(([ stack, rowsOf ]) => [ ...(stack ? [ this.heading(stack, rowsOf) ] : []), ...rowsOf.map(row => this.line(row)) ]);
	},

	line(row) {
		return {
			key: row.key, sign: JSON.stringify([ row.name, row.image, row.state, row.ports, row.container?.Id, row.container?.State, row.owner?.level, row.owner?.update?.state, row.owner?.webui ]), cells: () => this.cells(row)
		};
	},

	// the forms of stacks, which are loaded now
	stackForms() {
		const place = D.el('div', {}), node = D.el('details', { 'toggle': () => {
			if (node.open && !place.firstChild)
				D.fill(place, D.later(async () => (await L.require('ucidockd.stacks')).render(this.model.agent.config_issues)));
		} }, D.el('summary', {}, _('Stacks: settings that several containers share')), place);

		return node;
	},

	openStacks() {
		this.stacks.open = true;
		this.stacks.scrollIntoView({ block: 'start' });
		this.stacks.firstChild.focus();
	},

	// `containers`: undefined until Docker has answered for the first time, null while it does not answer
	draw() {
		if (this.containers === undefined)
			return this.table.draw([], _('Loading…'));

		const all = this.all(), shown = all.filter(row => rows.fits(row, this.filter.value.trim().toLowerCase(), this.kind.value));

		this.loads.follow(shown.filter(row => row.container?.State === 'running').map(row => row.container.Id));
		this.table.draw(this.grouped(shown), this.containers ? '' : watch.silence());
		D.fill(this.footer, this.containers || all.length ? [ N_(all.length, '%d container', '%d containers').format(all.length),
			this.containers ? [ ', ', _('%d running').format(all.filter(row => row.container?.State === 'running').length) ] : '',
			shown.length < all.length ? [ ', ', _('%d hidden by the filter').format(all.length - shown.length) ] : '',
			this.containers ? '' : [ '. ', watch.silence(), ' ', _('Containers that are not managed are missing here.') ] ] : '');

		return this.drawMany();
	},

	// what can be done to several at once is there once several are chosen
	drawMany() {
		const chosen = this.all().filter(row => this.chosen.has(row.key));
		const key = chosen.map(row => row.key).join(' ');

		if (key === this.drawnMany)
			return;

		this.drawnMany = key;
		D.fill(this.many, chosen.length ? D.bar(N_(chosen.length, '%d selected:', '%d selected:').format(chosen.length),
			MANY.map(action => D.button(action === 'remove' ? 'negative' : 'neutral', buttons.labelOf(action), () => this.askMany(action))),
			D.page([ 'container', chosen[0].path ], _('Logs'), 'logs=' + chosen.slice(1).map(row => row.path).join(','), 'btn cbi-button')) : '');
	},

	askMany(action) {
		const chosen = this.all().filter(row => this.chosen.has(row.key) && (action === 'remove' || row.container || row.owner?.level === 'off'));

		buttons.ask(action, chosen, async () => {
			this.chosen.clear();
			await this.refresh();
		});
	},

	render() {
		this.model = status.make();
		this.refresh = watch.inOrder((ask = calls.together()) => Promise.all([ watch.list(ask.container.list({ all: true })), L.resolveDefault(ask.agent.reach(), {}) ]), ([ containers, reach ]) => {
			Object.assign(this, { containers, reach: reach.containers });
			this.draw();
		});
		this.soon = watch.often(() => this.refresh());
		this.chosen = new Set();
		this.loads = loads.make();
		this.table = D.keyed([ '', _('Name'), _('State'), _('CPU and memory'), _('Ports'), '' ], _('No container to show. "Add container" creates one.'));
		this.footer = D.spoken('p', { 'class': 'ucidockd-quiet' });
		this.many = D.el('div', {});
		this.stacks = L.hasViewPermission() ? this.stackForms() : '';
		this.filter = D.search(_('Filter by name, image or state'), () => this.draw());
		this.kind = D.select(_('Show'), [
			[ '', _('All') ], [ 'running', _('Running') ], [ 'trouble', _('With problems') ], [ 'stopped', _('Not running') ], [ 'declared', _('Managed') ], [ 'foreign', _('Not managed') ]
		], () => this.draw());
		this.draw();
		this.refresh();
		live.follow('events', { filters: EVENTS }, item => item.name === 'event' && !OF_EXEC.test(item.json?.Action) && this.soon());
		live.follow('status', {}, item => {
			if (!this.model.take(item))
				return;

			this.draw();
			item.name === 'change' && this.soon();
		});
		window.setInterval(() => document.hidden || this.draw(), AGES_MS);

		return D.el('div', {},
			D.connection(live),
			D.el('h2', {}, _('Containers')),
			D.bar(L.hasViewPermission() && D.page('add', _('Add container'), null, 'btn cbi-button cbi-button-add important'), this.filter, this.kind,
				D.menu(_('Clean up'), [ prune.button('containers', _('Remove stopped'), _('Removes all stopped containers that are not managed, with everything they wrote outside of volumes.'), () => this.refresh()) ])),
			this.many, this.table.node, this.footer, this.stacks);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
