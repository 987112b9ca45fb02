// SPDX-License-Identifier: GPL-2.0-or-later
// Starting, stopping and restarting dockerd, and what that does to containers. `keeps` and `impact` are pure.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

const { agent } = calls;
const NO = [ '0', 'no', 'off', 'false', 'disabled' ], YES = [ '1', 'yes', 'on', 'true', 'enabled' ];

function namesOf(containers) {
	return containers.map(one => (one.Names?.[0] ?? one.Id).replace(/^\//, '')).sort().join(', ');
}

return baseclass.extend({
	// Whether containers go on without dockerd. For a restart the agent switches live restore on by itself where it can
	// (docs/daemon.md), so what the engine says of it at the moment does not count. `setting` is dockerd.globals.live_restore,
	// `info` as the engine gives it.
	keeps(action, info, setting) {
		const isSwarm = ![ undefined, '', 'inactive' ].includes(info.Swarm?.LocalNodeState);

		return action === 'restart' ? !isSwarm && !NO.includes(setting) : YES.includes(setting);
	},

	// lines for who has to decide; `containers` are those that run
	impact(action, keeps, containers) {
		const lines = [ _('Until dockerd is back, you cannot view, start or stop containers.') ];
		const names = namesOf(containers);

		if (action === 'stop')
			lines.push(_('It stays down until you start it here, or the router boots.'));

		if (!containers.length)
			lines.push(_('No container runs.'));
		else if (keeps)
			lines.push(_('These containers keep running (live restore): %s').format(names));
		else
			lines.push(_('These containers stop: %s. Managed ones start again with dockerd, others if their restart policy says so.').format(names));

		return lines;
	},

	// what was asked for and is not done yet
	underWay: action => ({ start: _('starting'), stop: _('stopping'), restart: _('restarting') }[action]),

	async ask(action, label, done) {
		const [ info, containers ] = await Promise.all([ calls.docker.info(), calls.container.list(), uci.load('dockerd') ]);
		const keeps = this.keeps(action, info, uci.get('dockerd', 'globals', 'live_restore'));

		D.ask(label, this.impact(action, keeps, containers), label, () => agent['dockerd_' + action]().then(() => done(action)), action === 'stop' ? 'negative' : 'apply');
	},

	// `running`: whether the engine answers; `done(action)` is called when the agent has taken the wish; `whose`: what the
	// status says of dockerd, which may be another program's to start and stop
	buttons(running, done, whose) {
		if (whose?.starts === false)
			return D.el('p', {}, _(whose.why));

		return D.el('p', {}, running
			? [ D.button('neutral', _('Restart dockerd'), () => this.ask('restart', _('Restart dockerd'), done)), ' ', D.button('negative', _('Stop dockerd'), () => this.ask('stop', _('Stop dockerd'), done)) ]
			: D.button('apply', _('Start dockerd'), () => agent.dockerd_start().then(() => done('start'))));
	}
});
