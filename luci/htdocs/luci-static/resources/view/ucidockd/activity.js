// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Activity: what the agent did and why, its jobs, and what happens on the engine, in one timeline.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.jobs as jobs';
'require ucidockd.live as live';
'require ucidockd.repeats as repeats';
'require ucidockd.sentences as sentences';
'require ucidockd.status as status';

const LIMIT = 500, JOBS_MS = 10000, DRAW_MS = 200;
const UNSEEN = (/^(?:exec_|resize|top)/); // what health checks and consoles do, every few seconds
// what Docker says happened, in words; what is not here it says itself
const WORDS = {
	'container create': _('Container created'), 'container start': _('Container started'), 'container restart': _('Container restarted'), 'container stop': _('Container stopped'),
	'container die': _('Container ended'), 'container kill': _('Signal sent'), 'container oom': _('Out of memory'), 'container destroy': _('Container deleted'), 'container pause': _('Container paused'),
	'container unpause': _('Container resumed'), 'container rename': _('Container renamed'), 'container update': _('Limits changed'), 'container attach': _('Terminal attached'), 'container detach': _('Terminal detached'),
	'container health_status: healthy': _('Health check passed'), 'container health_status: unhealthy': _('Health check failed'),
	'container archive-path': _('File downloaded'), 'container extract-to-dir': _('File uploaded'), 'container export': _('File system downloaded'), 'container commit': _('Image made of a container'),
	'network create': _('Network created'), 'network connect': _('Network connected'), 'network disconnect': _('Network disconnected'), 'network destroy': _('Network deleted'), 'network remove': _('Network deleted'),
	'volume create': _('Volume created'), 'volume mount': _('Volume mounted'), 'volume unmount': _('Volume unmounted'), 'volume destroy': _('Volume deleted'),
	'image pull': _('Image pulled'), 'image push': _('Image pushed'), 'image tag': _('Image named'), 'image untag': _('Image name removed'), 'image delete': _('Image deleted'), 'image import': _('Image imported'), 'image load': _('Image loaded'), 'image save': _('Image downloaded'),
	'daemon reload': _('Settings reloaded')
};

return view.extend({
	load() {
		return null;
	},

	ofAgent() {
		return this.model.resources().flatMap(({ section, kind, name, operations }) => operations.map(note => ({
			at: note.at, source: 'agent', level: note.ok ? 'ok' : 'error', what: sentences.verb(note.op), name, path: kind === 'container' ? section : '', why: [ note.cause, note.error ].filter(Boolean).map(sentences.say).join(': ')
		})));
	},

	ofJobs() {
		return this.jobs.map(job => ({ at: job.ended ?? job.created, source: 'job', level: jobs.LEVELS[job.state], what: jobs.kindWords(job), name: job.title, why: job.error ? sentences.say(job.error.message) : jobs.stateWords(job) }));
	},

	ofEvent(event) {
		const attributes = event.Actor?.Attributes ?? {}, { image, exitCode, signal, container, destination, oldName } = attributes, action = '%s %s'.format(event.Type, event.Action);
		const more = [ image && format.image(image), exitCode && _('exit code %s').format(exitCode), signal && _('signal %s').format(signal), oldName && _('before: %s').format(oldName.replace(/^\//, '')), container && this.nameOf(container), destination ].filter(Boolean);

		return {
			at: (event.timeNano ?? 0) / 1e9 || event.time, source: 'engine', level: 'off', what: WORDS[action] ?? action, name: this.nameOf(attributes.name ?? event.Actor?.ID),
			path: event.Type === 'container' ? event.Actor?.ID : '', why: more.join(', ')
		};
	},

	// of a container whose id is all that an event says; other long ids are cut
	nameOf(id) {
		return this.model.ownerOf(id)?.name ?? this.events.find(one => one.Type === 'container' && one.Actor?.ID === id)?.Actor.Attributes?.name ?? format.cut(id);
	},

	sourceWords: source => ({ agent: _('ucidockd'), job: _('Job'), engine: _('Docker') }[source]),

	row(entry) {
		return [
			D.el('span', { 'style': 'white-space:nowrap' }, format.time(entry.at)), this.sourceWords(entry.source), [ D.badge(entry.level, entry.what) ],
			entry.path ? D.page([ 'container', entry.path ], entry.name) : D.el('div', { 'class': 'ucidockd-any ucidockd-name' }, entry.name), D.el('small', { 'class': 'ucidockd-any' }, D.coded([ entry.why, repeats.words(entry) ].filter(Boolean).join(' · ')))
		];
	},

	draw() {
		const term = this.filter.value.trim().toLowerCase(), source = this.source.value, from = Date.now() / 1000 - Number(this.span.value);
		const all = [ ...this.ofAgent(), ...this.ofJobs(), ...this.events.map(event => this.ofEvent(event)) ].filter(entry => entry.at >= from);
		const shown = all.filter(entry => (!source || entry.source === source) && [ entry.what, entry.name, entry.why ].some(text => String(text).toLowerCase().includes(term)))
			.sort((one, other) => other.at - one.at);

		const rows = repeats.group(shown);

		D.fill(this.note, rows.length > LIMIT ? [ _('The newest %d are shown; filter to find others.').format(LIMIT), ' ' ] : '', _('ucidockd keeps the last ten actions of each object and the last 100 jobs, Docker its last 256 events.'));
		this.table.draw(rows.slice(0, LIMIT).map(entry => {
			const sign = JSON.stringify(entry);

			return { key: sign, sign, cells: () => this.row(entry) };
		}), this.model.complete ? '' : _('Loading…'));
	},

	soon() {
		this.timer ??= window.setTimeout(() => {
			this.timer = null;
			this.draw();
		}, DRAW_MS);
	},

	take(item) {
		// the jobs in the request that opens the stream
		if (item.name === 'begin')
			this.lookAtJobs();

		// a stream that begins again tells some of them again; an engine that was restarted has forgotten the others
		if (item.name === 'event' && !UNSEEN.test(item.json?.Action) && !this.events.some(one => one.timeNano === item.json.timeNano)) {
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
		this.table = D.keyed([ _('Time'), _('By'), _('What'), _('Name'), _('Details') ], _('Nothing happened in this time.'));
		this.note = D.el('small', { 'class': 'ucidockd-quiet' });
		this.filter = D.search(_('Filter by name or words'), () => this.draw());
		this.source = D.select(_('By'), [ [ '', _('Everything') ], [ 'agent', _('What ucidockd did') ], [ 'job', _('Jobs') ], [ 'engine', _('Docker events') ] ], () => this.draw());
		this.span = D.select(_('Since'), [ [ 3600, _('last hour') ], [ 86400, _('last day') ], [ 7 * 86400, _('last week') ] ], () => this.follow());
		this.follow();
		live.follow('status', {}, item => this.model.take(item) && this.soon());
		window.setInterval(() => this.lookAtJobs(), JOBS_MS);

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Activity')), D.bar(this.filter, this.source, this.span), this.table.node, this.note);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
