// SPDX-License-Identifier: GPL-2.0-or-later
// The form of one container's section: nine fields that matter first, the rest folded away by subject.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.browse as browse';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.format as format';
'require ucidockd.formdata as formdata';
'require ucidockd.imagefacts as imagefacts';
'require ucidockd.jobs as jobs';
'require ucidockd.options as options';
'require ucidockd.schemas as schemas';
'require ucidockd.watch as watch';

const CONFIG = 'containers';
const MAIN = [ 'image', 'restart', 'port', 'volume', 'env', 'network', 'network_mode', 'memory', 'device', 'command' ];
const NAMED = /^[A-Za-z0-9_]+$/;

function namesOf(type) {
	return uci.sections(CONFIG, type).map(section => section['.name']);
}

function restartChoices() {
	return [ [ 'always', _('always') ], [ 'unless-stopped', _('always, unless it was stopped') ], [ 'on-failure', _('when it failed') ], [ 'on-failure:3', _('when it failed, at most 3 times') ], [ 'no', _('never: a job that runs once') ] ];
}

class ContainerForm {
	constructor(section, { images, volumes, devices, image }) {
		Object.assign(this, { section, images, volumes, devices, first: image });
		this.facts = D.el('div', {});
		this.state = D.el('span', { 'aria-live': 'polite' });
	}

	// what the fields of a container need beside their schema
	more(name) {
		return {
			image: () => ({ description: _('Name and tag, such as nginx:1.27. Without a tag it is latest.'), suggest: (this.images ?? []).flatMap(one => one.RepoTags ?? []).filter(tag => !tag.includes('<none>')).sort(), more: [ D.button('neutral', _('Pull now'), () => this.pull()), ' ', this.state ], extra: this.facts }),
			restart: () => ({ description: _('When Docker restarts the container by itself.'), kind: 'choice', choices: restartChoices(), unset: _('default: started again by the agent') }),
			port: () => ({ description: _('A port of this router leads to a port of the container.') }),
			volume: () => ({
				description: _('A volume (its name) or a folder of this router, and where the container sees it.'),
				suggest: { source: [ ...new Set([ ...namesOf('volume'), ...this.volumes.map(one => one.Name).filter(one => one.length < 64) ]) ] },
				helpers: { source: put => browse.button(() => '/mnt', put) }
			}),
			env: () => ({ description: _('Variables that the program in the container reads. Those from a file are under Advanced.'), hides: row => format.isSecret(row.key) }),
			network: () => ({ description: _('Containers in the same network reach each other by name. Without one, Docker\'s bridge is used.'), suggest: { network: namesOf('network') } }),
			network_mode: () => ({ description: _('Instead of networks: host shares the network of this router, none gives no network.'), kind: 'text', suggest: [ 'bridge', 'host', 'none', ...namesOf('container').map(one => 'service:%s'.format(one)) ], placeholder: _('default: the networks above') }),
			memory: () => ({ description: _('If the container needs more, the kernel ends it. The minimum is 6m.'), placeholder: _('default: no limit') }),
			device: () => ({ description: _('Device files of this router that the container may use, such as a USB stick for Zigbee.'), suggest: { device: this.devices } }),
			command: () => ({ description: _('Arguments for the program that the image starts. Put quotes around an argument with spaces.'), kind: 'command', placeholder: this.placeholders?.command }),
			entrypoint: () => ({ description: _('Runs instead of the program that the image starts.'), kind: 'command', placeholder: this.placeholders?.entrypoint }),
			depends_on: () => ({ description: _('Containers that must be ready before this one starts.'), suggest: { section: namesOf('container').filter(one => one !== this.section.id) } }),
			tmpfs: () => ({ description: _('Folders that are kept in memory.') }),
			extra_host: () => ({ description: _('Host names and the addresses that they have inside the container; host-gateway is this router.') }),
			ulimit: () => ({ description: _('Limits of the processes in the container.') }),
			sysctl: () => ({ description: _('Kernel settings of the container.') }),
			label: () => ({ description: _('Names that begin with ucidockd. are reserved.') }),
			cap_add: () => ({ suggest: { entry: [ 'NET_ADMIN', 'NET_RAW', 'SYS_TIME', 'SYS_ADMIN', 'ALL' ] } }),
			cap_drop: () => ({ suggest: { entry: [ 'ALL', 'NET_RAW' ] } })
		}[name]?.() ?? {};
	}

	field(name) {
		return this.section.field(name, this.more(name));
	}

	render() {
		const main = MAIN.map(name => this.field(name));
		const rest = options.tabsOf(this.section.schema).map(([ tab, names ]) => [ tab, names.filter(name => !MAIN.includes(name) && !(name === 'name' && this.section.isNew)) ]).filter(([ , names ]) => names.length);
		const set = names => names.filter(name => this.section.raw[name] !== undefined).length;
		const groups = rest.map(([ tab, names ]) => editor.folded(options.titleOf(tab), names.map(name => this.field(name)), set(names)));

		this.section.fields.get('image').control.input.addEventListener('input', () => this.look());
		this.look();

		return D.el('div', { 'class': 'ucid-form cbi-section' }, main, editor.folded(_('Advanced'), groups, set(rest.flatMap(([ , names ]) => names))));
	}

	// whether the image is here, and what it gives
	async look() {
		const image = this.section.value('image'), asked = this.asked = Symbol(image);
		const found = image && this.images?.some(one => [ ...one.RepoTags ?? [], ...one.RepoDigests ?? [] ].includes(image.includes(':') ? image : '%s:latest'.format(image)))
			? this.first?.name === image ? this.first.found : await calls.image.inspect(image).catch(() => null) : null;

		if (asked !== this.asked)
			return;

		const facts = found ? imagefacts.factsOf(found.Config ?? {}) : [];

		D.fill(this.state, !image ? '' : !this.images ? watch.silence() : found ? _('on this router, %s').format(format.bytes(found.Size)) : _('not on this router: pulled when you save'));
		D.fill(this.facts, facts.length ? editor.folded(_('What the image sets by itself'), D.facts(facts)) : '');

		for (const [ name, text ] of Object.entries(imagefacts.placeholdersOf(found?.Config ?? {}))) {
			const field = this.section.fields.get(name), { input } = field.control;

			if (input) { // not a list
				field.placeholder ??= input.placeholder;
				input.placeholder = text ? _('image: %s').format(text) : field.placeholder;
			}
		}
	}

	async pull() {
		const image = this.section.value('image');

		if (!image)
			throw new Error(_('%s is missing.').format(_('Docker image')));

		const started = await calls.agent.job_start({ kind: 'pull', image });
		const job = await jobs.finished(started, one => D.fill(this.state, jobs.words(one)));

		if (job.state !== 'succeeded')
			throw new Error(jobs.words(job));

		this.images = await calls.image.list();
		this.first = null;
		await this.look();
	}
}

return baseclass.extend({
	// what forms need beside the section; null for a login that may not read it. `asked`: what `formdata.ask` gave
	async prepare(asked = formdata.ask()) {
		const [ isReadable, schema, images, volumes, image ] = await Promise.all([
			asked.isLoaded.then(is => is || (L.hasViewPermission() && editor.load(CONFIG))), schemas.load('container'), asked.images, asked.volumes, asked.image
		]);

		return isReadable ? { schema, images, volumes: volumes?.Volumes ?? [], devices: asked.devices, image } : null;
	},

	// a node with the form of that section of /etc/config/containers; for a login that may not read it, a note. `mistakes`: texts of
	// the status
	async edit(id, asked, mistakes) {
		const prepared = await this.prepare(asked);

		if (!prepared)
			return editor.refused();

		const page = editor.make(), section = page.section({ config: CONFIG, type: 'container', id, schema: prepared.schema });

		const form = D.el('div', {}, new ContainerForm(section, prepared).render(), page.bar());

		page.showMistakes(mistakes);

		return form;
	},

	// the form of a new one; `given`: what it says already, `name`: what it is to be called
	create(prepared, { name, given } = {}) {
		const page = editor.make({ before: () => history.replaceState(null, '', L.url('admin/services/ucidockd/containers')) });
		const section = page.section({ config: CONFIG, type: 'container', id: '', schema: prepared.schema, given: given ?? {}, isNew: true, isWanted: false });
		const error = D.el('div', { 'class': 'ucid-error', 'role': 'alert' });
		const input = D.el('input', { 'type': 'text', 'id': 'ucid-name', 'class': 'cbi-input-text', 'value': name ?? '', 'autocomplete': 'off', 'placeholder': _('e.g. %s').format('home-assistant') });
		const read = () => {
			const wanted = input.value.trim(), id = wanted.replace(/[^A-Za-z0-9_]/g, '_');

			Object.assign(section, { id, isWanted: wanted !== '' });

			if (NAMED.test(wanted) && section.raw.name === section.namedBy)
				delete section.raw.name;
			else if (wanted && !NAMED.test(wanted))
				section.raw.name = section.namedBy = wanted;

			return !wanted ? _('%s is missing.').format(_('Name')) : uci.get(CONFIG, id) ? _('There is a section "%s" already.').format(id) : schemas.check('container', 'name', prepared.schema.properties.name, wanted);
		};
		const field = { title: _('Name'), control: { focus: () => input.focus() }, node: D.el('div', { 'class': 'cbi-value' }, D.el('label', { 'class': 'cbi-value-title', 'for': 'ucid-name' }, _('Name')), D.el('div', { 'class': 'cbi-value-field' }, input, error)) };
		const show = words => {
			D.fill(error, words);
			input.setAttribute('aria-invalid', words ? 'true' : 'false');
		};

		input.addEventListener('input', () => {
			read();
			show('');
			page.changed();
		});
		page.first = () => {
			const words = read();

			show(words);

			return words ? field : null;
		};
		read();

		const form = D.el('div', {}, field.node, new ContainerForm(section, prepared).render(), page.bar(_('Create')));

		page.changed();

		return form;
	}
});
