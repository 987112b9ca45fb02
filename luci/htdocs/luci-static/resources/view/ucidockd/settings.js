// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Settings: dockerd with TLS, firewall and registries, and the agent, on one page with one Save.
'use strict';
'require view';
'require uci';
'require ucidockd.backups as backups';
'require ucidockd.browse as browse';
'require ucidockd.bundle as bundle';
'require ucidockd.calls as calls';
'require ucidockd.daemonchecks as daemonchecks';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.live as live';
'require ucidockd.movedata as movedata';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.settings as settings';
'require ucidockd.status as status';

const DAEMON_KEY = 'daemon:dockerd';
const LIVE_MS = 2000; // until what is shown is kept up to date: the form comes first
const TYPES = [ 'globals', 'tls', 'proxies', 'firewall', 'auth', 'notify', 'backup', 'agent' ];
const MANY = [ 'auth', 'notify', 'backup' ]; // there may be any number of them
// options of a notice that are for some of its types alone
const NOTICE_TYPES = { header: [ 'webhook' ], url: [ 'webhook', 'mqtt' ], format: [ 'webhook', 'mqtt' ], template: [ 'webhook', 'mqtt' ], cacert: [ 'webhook', 'mqtt' ], topic: [ 'mqtt' ], retain: [ 'mqtt' ], username: [ 'mqtt' ], password: [ 'mqtt' ], command: [ 'exec' ] };
const NOT_BLOCKED = /^(?:loopback|docker|ucidockd_.*)$/; // the router itself, and networks of containers

return view.extend({
	async load() {
		const ask = calls.together(), [ readable, snapshot, containers, copies, network, ...found ] = await Promise.all([
			editor.load('dockerd', 'containers'), L.resolveDefault(ask.agent.status(), {}), L.resolveDefault(ask.container.list(), []), L.resolveDefault(ask.agent.backup_list(), null), L.resolveDefault(uci.load('network'), null), ...TYPES.map(type => schemas.load(type))
		]);

		return { readable, snapshot, containers, copies, network, schema: Object.fromEntries(TYPES.map((type, index) => [ type, found[index] ])) };
	},

	// what became of the last change
	state(snapshot) {
		const model = status.make(), place = D.el('div', { 'aria-live': 'polite' });
		const draw = () => {
			const daemon = model.known.get(DAEMON_KEY);

			if (daemon) {
				D.fill(place, 'dockerd: ', D.verdict(status.verdict(daemon)));
			}
		};

		model.replace(snapshot);
		draw();
		window.setTimeout(() => live.follow('status', {}, item => model.take(item) && draw()), LIVE_MS);

		return D.el('div', {}, D.connection(live), place);
	},

	// sections with a fixed name count as there, and are written only with something in them; stock firewall sections have no name
	sectionOf(type) {
		const config = type === 'agent' ? 'containers' : 'dockerd', id = uci.sections(config, type)[0]?.['.name'] ?? type;

		return this.made[type] ??= this.page.section({ config, type, id, schema: this.schema[type], given: type === 'tls' ? { enabled: '0' } : type === 'firewall' ? { device: 'docker0' } : {} });
	},

	// who gets in by such an address
	wrongHost(text) {
		const { globals, tls } = this.made, isSafe = globals.isOn('allow_insecure_tcp') || (tls.isOn('enabled') && tls.isOn('verify'));

		return daemonchecks.isOpenHost(text) && !isSafe ? _('Anyone who can reach this address controls this router: switch TLS on below, with client certificates.') : '';
	},

	interfaces() {
		return uci.sections('network', 'interface').map(one => one['.name']).filter(name => !NOT_BLOCKED.test(name));
	},

	more(type, name) {
		const isAuto = () => [ '', 'auto' ].includes(this.made.tls.value('mode')), isFiles = () => !isAuto();

		return {
			'globals data_root': () => ({ more: [ browse.button(() => this.made.globals.value('data_root'), path => this.made.globals.put('data_root', path)), ' ', this.whose.starts === false ? '' : movedata.button(this.dataRoot(), () => this.made.globals.value('data_root')) ] }),
			'globals hosts': () => ({ check: text => this.wrongHost(text), placeholder: _('e.g. %s').format('tcp://192.168.1.1:2376') }),
			'tls enabled': () => ({ title: 'TLS', description: _('All TCP addresses speak TLS. The agent makes the certificates and renews them.') }),
			'tls verify': () => ({ title: _('Client certificates'), description: _('Only clients with a certificate get in. Make one for each client below.') }),
			'tls cacert': () => ({ shown: isFiles }), 'tls cert': () => ({ shown: isFiles }), 'tls key': () => ({ shown: isFiles }),
			'tls san': () => ({ shown: isAuto }), 'tls days': () => ({ shown: isAuto }), 'tls renew_days': () => ({ shown: isAuto }),
			'firewall blocked_interfaces': () => ({ kind: 'ticks', known: this.interfaces(), title: _('Block access from'), description: _('Devices behind these interfaces cannot reach containers. Containers can still reach the internet.') }),
			'agent dockerd_args': () => ({ kind: 'command' })
		}[`${type} ${name}`]?.() ?? {};
	},

	fields(type, names) {
		const section = this.sectionOf(type);

		return names.map(name => section.field(name, this.more(type, name)));
	},

	// one of several firewall sections: those of other bridges
	others() {
		return uci.sections('dockerd', 'firewall').length < 2 ? '' : D.el('p', {}, _('This is for the first bridge. /etc/config/dockerd has sections for others, which stay as they are.'));
	},

	subject(name) {
		const places = settings.placesOf(name, this.schema, this.whose.settings === false).filter(([ , shown, folded ]) => shown.length || folded.length);
		const set = places.map(([ type, , folded ]) => folded.filter(option => !this.sectionOf(type).isNew && this.sectionOf(type).raw[option] !== undefined).length).reduce((sum, count) => sum + count, 0);
		const shown = places.map(([ type, options ]) => this.fields(type, options)), folded = places.map(([ type, , options ]) => this.fields(type, options));

		if (!places.length && ![ 'notices', 'backup' ].includes(name))
			return '';

		return D.el('div', { 'class': 'cbi-section ucid-form' }, D.el('h3', { 'id': 'set-%s'.format(name) }, settings.titleOf(name)),
			name === 'network' ? this.others() : '', name === 'registries' ? this.logins() : '', name === 'notices' ? this.notices() : '', name === 'backup' ? this.backups() : '', shown,
			folded.flat().length ? editor.folded(name === 'advanced' ? _('Internal options') : _('More'), folded, set) : '',
			name === 'access' && this.whose.settings !== false ? bundle.render() : '');
	},

	logins() {
		return sections.make(this.page, {
			config: 'containers', type: 'auth', schema: this.schema.auth, title: _('Registry logins'), words: _('Used for pulls and pushes. They are stored unencrypted in /etc/config/containers, which only root can read.'),
			label: _('Add login'), main: [ 'serveraddress', 'username', 'password', 'token' ], prefix: 'login', titleOf: (said, id) => said.serveraddress ?? id,
			more: name => name === 'serveraddress' ? { suggest: [ 'docker.io', 'ghcr.io', 'quay.io' ] } : {}
		}).node;
	},

	notices() {
		return sections.make(this.page, {
			config: 'containers', type: 'notify', schema: this.schema.notify, words: _('Tells a web server, a broker or a program when something breaks or recovers. Addresses and headers are stored unencrypted in /etc/config/containers, which only root can read.'),
			label: _('Add notice'), given: { type: 'webhook' }, main: [ 'type', 'url', 'command', 'event' ], titleOf: (said, id) => [ id, said.type ].filter(Boolean).join(': '),
			more: (name, section) => ({ ...(name === 'command' ? { kind: 'command' } : {}), ...(name === 'url' ? { placeholder: _('e.g. %s').format('https://ntfy.sh/my-topic') } : {}), ...(name === 'event' ? { kind: 'ticks', known: settings.events(), description: _('What to send notices about. Without a tick: everything but "%s".').format(_('a container waits for something')) } : {}), ...(NOTICE_TYPES[name] ? { shown: () => NOTICE_TYPES[name].includes(section.value('type') || 'webhook') } : {}) }),
			buttons: id => D.button('neutral', _('Send a test'), async () => {
				await calls.agent.notify_test(id).catch(error => Promise.reject(new Error('%s: %s'.format(id, D.wordsOf(error)))));
				D.notify('info', _('%s: delivered.').format(id));
			})
		}).node;
	},

	backups() {
		const more = (name, section) => ({
			section: { kind: 'ticks', known: uci.sections('containers', 'container').map(one => one['.name']), description: _('The named volumes of these containers are saved.') },
			volume: { suggest: { entry: uci.sections('containers', 'volume').map(one => one['.name']) } },
			schedule: { choices: [ [ 'off', _('only when asked') ], [ 'daily', _('daily') ], [ 'weekly', _('weekly') ] ], unset: _('default: only when asked') },
			target: { more: browse.button(() => section.value('target') || '/mnt', path => section.put('target', path)) }
		}[name] ?? {});

		return [ backups.make(this.copies).node, sections.make(this.page, {
			config: 'containers', type: 'backup', schema: this.schema.backup, words: _('Copies of volumes in a folder, such as one on a USB disk. Folders of the router that containers mount are not in them.'),
			label: _('Add backup'), main: [ 'section', 'volume', 'schedule', 'target', 'stop' ], more
		}).node ];
	},

	// what is not here, and why, where dockerd is not ours
	foreign() {
		const { starts, settings: follows, why } = this.whose;

		if (starts !== false && follows !== false)
			return '';

		const hidden = _('Settings of dockerd that would have no effect are not shown.'), later = _('It follows changed settings when that program restarts it.');

		// without any section the first one that is saved here makes it ours
		return D.el('p', { 'class': 'alert-message' }, _(why), ' ', follows === false ? hidden : uci.sections('dockerd').length ? later : '');
	},

	// where Docker's data is now
	dataRoot() {
		return uci.get('dockerd', 'globals', 'data_root') ?? this.schema.globals.properties.data_root.default;
	},

	// what a change of the data root means, before it is agreed to
	confirm(_plan, given) {
		const from = this.dataRoot(), to = given.dockerd?.globals?.data_root;

		if (this.whose.starts === false || to === undefined || to.replace(/\/+$/, '') === from.replace(/\/+$/, ''))
			return [];

		const names = this.containers.map(one => (one.Names[0] ?? one.Id).replace(/^\//, '')).sort().join(', ');

		return [
			names ? _('These containers stop: %s.').format(names) : _('No container runs.'),
			_('Images, containers and volumes stay in %s. In %s, dockerd starts with what is there: nothing, if the folder is empty.').format(from, to),
			[ _('To take them along, move the data instead of saving:'), ' ', movedata.button(from, () => to) ]
		];
	},

	render({ readable, snapshot, containers, copies, schema }) {
		if (!readable)
			return D.el('div', {}, D.el('h2', {}, _('Settings')), editor.refused());

		Object.assign(this, { schema, containers, copies, made: {}, whose: snapshot.agent?.dockerd ?? {} });
		this.page = editor.make({ confirm: (plan, given) => this.confirm(plan, given) });
		TYPES.filter(type => !MANY.includes(type)).forEach(type => this.sectionOf(type));

		const parts = settings.subjects().map(name => [ name, this.subject(name) ]).filter(([ , node ]) => node !== '');
		const jump = D.el('p', {}, parts.map(([ name ]) => [ D.el('a', { 'href': '#set-%s'.format(name) }, settings.titleOf(name)), ' \u00a0 ' ]));
		const root = D.el('div', {}, D.el('h2', {}, _('Settings')), this.state(snapshot), this.foreign(), jump, parts.map(([ , node ]) => node), this.page.bar());

		this.page.sections.forEach(section => section.update());
		this.page.showMistakes(snapshot.agent?.config_issues);
		window.requestAnimationFrame(() => location.hash.startsWith('#set-') && document.getElementById(location.hash.slice(1))?.scrollIntoView());

		return root;
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
