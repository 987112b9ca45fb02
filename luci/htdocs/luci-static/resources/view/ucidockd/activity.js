// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Activity: what the agent did and why, its jobs, and what happens on the engine, in one timeline.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.status as status';

const LIMIT = 500, JOBS_MS = 10000, DRAW_MS = 200;
const LEVELS = { running: 'waiting', succeeded: 'ok', failed: 'error', cancelled: 'off' };

return view.extend({
	load() {
		return null;
	},

	ofAgent() {
		return this.model.resources().flatMap(({ section, kind, name, operations }) => operations.map(note => ({
			at: note.at, source: 'agent', level: note.ok ? 'ok' : 'error', what: note.op, name, path: kind === 'container' ? section : '', why: [ note.cause, note.error ].filter(Boolean).join(': ')
		})));
	},

	ofJobs() {
		return this.jobs.map(job => ({ at: job.ended ?? job.created, source: 'job', level: LEVELS[job.state], what: job.kind, name: job.title, why: job.error?.message ?? job.state }));
	},

	ofEvent(event) {
		const attributes = event.Actor?.Attributes ?? {};
		const more = Object.entries(attributes).filter(([ key ]) => key !== 'name').map(([ key, value ]) => '%s=%s'.format(key, value));

		return {
			at: (event.timeNano ?? 0) / 1e9 || event.time, source: 'engine', level: 'off', what: '%s %s'.format(event.Type, event.Action), name: attributes.name ?? format.shortId(event.Actor?.ID),
			path: event.Type === 'container' ? event.Actor?.ID : '', why: more.join(' ')
		};
	},

	sourceWords: source => ({ agent: _('ucidockd'), job: _('Job'), engine: _('Docker') }[source]),

	row(entry) {
		return [
			format.time(entry.at), this.sourceWords(entry.source), [ D.badge(entry.level, entry.what) ],
			entry.path ? D.page([ 'container', entry.path ], entry.name) : D.el('span', { 'class': 'ucidockd-any' }, entry.name), D.el('small', { 'class': 'ucidockd-any' }, entry.why)
		];
	},

	draw() {
		const term = this.filter.value.trim().toLowerCase(), source = this.source.value, from = Date.now() / 1000 - Number(this.span.value);
		const all = [ ...this.ofAgent(), ...this.ofJobs(), ...this.events.map(event => this.ofEvent(event)) ].filter(entry => entry.at >= from);
		const shown = all.filter(entry => (!source || entry.source === source) && [ entry.what, entry.name, entry.why ].some(text => String(text).toLowerCase().includes(term)))
			.sort((one, other) => other.at - one.at).slice(0, LIMIT);

		D.fill(this.list, D.table([ _('Time'), _('By'), _('What'), _('Name'), _('Details') ], shown.map(entry => this.row(entry)), _('Nothing happened in this time.')));
	},

	soon() {
		this.timer ??= window.setTimeout(() => {
			this.timer = null;
			this.draw();
		}, DRAW_MS);
	},

	take(item) {
		// the jobs in the request that opens the stream
		if (item.name === 'begin') {
			this.events = [];
			this.lookAtJobs();
		}

		if (item.name === 'event') {
			this.events.unshift(item.json);
			this.events.length = Math.min(this.events.length, LIMIT);
		}

		this.soon();
	},

	// from when on; the engine keeps the last 256 events
	follow() {
		this.stream?.stop();
		this.events = [];
		this.stream = live.follow('events', () => ({ since: String(Math.floor(Date.now() / 1000) - Number(this.span.value)) }), item => this.take(item));
		this.draw();
	},

	async lookAtJobs() {
		if (!document.hidden)
			this.jobs = (await L.resolveDefault(calls.together().agent.job_list(), { jobs: this.jobs })).jobs;

		this.soon();
	},

	render() {
		this.model = status.make();
		this.events = [];
		this.jobs = [];
		this.list = D.el('div', {});
		this.filter = D.search(_('Filter by name or words'), () => this.draw());
		this.source = D.select(_('By'), [ [ '', _('Everything') ], [ 'agent', _('What ucidockd did') ], [ 'job', _('Jobs') ], [ 'engine', _('Docker events') ] ], () => this.draw());
		this.span = D.select(_('Since'), [ [ 3600, _('last hour') ], [ 86400, _('last day') ], [ 7 * 86400, _('last week') ] ], () => this.follow());
		this.follow();
		live.follow('status', {}, item => this.model.take(item) && this.soon());
		window.setInterval(() => this.lookAtJobs(), JOBS_MS);

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Activity')), D.bar(this.filter, this.source, this.span), this.list);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
