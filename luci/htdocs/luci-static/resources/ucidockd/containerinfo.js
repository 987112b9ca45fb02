// SPDX-License-Identifier: GPL-2.0-or-later
// What the engine says of a container, as rows for people.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.format as format';

const HIDDEN = '***'; // what the agent gives readers

function lines(items) {
	return (items ?? []).map(item => D.el('div', {}, item));
}

function pairs(table) {
	return lines(Object.entries(table ?? {}).map(pair => pair.join('=')));
}

// a variable; one whose name says that it is secret only on request
function variable(text) {
	const [ name ] = text.split('=', 1), value = text.slice(name.length + 1);

	if (!value || value === HIDDEN || !format.isSecret(name))
		return text;

	return [ name, '= ', D.el('button', { 'type': 'button', 'class': 'btn cbi-button', 'aria-label': _('Show %s').format(name), 'click': event => event.target.replaceWith(value) }, _('Show')) ];
}

// what ucidockd marks its containers with says nothing to people
function ownLabels(labels) {
	return Object.fromEntries(Object.entries(labels ?? {}).filter(([ name ]) => !name.startsWith('ucidockd.')));
}

function mountText(mount) {
	return '%s → %s (%s%s)'.format(mount.Name ?? mount.Source, mount.Destination, mount.Type, mount.RW ? '' : ', ro');
}

function networkText([ name, network ]) {
	const found = [ network.IPAddress, network.GlobalIPv6Address, network.MacAddress ].filter(Boolean).join(', ');

	return found ? '%s: %s'.format(name, found) : name;
}

// 80/tcp, or where it is published
function portTexts([ port, bindings ]) {
	return bindings?.length ? bindings.map(one => '%s:%s → %s'.format(one.HostIp?.includes(':') ? '[%s]'.format(one.HostIp) : one.HostIp, one.HostPort, port)) : [ port ];
}

function deviceText(device) {
	return '%s → %s (%s)'.format(device.PathOnHost, device.PathInContainer, device.CgroupPermissions);
}

function time(text) {
	return Date.parse(text) > 0 ? new Date(text).toLocaleString() : '-';
}

return baseclass.extend({
	// [[name, value], ...] of an inspected container; what it does not have is left out. `hasPorts`: they are shown already
	factsOf(found, hasPorts) {
		const { Config: config, State: state, HostConfig: host } = found;
		const networks = Object.entries(found.NetworkSettings?.Networks ?? {}), ports = Object.entries(found.NetworkSettings?.Ports ?? {});

		return [
			[ _('Error'), [ state.Error, state.OOMKilled && ' ' + _('It was killed because it ran out of memory.') ] ],
			[ _('Health'), state.Health && [ state.Health.Status, lines(state.Health.Log?.slice(-1).map(entry => entry.Output)) ] ],
			[ _('Created'), time(found.Created) ], [ _('Started'), time(state.StartedAt) ],
			[ _('Ended'), state.Status === 'exited' && time(state.FinishedAt) ],
			[ _('Command'), [ config.Entrypoint, config.Cmd ].flat().filter(Boolean).join(' ') ],
			[ _('Restart policy'), host.RestartPolicy?.Name || _('no restart') ], [ _('User'), config.User || 'root' ], [ _('Host name'), config.Hostname ],
			[ _('Networks'), lines(networks.map(networkText)) ], [ _('Ports'), !hasPorts && lines(ports.flatMap(portTexts)) ],
			[ _('DNS servers'), lines(host.Dns) ], [ _('Extra hosts'), lines(host.ExtraHosts) ],
			[ _('Mounts'), lines((found.Mounts ?? []).map(mountText)) ], [ 'tmpfs', pairs(host.Tmpfs) ],
			[ _('Devices'), lines((host.Devices ?? []).map(deviceText)) ],
			[ _('Environment'), lines(config.Env?.map(variable)) ], [ 'sysctls', pairs(host.Sysctls) ],
			[ _('Privileged'), host.Privileged ? _('yes') : _('no') ],
			[ _('Capabilities to add'), lines(host.CapAdd) ], [ _('Capabilities to drop'), lines(host.CapDrop) ],
			[ _('Log driver'), [ host.LogConfig?.Type, pairs(host.LogConfig?.Config) ] ],
			[ _('Labels'), pairs(ownLabels(config.Labels)) ], [ _('ID'), D.el('span', { 'title': found.Id }, format.shortId(found.Id)) ], [ _('Image ID'), format.shortId(found.Image) ]
		].filter(([ , value ]) => Array.isArray(value) ? value.flat().some(Boolean) : value);
	}
});
