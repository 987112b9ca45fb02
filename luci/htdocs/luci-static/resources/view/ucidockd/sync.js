// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Sync: every section, what became of it and why, and what the agent would do next.
'use strict';
'require view';
'require ucidockd.adopt as adopt';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.forwardings as forwardings';
'require ucidockd.live as live';
'require ucidockd.plan as plan';
'require ucidockd.status as status';

const { agent } = calls;
const QUIET_MS = 1000;

function now() {
	return Date.now() / 1000;
}

function conditions(resource) {
	return D.table([ _('Condition'), _('Holds'), _('Reason'), _('Message'), _('For') ], resource.conditions.map(one => [
		one.type, one.status ? _('yes') : _('no'), one.reason, one.message, format.age(one.since, now())
	]));
}

function operations(resource) {
	return D.table([ _('When'), _('Operation'), _('Why'), _('Result') ], resource.operations.slice().reverse().map(note => [
		format.time(note.at), note.op, note.cause, note.ok ? _('done') : note.error
	]), _('nothing was done since the agent began'));
}

function differences(diff) {
	return D.table([ _('Option'), _('Desired'), _('Applied'), _('Observed') ], (diff.fields ?? []).map(field => [
		field.field, field.desired, field.applied, field.observed
	]), _('no difference'));
}

return view.extend({
	load() {
		return Promise.all([ L.resolveDefault(agent.plan(), null), L.resolveDefault(calls.container.list({ all: true }), []) ]);
	},

	async details(resource) {
		const diff = resource.kind === 'container' ? await L.resolveDefault(agent.diff(resource.section), null) : null;

		const output = resource.conditions.map(one => one.details?.output).find(Boolean);

		D.show(resource.key,
			D.el('div', { 'style': 'max-height:65vh;overflow:auto' },
				D.el('h4', {}, _('Conditions')), conditions(resource),
				output && [ D.el('h4', {}, _('Last lines of the failed container')), D.el('pre', {}, output) ],
				diff && [ D.el('h4', {}, _('Differences')), differences(diff) ],
				D.el('h4', {}, _('Pending')), this.pending(plan.ofSection(this.plan, resource.key)),
				D.el('h4', {}, _('Last operations')), operations(resource)));
	},

	row(resource) {
		const found = status.verdict(resource);

		return [
			resource.kind, D.el('strong', {}, resource.section),
			D.badge(found.level, found.reason), [ found.message, this.remedies(resource), found.since ? D.el('small', {}, ' ', format.age(found.since, now())) : '' ],
			[
				resource.kind === 'container' && resource.object_id ? D.page([ 'container', resource.object_id ], format.shortId(resource.object_id)) : format.shortId(resource.object_id),
				' ', D.always('neutral', _('Details'), () => this.details(resource))
			]
		];
	},

	remedies(resource) {
		return resource.conditions.map(one => [ ' ', forwardings.button(one) ]);
	},

	pending(rows) {
		return D.table([ _('Operation'), _('Section'), _('Why') ], rows.map(row => [
			row.level ? D.badge(row.level, row.op) : row.heavy ? D.badge('waiting', row.op) : row.op, row.key, row.cause
		]), plan.isKnown(this.plan) ? _('nothing to do') : _('not known: the agent or the engine does not answer'));
	},

	draw() {
		const known = new Set(this.model.resources().flatMap(resource => resource.kind === 'container' ? [ resource.object_id, resource.name ] : []));
		// not the old or the new one of a swap that is under way, which has a name of its own meanwhile
		const namesOf = one => one.Names.map(name => name.replace(/^\//, '').split('.ucidockd-')[0]);
		const foreign = this.containers.filter(one => ![ one.Id, ...namesOf(one) ].some(name => known.has(name)));
		const { generation, desired_generation: wanted, engine, config_issues: issues } = this.model.agent;

		D.fill(this.sections, D.table([ _('Kind'), _('Section'), _('State'), _('Reason'), '' ], this.model.resources().map(one => this.row(one)), _('no section declares anything')));
		D.fill(this.next, this.pending(plan.rows(this.plan)));
		D.fill(this.others, D.table([ _('Name'), _('Image'), _('State'), '' ], foreign.map(one => [
			one.Names.join(' ').replaceAll('/', ''), one.Image, one.Status,
			D.button('positive', _('Adopt'), () => adopt.show(one.Id, () => this.refresh()))
		]), _('no container runs that UCI does not know')));
		D.fill(this.agentState,
			engine?.reachable === false ? D.el('p', { 'class': 'alert-message error' }, _('The engine does not answer: %s').format(engine.error)) : '',
			wanted && generation === wanted ? D.badge('ok', _('the configuration was reached')) : D.badge('waiting', _('on the way to the configuration')),
			(issues ?? []).map(issue => D.el('p', { 'class': 'alert-message warning' }, issue.text ?? String(issue))));
	},

	async refresh() {
		[ this.plan, this.containers ] = await this.load();
		this.draw();
	},

	take(item) {
		if (!this.model.take(item))
			return;

		this.draw();
		window.clearTimeout(this.timer);
		this.timer = window.setTimeout(() => this.refresh(), QUIET_MS);
	},

	async reconcile() {
		const answer = await agent.reconcile();

		for (const failed of answer.failed ?? [])
			D.notify('error', failed.key, ': ', failed.op, ': ', failed.error);

		await this.refresh();
	},

	render([ pending, containers ]) {
		this.plan = pending;
		this.containers = containers;
		this.model = status.make();

		for (const name of [ 'agentState', 'sections', 'next', 'others' ])
			this[name] = D.el('div', {});

		live.follow('status', {}, item => this.take(item));

		return D.el('div', {},
			D.connection(live),
			D.el('h2', {}, _('Sync')), this.agentState,
			D.el('p', {}, D.button('apply', _('Reconcile now'), () => this.reconcile())),
			this.sections,
			D.el('h3', {}, _('Pending')), this.next,
			D.el('h3', {}, _('Not in UCI')), this.others);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
