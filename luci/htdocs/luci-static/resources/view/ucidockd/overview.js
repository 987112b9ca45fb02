// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Overview: the engine, what there is, and whether it is as UCI says.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.dockerd as dockerd';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.plan as plan';
'require ucidockd.status as status';

const { agent, docker } = calls;
const DAEMON = 'daemon:dockerd';

function engineFacts(version, info, mounts) {
	return [
		[ _('Docker version'), version.Version ],
		[ _('API version'), '%s (%s)'.format(version.ApiVersion, _('%s at least').format(version.MinAPIVersion)) ],
		[ _('System'), [ info.OperatingSystem, ', ', info.KernelVersion, ', ', info.Architecture ] ],
		[ _('CPUs'), info.NCPU ],
		[ _('Memory'), format.bytes(info.MemTotal) ],
		[ _('Data root'), [ info.DockerRootDir, ' ', format.freeAt(info.DockerRootDir ?? '', mounts?.result ?? []) ] ],
		[ _('Storage driver'), info.Driver ],
		[ _('Registry'), info.IndexServerAddress ],
		[ _('Registry mirrors'), (info.RegistryConfig?.Mirrors ?? []).join(', ') || '-' ],
		[ _('Warnings'), (info.Warnings ?? []).map(text => D.el('div', {}, text)) ]
	];
}

// from API 1.52 on the engine adds up itself, and the lists are announced to go
function diskFacts(df) {
	const sum = (usage, items, pick) =>
		format.bytes(usage ? usage.TotalSize ?? 0 : (items ?? []).reduce((total, item) => total + Math.max(0, pick(item) ?? 0), 0));

	return D.facts([
		[ _('Images'), format.bytes(df.ImageUsage?.TotalSize ?? df.LayersSize ?? 0) ],
		[ _('Containers'), sum(df.ContainerUsage, df.Containers, one => one.SizeRw) ],
		[ _('Volumes'), sum(df.VolumeUsage, df.Volumes, one => one.UsageData?.Size) ],
		[ _('Build cache'), sum(df.BuildCacheUsage, df.BuildCache, one => one.Size) ]
	]);
}

return view.extend({
	load() {
		return null; // an engine that is ending answers late: the page does not wait for it
	},

	async refresh() {
		const asked = [ docker.version(), docker.info(), agent.plan(), calls.network.list(), calls.volume.list(), calls.mounts.getMountPoints() ];
		const [ version, info, pending, networks, volumes, mounts ] = await Promise.all(asked.map(one => L.resolveDefault(one, null)));

		D.fill(this.pending, pending && plan.summary(pending));
		D.fill(this.contents, info ? this.counts(info, networks, volumes) : _('The engine does not answer.'));
		D.fill(this.facts, version && info ? [
			D.facts(engineFacts(version, info, mounts)),
			D.el('details', {}, D.el('summary', {}, _('All that the engine says')), D.el('pre', { 'style': 'overflow:auto' }, JSON.stringify({ version, info }, null, 2)))
		] : '');
	},

	sync() {
		const counts = this.model.counts();
		const { engine, config_issues: issues, warnings } = this.model.agent;

		D.fill(this.state,
			D.badge('ok', _('%d in sync').format(counts.ok)), ' ', D.badge(counts.waiting ? 'waiting' : 'off', _('%d waiting').format(counts.waiting)), ' ',
			D.badge('off', _('%d off').format(counts.off)), ' ', D.badge(counts.warning ? 'warning' : 'off', _('%d with warnings').format(counts.warning)), ' ',
			D.badge(counts.error ? 'error' : 'off', _('%d in trouble').format(counts.error)), ' ',
			D.page('sync', _('Details')),
			engine?.reachable === false && D.el('p', { 'class': 'alert-message error' }, _('The engine does not answer: %s').format(engine.error)),
			(issues ?? []).map(issue => D.el('p', { 'class': 'alert-message warning' }, issue.text ?? String(issue))),
			(warnings ?? []).map(text => D.el('p', { 'class': 'alert-message warning' }, text)));
		this.onEngine(engine?.reachable !== false);
	},

	// the engine went, or came back; what was asked for by hand is shown until the agent has done it
	onEngine(reachable) {
		const waits = this.wish && this.wish.last === this.model.lastOperation(DAEMON) && this.wish.reachable === reachable;

		if (reachable === this.reachable && waits === this.waits)
			return;

		if (reachable !== this.reachable)
			this.refresh();

		this.reachable = reachable;
		this.waits = waits;
		this.wish = waits ? this.wish : null;
		D.fill(this.buttons, waits
			? D.el('p', {}, D.badge('waiting', dockerd.underWay(this.wish.action)), ' ', _('The agent was told; containers that stop are given their time.'))
			: dockerd.buttons(reachable, action => this.wished(action)));
	},

	wished(action) {
		this.wish = { action, reachable: this.reachable, last: this.model.lastOperation(DAEMON) };
		this.onEngine(this.reachable);
	},

	counts(info, networks, volumes) {
		return D.table([ _('Containers'), _('Running'), _('Paused'), _('Stopped'), _('Images'), _('Networks'), _('Volumes') ], [
			[ info.Containers, info.ContainersRunning, info.ContainersPaused, info.ContainersStopped, info.Images, networks?.length ?? '-', volumes?.Volumes?.length ?? 0 ]
		]);
	},

	disk() {
		const place = D.el('div', {});

		place.append(D.always('neutral', _('Measure'), async () => D.fill(place, diskFacts(await docker.df()))));

		return place;
	},

	render() {
		this.model = status.make();
		this.state = D.el('p', {}, _('Waiting for the agent'));

		for (const name of [ 'buttons', 'pending', 'contents', 'facts' ])
			this[name] = D.el('div', {});

		live.follow('status', {}, item => this.model.take(item) && this.sync());

		return D.el('div', {},
			D.connection(live),
			D.el('h2', {}, _('Docker')),
			D.el('h3', {}, _('Sync')), this.state, this.pending,
			D.el('h3', {}, _('Contents')), this.contents,
			D.el('h3', {}, _('Disk')), this.disk(),
			D.el('h3', {}, _('Engine')), this.buttons, this.facts);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
