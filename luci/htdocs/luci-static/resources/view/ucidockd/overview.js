// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Overview: whether everything is all right, what is not and what helps, how full the router is, and what comes next.
'use strict';
'require view';
'require ucidockd.adopt as adopt';
'require ucidockd.calls as calls';
'require ucidockd.dockerd as dockerd';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.plan as plan';
'require ucidockd.problems as problems';
'require ucidockd.containerlist as rows';
'require ucidockd.sentences as sentences';
'require ucidockd.status as status';
'require ucidockd.updates as updates';
'require ucidockd.watch as watch';

const { docker } = calls;
const DAEMON = 'daemon:dockerd';
const METERS_MS = 10000;
const OTHERS = 5; // not managed, that are named

function now() {
	return Date.now() / 1000;
}

return view.extend({
	load() {
		return null; // an engine that is ending answers late: the page does not wait for it
	},

	look() {
		const ask = calls.together();

		return Promise.all([ ...[ ask.docker.info(), ask.agent.plan(), ask.container.list({ all: true }) ].map(one => L.resolveDefault(one, null)), this.measure() ]);
	},

	take([ info, pending, containers ]) {
		this.info = info ?? this.info;
		this.plan = pending;
		this.containers = containers;
		this.draw();
		this.drawMeters();
	},

	// everything in one sentence: {level, words}
	sentence(found, issues) {
		const { engine, generation, desired_generation: wanted } = this.model.agent;
		const count = level => found.filter(one => one.level === level).length;
		const errors = count('error') + issues.length, warnings = count('warning'), waiting = count('waiting');
		const running = this.containers?.filter(one => one.State === 'running').length ?? 0;

		if (engine?.reachable === false)
			return { level: 'error', words: _('Docker does not answer: %s').format(sentences.say(engine.error)) };

		const held = waiting && N_(waiting, '%d thing is waiting.', '%d things are waiting.').format(waiting);

		if (errors)
			return { level: 'error', words: [ N_(errors, '%d problem needs your attention.', '%d problems need your attention.').format(errors), held ].filter(Boolean).join(' ') };

		if (wanted && generation !== wanted)
			return { level: 'waiting', words: _('Changes are being applied.') };

		if (waiting)
			return { level: 'waiting', words: held };

		if (warnings)
			return { level: 'warning', words: N_(warnings, 'Everything works, with %d warning.', 'Everything works, with %d warnings.').format(warnings) };

		return { level: 'ok', words: [ _('Everything is all right.'), N_(running, '%d container is running.', '%d containers are running.').format(running) ].join(' ') };
	},

	draw() {
		if (!this.model.complete)
			return;

		const all = this.model.resources(), found = problems.of(all), issues = problems.issuesOf(this.model.agent, all);
		const { level, words } = this.sentence(found, issues);
		const next = plan.rows(this.plan).filter(row => !row.level);

		this.show('sentenceNode', [ level, words ], () => [ D.badge(level, level === 'ok' ? '✓' : '!'), ' ', D.coded(words) ]);
		this.problems.draw(found, [ ...issues.map(text => problems.issueNode(text, all)),
			...(this.model.agent.warnings ?? []).map(text => D.el('p', { 'class': 'alert-message warning' }, D.coded(sentences.say(text)))) ]);
		this.show('next', next, () => next.length ? [ D.el('h3', {}, _('What happens next')), D.table([ _('What'), _('Where'), _('Why') ], next.map(row => [ D.badge(row.heavy ? 'waiting' : 'off', sentences.verb(row.op)), row.key.split(':').slice(1).join(':'), D.coded(sentences.say(row.cause)) ])) ] : '');
		this.show('updates', all.filter(updates.isNewer).map(one => [ one.name, one.update ]), () => updates.list(all, now()));
		this.count(all);
		this.onEngine(this.model.agent.engine?.reachable !== false);
	},

	// in the place of that name, once `sign` is another: a button that is replaced while it is pressed does nothing
	show(name, sign, content) {
		const text = JSON.stringify(sign);

		if (this.signs[name] === text)
			return;

		this.signs[name] = text;
		D.fill(this[name], content());
	},

	// how many there are, as the way to them
	count(all) {
		if (this.containers === undefined)
			return;

		const made = rows.make(this.containers ?? [], all, now()), images = this.containers && this.info?.Images, running = made.filter(row => row.container?.State === 'running').length;

		this.show('counts', [ made.length, this.containers && running, images ], () => [ D.page('containers', N_(made.length, '%d container', '%d containers').format(made.length)), this.containers ? [ ' (', _('%d running').format(running), ')' ] : '',
			Number.isFinite(images) ? [ ' · ', D.page('images', N_(images, '%d image', '%d images').format(images)) ] : '' ]);
		this.drawOthers(made.filter(row => !row.owner));
	},

	// those that no section declares, with the way to change that
	drawOthers(others) {
		this.show('others', others.map(row => row.key), () => others.length && L.hasViewPermission() ? D.bar(_('Not managed:'), others.slice(0, OTHERS).map(row => [
			D.el('span', { 'class': 'ucidockd-any' }, D.page([ 'container', row.path ], row.name)), D.button('positive', _('Adopt'), () => adopt.show(row.container.Id, row.name, () => this.refresh()))
		]), others.length > OTHERS ? D.page('containers', _('and %d more').format(others.length - OTHERS)) : '') : '');
	},

	async measure() {
		const [ system, mounts ] = await Promise.all([ L.resolveDefault(calls.system.info(), {}), L.resolveDefault(calls.mounts.getMountPoints(), {}) ]);

		this.measured = { system, mounts };
	},

	// CPU, memory and disk; they are measured as long as the page is looked at
	async meter() {
		if (document.hidden || !this.info)
			return;

		await this.measure();
		this.drawMeters();
	},

	drawMeters() {
		const { system, mounts } = this.measured;
		const root = this.info?.DockerRootDir, disk = root && format.mountOf(root, mounts.result ?? []);
		const { total, available, free } = system.memory ?? {}, cpus = this.info?.NCPU, load = (system.load?.[0] ?? 0) / 65536;
		const text = (used, all) => _('%s of %s used').format(format.bytes(used), format.bytes(all));

		D.fill(this.meters,
			system.load && cpus && D.meter(_('CPU load'), load, cpus, _('%s (%d CPUs)').format(load.toFixed(1), cpus)),
			total && D.meter(_('Memory'), total - (available ?? free), total, text(total - (available ?? free), total)),
			disk && D.meter(_('Disk of %s').format(root), disk.size - disk.avail, disk.size, text(disk.size - disk.avail, disk.size)));
	},

	// the engine went, or came back; what was asked for is shown until the agent has done it
	onEngine(reachable) {
		const { dockerd: whose } = this.model.agent, waits = this.wish && this.wish.last === this.model.lastOperation(DAEMON) && this.wish.reachable === reachable;

		if (reachable === this.reachable && waits === this.waits && whose?.starts === this.starts)
			return;

		if (this.reachable !== undefined && reachable !== this.reachable)
			this.soon();

		this.reachable = reachable;
		this.waits = waits;
		this.starts = whose?.starts;
		this.wish = waits ? this.wish : null;
		D.fill(this.buttons, waits
			? D.el('p', {}, D.badge('waiting', dockerd.underWay(this.wish.action)), ' ', _('Containers get time to stop.'))
			: dockerd.buttons(reachable, action => this.wished(action), whose));
	},

	wished(action) {
		this.wish = { action, reachable: this.reachable, last: this.model.lastOperation(DAEMON) };
		this.onEngine(this.reachable);
	},

	engine() {
		const place = D.el('div', {}), facts = async () => {
			const [ version, info ] = await Promise.all([ docker.version(), docker.info() ]);

			D.fill(place, D.facts([
				[ _('Docker version'), version.Version ], [ _('API version'), _('%s, at least %s').format(version.ApiVersion, version.MinAPIVersion) ],
				[ _('System'), [ info.OperatingSystem, ', ', info.KernelVersion, ', ', info.Architecture ] ], [ _('CPUs'), info.NCPU ], [ _('Memory'), format.bytes(info.MemTotal) ],
				[ _('Data folder'), info.DockerRootDir ], [ _('Storage driver'), info.Driver ], [ _('Registry mirrors'), (info.RegistryConfig?.Mirrors ?? []).join(', ') || '-' ],
				...(info.Warnings?.length ? [ [ _('Warnings'), info.Warnings.map(text => D.el('div', {}, text)) ] ] : [])
			]), D.el('details', {}, D.el('summary', {}, _('Everything that Docker reports')), D.el('pre', { 'style': 'overflow:auto' }, JSON.stringify({ version, info }, null, 2))));
		};

		return D.el('details', { 'toggle': event => event.target.open && D.attempt(facts) }, D.el('summary', {}, _('Engine details')), place);
	},

	render() {
		this.model = status.make();
		this.refresh = watch.inOrder(() => this.look(), found => this.take(found));
		this.soon = watch.often(() => this.refresh());
		this.sentenceNode = D.spoken('p', { 'style': 'font-size:120%' }, _('Asking the agent…'));

		for (const name of [ 'buttons', 'next', 'counts', 'others', 'updates' ])
			this[name] = D.el('div', {});

		this.signs = {};
		this.problems = problems.list();
		this.meters = D.el('div', { 'class': 'ucidockd-meters' });
		this.refresh();
		live.follow('status', {}, item => {
			if (!this.model.take(item))
				return;

			this.draw();
			item.name === 'change' && this.soon();
		});
		window.setInterval(() => this.meter(), METERS_MS);

		return D.el('div', {},
			D.connection(live),
			D.el('h2', {}, _('Docker')), this.sentenceNode, this.problems.node,
			this.updates, D.bar(this.counts, updates.button()), this.others, this.meters, this.next,
			D.el('h3', {}, _('Engine')), this.buttons, this.engine());
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
