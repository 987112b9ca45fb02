// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's jobs with their progress. They run in the agent: whoever leaves the page and comes back sees them again.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';

const { agent } = calls;
const RUNNING_MS = 1000, QUIET_MS = 10000, SHOWN = 10;
const LEVELS = { running: 'waiting', succeeded: 'ok', failed: 'error', cancelled: 'off' };

function bar(job) {
	const percent = job.progress?.percent;

	return D.el('div', { 'class': 'cbi-progressbar', 'title': percent == null ? stateWords(job) : '%d %%'.format(percent) },
		D.el('div', { 'style': 'width:%d%%'.format(percent ?? 0) }));
}

function stateWords({ state }) {
	return { running: _('running'), succeeded: _('succeeded'), failed: _('failed'), cancelled: _('cancelled') }[state] ?? state;
}

// what a job does, as its button says it
function kindWords({ kind }) {
	return {
		pull: _('Pull image'), push: _('Push to registry'), build: _('Build image'), import: _('Import'), load: _('Load from file'), prune: _('Clean up'), move: _('Move the data')
	}[kind] ?? kind;
}

function words(job) {
	const { bytes_done: done, bytes_total: total, step } = job.progress ?? {};

	if (job.error)
		return D.said(job.error.message);

	if (job.result?.reclaimed_bytes !== undefined)
		return _('%d deleted, %s freed').format(job.result.deleted, format.bytes(job.result.reclaimed_bytes));

	return [ D.said(step), total ? ' %s / %s'.format(format.bytes(done), format.bytes(total)) : '' ];
}

const JobList = baseclass.extend({
	// `onEnd` is called when a job that was seen running has ended
	__init__(onEnd) {
		this.node = D.el('div', {});
		this.running = new Set();
		this.onEnd = onEnd;
	},

	// asks until the page goes away: often while something runs
	async start() {
		window.clearTimeout(this.timer);

		const found = await L.resolveDefault(agent.job_list(), null);

		if (found)
			this.draw(found.jobs);

		this.timer = window.setTimeout(() => document.hidden ? this.wait() : this.start(), this.running.size ? RUNNING_MS : QUIET_MS);
	},

	wait() {
		document.addEventListener('visibilitychange', () => this.start(), { once: true });
	},

	async begin(job) {
		await agent.job_start(job);
		await this.start();
	},

	draw(jobs) {
		const running = new Set(jobs.filter(job => job.state === 'running').map(job => job.id));
		const ended = [ ...this.running ].some(id => !running.has(id));

		this.running = running;

		if (ended)
			this.onEnd();

		this.rebuild(jobs.slice(0, SHOWN));

		for (const job of jobs.slice(0, SHOWN))
			D.fill(this.places.get(job.id), bar(job), words(job));
	},

	// only when a job comes or changes its state: a button that is replaced while it is pressed does nothing
	rebuild(jobs) {
		const shape = jobs.map(job => job.id + job.state).join(' ');

		if (shape === this.shape)
			return;

		this.shape = shape;
		this.places = new Map(jobs.map(job => [ job.id, D.el('div', {}) ]));
		D.fill(this.node, jobs.length ? D.table([ _('Job'), _('State'), _('Progress'), '' ], jobs.map(job => [
			[ kindWords(job), ' ', D.el('strong', {}, job.title) ], D.badge(LEVELS[job.state], stateWords(job)), this.places.get(job.id),
			job.state === 'running' ? D.button('negative', _('Cancel'), () => agent.job_cancel(job.id).then(() => this.start())) : ''
		])) : '');
	}
});

return baseclass.extend({
	LEVELS,
	kindWords,
	words,
	stateWords,
	make: onEnd => new JobList(onEnd),

	// the job when it has ended; `onStep` hears of it meanwhile
	async finished({ job }, onStep) {
		while (job.state === 'running') {
			onStep?.(job);
			await new Promise(resolve => window.setTimeout(resolve, RUNNING_MS));
			({ job } = await agent.job_status(job.id));
		}

		return job;
	}
});
