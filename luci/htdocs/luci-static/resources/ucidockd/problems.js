// SPDX-License-Identifier: GPL-2.0-or-later
// What needs attention, why and since when, and the buttons that help. How bad it is and its words, the status says.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.actions as actions';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.forwardings as forwardings';
'require ucidockd.status as status';

const RANK = [ 'error', 'waiting', 'warning' ];
const IN_SETTINGS = [ 'Invalid', 'LeftOut' ]; // reasons that only other settings remove

// the condition that it is judged by, then the other ones that call for attention and say something else
function toldOf(resource) {
	const verdict = resource.conditions.find(one => one.type === resource.verdict);
	const rest = resource.conditions.filter(one => one !== verdict && [ 'error', 'warning' ].includes(one.level));

	return [ verdict, ...rest ].filter(Boolean).filter((one, index, all) => all.findIndex(other => other.message === one.message || other.label === one.label) === index);
}

// {title, path, part}: how a section is called, and where it is edited
function placeOf({ kind, section, name }) {
	switch (kind) {
	case 'container':
		return { title: name, path: [ 'container', section ], part: 'settings' };
	case 'network':
		return { title: _('Network %s').format(name), path: 'networks' };
	case 'volume':
		return { title: _('Volume %s').format(name), path: 'volumes' };
	case 'backup':
		return { title: _('Backup %s').format(name), path: 'settings', part: 'set-backup' };
	case 'notify':
		return { title: _('Notice %s').format(name), path: 'settings', part: 'set-notices' };
	case 'daemon':
		return { title: _('Docker daemon'), path: 'settings' };
	default:
		return { title: '%s %s'.format(kind, name), path: 'settings' };
	}
}

function titleOf(resource) {
	const { title, path, part } = placeOf(resource);

	return D.page(path, title, resource.kind === 'container' ? undefined : part);
}

// what is said beside the section's name need not name it again
function messageOf({ section }, condition) {
	return status.messageOf(condition).replaceAll('containers.%s.'.format(section), '');
}

function edit(resource) {
	const { path, part } = placeOf(resource);

	return way(path, _('Edit', 'a container'), part);
}

async function takeOver(section) {
	await uci.load('containers');
	uci.set('containers', section, 'adopt', '1');
	await uci.save();
	await actions.apply();
}

function reconcile() {
	return calls.agent.reconcile().then(answer => {
		for (const { key, error } of answer.failed ?? [])
			D.notify('error', key, ': ', D.said(error));
	});
}

function askFirst(title, text, label, action) {
	return D.button('apply', label, () => D.ask(title, [ text ], label, action));
}

function restart({ object_id: id, name }) {
	const decision = { by: 'engine', method: 'restart', id };

	return askFirst(_('Restart %s').format(name), actions.consequence(decision, name), _('Restart'), () => actions.run([ decision ]));
}

// a page that only helps a login that may change something
function way(path, text, part) {
	return L.hasViewPermission() ? D.page(path, text, part, 'btn cbi-button') : '';
}

function takenOver(kind) {
	switch (kind) {
	case 'network':
		return _('The existing network is managed from now on. If it differs from its settings, it is created again, and its containers lose their connections for a moment.');
	case 'volume':
		return _('The existing volume is managed from now on. Its data stays.');
	default:
		return _('The existing container is replaced by one with the settings of this page. Its volumes stay. If the new one does not start, the old one comes back.');
	}
}

// what helps against one condition
function remedyOf(resource, condition) {
	const { type, reason } = condition;

	if (reason === 'Conflict')
		return askFirst(_('Take over %s').format(resource.name), takenOver(resource.kind), _('Take over'), () => takeOver(resource.section));

	if (type === 'Degraded' && reason === 'RolledBack')
		return [ D.button('neutral', _('Try again now'), reconcile), ' ', way([ 'container', resource.section ], _('Earlier settings'), 'history') ];

	if (reason === 'Unhealthy' && resource.object_id)
		return restart(resource);

	switch (condition.remedy) {
	case 'block-access':
		return way('settings', _('Block access'), 'set-network');
	case 'protect-api':
		return way('settings', _('Protect the API'), 'set-access');
	case 'back-up':
		return way('settings', _('Backups'), 'set-backup');
	case 'check-notice':
		return way('settings', _('Notices'), 'set-notices');
	case 'other-folder':
		return way('settings', _('Choose another folder'), 'set-general');
	case 'clean-up':
		return way('images', _('Clean up images'));
	case 'use-engine':
		return [
			askFirst(_('Use this Docker engine'), _('Everything in your settings is created on the engine that runs now. It starts without the old containers, images and volumes; they stay where they were.'), _('Use this engine'), reconcile),
			' ', way('settings', _('Move the data'), 'set-general')
		];
	case 'restore-volume':
		return [
			way('volumes', _('Restore')), ' ',
			askFirst(_('Mark as seen'), _('The volume is empty. Restore its data from a backup if you have one. This only removes the message.'), _('Mark as seen'), reconcile)
		];
	default:
		return forwardings.button(condition);
	}
}

function lasted(since) {
	return ' · ' + _('for %s').format(format.age(since, Date.now() / 1000));
}

// what people can do, each once
function adviceFor({ conditions }) {
	return [ ...new Set(conditions.filter(one => RANK.includes(one.level)).map(status.adviceOf).filter(Boolean)) ];
}

// all that `node` shows, but for the time that passes
function signOf(resource) {
	const { name, level, retry_at: retryAt, object_id: id } = resource;

	return JSON.stringify([ name, level, retryAt, id, status.verdict(resource).output, toldOf(resource) ]);
}

return baseclass.extend({
	toldOf,
	reconcile,

	// what is not all right, worst first
	of(resources) {
		return resources.filter(one => RANK.includes(one.level)).sort((one, other) => RANK.indexOf(one.level) - RANK.indexOf(other.level));
	},

	// a mistake in a file, with the way to its section
	issueNode(text, resources) {
		const [ , section ] = (/^containers\.([^\s.:]+)[.:]/).exec(text) ?? [], resource = resources.find(one => one.section === section);

		return D.el('div', { 'class': 'ucidockd-problem ucidockd-error' }, D.badge('error', _('Mistake in the settings')), ' ', D.said(text), resource && D.bar(edit(resource)));
	},

	// mistakes in the files that no section's own message holds
	issuesOf(agent, resources) {
		const told = resources.flatMap(one => one.conditions.map(condition => condition.message)).join('\n');

		return (agent.config_issues ?? []).map(issue => issue.text ?? String(issue)).filter(text => !told.includes(text));
	},

	// Problems that are drawn again and again: {node, draw(resources, more)}; `more`: nodes after them. What says the same as before
	// stays as it is, so that a button can be pressed while something else changes.
	list() {
		const node = D.el('div', {});
		let known = new Map();

		return { node, draw: (resources, more) => {
			known = new Map(resources.map(one => {
				const sign = signOf(one), old = known.get(one.key);

				return [ one.key, old?.sign === sign ? old : { sign, node: this.node(one) } ];
			}));
			D.place(node, [ ...[ ...known.values() ].map(one => one.node), ...more ]);
			node.querySelectorAll('[data-since]').forEach(one => D.fill(one, lasted(Number(one.dataset.since))));
		} };
	},

	// One resource with all that is wrong with it. `isHere`: on its own page
	node(resource, isHere) {
		const { retry_at: retryAt } = resource;
		const told = toldOf(resource), { output } = status.verdict(resource), isContainer = resource.kind === 'container';

		return D.el('div', { 'class': 'ucidockd-problem ucidockd-%s'.format(resource.level) },
			told.map((one, index) => D.el('div', {}, index ? '' : [ isHere ? '' : [ D.el('strong', {}, titleOf(resource)), ' ' ] ], D.badge(one.level, status.labelOf(one)), ' ',
				D.el('span', { 'class': 'ucidockd-any' }, D.coded(messageOf(resource, one))), one.since ? D.el('small', { 'class': 'ucidockd-quiet', 'title': format.time(one.since), 'data-since': one.since }, lasted(one.since)) : '')),
			adviceFor(resource).map(text => D.el('div', {}, D.coded(text))),
			output && [ D.el('div', {}, D.el('small', {}, _('The last lines it printed:'))), D.el('pre', {}, output) ],
			retryAt ? D.el('div', {}, D.el('small', {}, _('Next try at %s.').format(new Date(retryAt * 1000).toLocaleTimeString()))) : '',
			D.bar(
				isContainer && !isHere && resource.object_id && D.page([ 'container', resource.section ], _('Logs'), 'logs', 'btn cbi-button'),
				!isHere && (isContainer || told.some(one => IN_SETTINGS.includes(one.reason))) && edit(resource),
				retryAt ? D.button('neutral', _('Try again now'), reconcile) : '',
				told.map(one => remedyOf(resource, one))));
	}
});
