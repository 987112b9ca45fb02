// SPDX-License-Identifier: GPL-2.0-or-later
// All containers as one list: those of UCI, created or not, with those of the engine that no section declares. Pure.
'use strict';
'require baseclass';
'require ucidockd.format as format';
'require ucidockd.status as status';

const STACK = 'com.docker.compose.project';
const SWAP = '.ucidockd-'; // the old or the new container of a swap has a name of its own meanwhile
const HELPER = 'ucidockd.helper'; // a container that lends its archive calls to a volume, for some seconds
const LEVELS = { running: 'ok', paused: 'waiting', restarting: 'error', dead: 'error' };
const UNITS = { second: 1, minute: 60, hour: 3600, day: 86400, week: 7 * 86400, month: 30 * 86400, year: 365 * 86400 }; // seconds
const ANYWHERE = [ '0.0.0.0', '::', '', undefined ]; // every address of the router
const FINE = [ 'ok', 'off', 'warning' ]; // levels at which the container's own state says more

function isAnywhere(ip) {
	return ANYWHERE.includes(ip);
}

function nameOf(container) {
	return (container.Names?.[0] ?? container.Id).replace(/^\//, '');
}

// the engine's `Up 3 hours (healthy)`, `Exited (3) 6 seconds ago` in parts
function partsOf(text) {
	const [ , health ] = (/\((healthy|unhealthy|health: starting)\)/).exec(text) ?? [];
	const [ , code ] = (/\((\d+)\)/).exec(text) ?? [];
	const [ , span ] = (/^(?:Up|Exited \(\d+\)) (.*?)(?: ago)?(?: \(.*\))?$/).exec(text) ?? [];

	const [ , count, unit ] = (/^(?:(\d+) |(?:about|less than) an? )([a-z]+?)s?$/).exec(span?.toLowerCase() ?? '') ?? [];

	return { health, code, span: UNITS[unit] ? format.span((count ?? 1) * UNITS[unit]) : span };
}

// in words: `Running, healthy, 3 d`
function wordsOf(container, since, now) {
	const { health, code, span } = partsOf(container.Status ?? '');
	const lasted = since ? format.age(since, now) : span;
	const words = {
		running: _('Running'), paused: _('Paused'), restarting: _('Restarting'), created: _('Not started yet'), dead: _('Dead'), removing: _('Being removed'),
		exited: code && code !== '0' ? _('Stopped with exit code %s').format(code) : _('Stopped')
	}[container.State] ?? container.State;
	const healths = { healthy: _('healthy'), unhealthy: _('not healthy'), 'health: starting': _('health check is starting') };

	return [ words, healths[health], lasted ].filter(Boolean).join(', ');
}

function levelOf(container) {
	const { health, code } = partsOf(container.Status ?? '');

	if (container.State === 'exited')
		return code && code !== '0' ? 'warning' : 'off';

	return health === 'unhealthy' ? 'error' : LEVELS[container.State] ?? 'off';
}

// {level, words, note}: the badge, and why
function stateOf(container, owner, now) {
	if (!owner)
		return { level: levelOf(container), words: wordsOf(container, 0, now), note: '' };

	const told = status.verdict(owner);
	const running = owner.conditions.find(one => one.type === 'Running');

	if (container && FINE.includes(told.level))
		return {
			level: told.level === 'ok' ? LEVELS[container.State] ?? 'ok' : told.level, words: running?.reason === 'Stopped' ? _('Stopped') : wordsOf(container, running?.status && container.State === 'running' ? running.since : 0, now),
			note: told.level === 'warning' ? '%s: %s'.format(told.label, told.message) : ''
		};

	// what is wrong with what runs, beside what became of the last change
	const more = running?.level === 'error' && told.type !== 'Running' ? '%s: %s'.format(status.labelOf(running), status.messageOf(running)) : '';

	return { level: told.level, words: told.label, note: [ told.message, more ].filter(Boolean).join('. ') };
}

// a port once, though the engine has it for all addresses of IPv4 and of IPv6; `reach`: which zones reach the ports of each container, as the agent says
function portsOf(container, owner, reach) {
	const found = new Map(), reached = reach?.[container?.Id] ?? owner?.reach;

	for (const port of container?.Ports ?? []) {
		// one address is told apart from others: what only the router itself reaches there, the LAN may reach at another one
		const key = '%d/%s'.format(port.PublicPort ?? port.PrivatePort, port.Type), place = isAnywhere(port.IP) ? key : '%s %s'.format(key, port.IP);

		if (!found.has(place) || !(found.get(place).ip ?? '').includes('.'))
			found.set(place, { ip: port.IP, host: port.PublicPort, inner: port.PrivatePort, type: port.Type, zones: port.PublicPort ? reached?.[key] : undefined });
	}

	return [ ...found.values() ].sort((one, other) => !one.host - !other.host || one.inner - other.inner);
}

return baseclass.extend({
	nameOf,
	isAnywhere,
	portsOf,

	// `containers` as the engine lists them, `resources` of the status, `now` in seconds, `reach` as the agent gives it. Sorted by stack,
	// then by name.
	make(containers, resources, now, reach) {
		const owners = resources.filter(one => one.kind === 'container'), names = new Set(owners.map(one => one.name));
		const containerOf = owner => containers.find(one => one.Id === owner.object_id) ?? containers.find(one => nameOf(one) === owner.name && !owner.object_id);
		const declared = owners.map(owner => ({ owner, container: containerOf(owner) }));
		const taken = new Set(declared.map(({ container }) => container?.Id));
		const others = containers.filter(one => !taken.has(one.Id) && !one.Labels?.[HELPER] && !(nameOf(one).includes(SWAP) && names.has(nameOf(one).split(SWAP)[0])));

		return [ ...declared, ...others.map(container => ({ container })) ].map(({ owner, container }) => ({
			owner, container, key: owner?.key ?? container.Id, name: owner?.name ?? nameOf(container), path: owner?.section ?? container.Id,
			image: format.image(owner?.image ?? container?.Image ?? ''), stack: (owner?.stack || container?.Labels?.[STACK]) ?? '',
			state: stateOf(container, owner, now), ports: portsOf(container, owner, reach)
		})).sort((one, other) => one.stack.localeCompare(other.stack) || one.name.localeCompare(other.name));
	},

	// the rows that have one of these volumes mounted now
	mounting: (made, volumes) => made.filter(({ container }) => [ 'running', 'paused', 'restarting' ].includes(container?.State) && container.Mounts?.some(mount => volumes.includes(mount.Name))),

	// whether a row is shown: `term` in lower case, `kind` '', running, trouble, stopped, declared or foreign
	fits({ owner, container, name, image, stack, state }, term, kind) {
		const isOf = {
			running: container?.State === 'running', trouble: [ 'error', 'warning', 'waiting' ].includes(state.level),
			stopped: container?.State !== 'running', declared: owner !== undefined, foreign: owner === undefined
		};

		return (!kind || isOf[kind]) && [ name, image, stack, state.words, state.note ].some(text => text.toLowerCase().includes(term));
	},

	// what makes sense for a container now
	actionsFor(container) {
		const state = container?.State;

		if (!container)
			return [];

		return state === 'running' ? [ 'stop', 'restart', 'pause', 'kill' ] : state === 'paused' ? [ 'unpause', 'stop', 'kill' ] : state === 'restarting' ? [ 'stop', 'restart', 'kill' ] : [ 'start' ];
	}
});
