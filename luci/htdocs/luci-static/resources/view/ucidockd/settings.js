// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Settings: dockerd's own settings with TLS, proxies and firewall, registries, and the agent's.
'use strict';
'require view';
'require form';
'require ucidockd.bundle as bundle';
'require ucidockd.daemonchecks as daemonchecks';
'require ucidockd.declare as declare';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.schemas as schemas';
'require ucidockd.status as status';

const DAEMON_KEY = 'daemon:dockerd';
const TYPES = [ 'globals', 'tls', 'proxies', 'firewall', 'auth', 'agent' ];

return view.extend({
	async load() {
		const readable = await declare.load('dockerd') && await declare.load('containers');
		const found = await Promise.all(TYPES.map(type => schemas.load(type)));

		return { readable, schema: Object.fromEntries(TYPES.map((type, index) => [ type, found[index] ])) };
	},

	// what became of the last change
	state() {
		const model = status.make(), place = D.el('p', {});

		live.follow('status', {}, item => {
			const daemon = model.take(item) && model.known.get(DAEMON_KEY);

			if (daemon) {
				const { level, reason, message } = status.verdict(daemon);

				D.fill(place, 'dockerd: ', D.badge(level, reason), ' ', message, ' ', D.page('overview', _('Details')));
			}
		});

		return D.el('div', {}, D.connection(live), place);
	},

	// what a field cannot say: who gets in by such a host
	warnOfOpenHosts(made, tls) {
		const inner = made.hosts.validate;

		made.hosts.validate = function(section, value) {
			const found = inner.call(this, section, value);
			const isOpen = value && daemonchecks.isOpenHost(value);
			const isOn = option => option.formvalue(option.section.section) === '1';
			const secured = isOn(made.allow_insecure_tcp) || (isOn(tls.enabled) && isOn(tls.verify));

			if (found === true && isOpen && !secured)
				return _('Whoever reaches this address is root here: switch TLS with Verify on, or allow it under "Allow insecure TCP".');

			return found;
		};
	},

	render({ readable, schema }) {
		if (!readable)
			return declare.refused(this);

		const daemon = this.daemon = new form.Map('dockerd', _('dockerd'), _('Each option says what dockerd needs to follow it. A restart is made with live restore where that is possible: containers go on meanwhile.'));
		const agent = this.agent = new form.Map('containers', _('Agent'));
		const made = declare.named(daemon, 'globals', 'globals', schema.globals, { title: _('Daemon') });
		const tls = declare.named(daemon, 'tls', 'tls', schema.tls, {
			title: 'TLS', description: _('All TCP hosts speak TLS. Certificates are made and renewed by the agent, unless the mode is files. A change restarts dockerd.'), seed: { enabled: '0' }
		});

		declare.named(daemon, 'proxies', 'proxies', schema.proxies, { title: _('Proxies') });
		this.firewall(daemon, schema.firewall);
		declare.named(agent, 'agent', 'agent', schema.agent, { title: '' });
		this.registries(agent, schema.auth);

		for (const name of [ 'cacert', 'cert', 'key' ])
			tls[name].depends('mode', 'files');

		for (const name of [ 'san', 'days', 'renew_days' ])
			tls[name].depends('mode', 'auto'), tls[name].depends('mode', '');

		this.warnOfOpenHosts(made, tls);

		return Promise.all([ daemon.render(), agent.render() ]).then(([ first, second ]) => D.el('div', {}, this.state(), first, bundle.render(), second));
	},

	// stock configurations have one without a name
	firewall(map, schema) {
		const made = declare.grid(map, 'firewall', schema, { title: _('Firewall'), description: _('Interfaces from which no container can be reached.'), columns: [ 'device', 'blocked_interfaces' ] });

		map.children[map.children.length - 1].anonymous = true;

		return made;
	},

	registries(map, schema) {
		const made = declare.grid(map, 'auth', schema, { title: _('Registry logins'), description: _('Used for pulls and pushes. They are stored unencrypted in /etc/config/containers, which only root can read.'), columns: [ 'serveraddress' ] });

		made.serveraddress.value('docker.io', 'Docker Hub');
		made.serveraddress.value('ghcr.io');
		made.serveraddress.value('quay.io');
	},

	handleSave() {
		return declare.save(this.daemon).then(() => declare.save(this.agent));
	}
});
