// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's sentences in the user's language. One without names in it is a key of the catalogues (luci/i18n) itself; others
// are found by their template here, and what stands at its holes is translated in turn. What is not known stays as it is. Pure.
'use strict';
'require baseclass';

// `%s` stands for what varies. A test finds each in the agent's source; `make pot` takes them from here.
const TEMPLATES = [
	'%s is free',
	'%s is listed twice',
	'%s is not there: another disk, or an empty one',
	'%s is not up',
	'a container named %s exists, and ucidockd did not create it',
	'a container section (%s)',
	'a network named %s exists, and ucidockd did not create it',
	'a network section (%s), bridge, host or none',
	'a port is published at %s, which this router does not have; it has %s',
	'a volume named %s exists, and ucidockd did not create it',
	'after %s, which has its name',
	'bind source %s is not there',
	'browsers send your LuCI login to the web pages of this container too (%s), because LuCI is used over http',
	'cannot pull %s: %s',
	'declared, does not exist yet',
	'deletes the container and its anonymous volumes',
	'deletes the volume and its data',
	'depends on %s, which failed',
	'depends on itself through %s',
	'device %s is not there',
	'dockerd was stopped manually: it stays down until you start it or run `ucidockd reconcile`',
	'cannot be combined with network_mode %s',
	'exited with %s',
	'host ports taken by other containers: %s',
	'it ended again soon after it was started (%s times in a row)',
	'it is %s, wanted: running',
	'its health check failed again after a restart (%s restarts in a row)',
	'its own host port or address',
	'no Docker engine at %s; is dockerd running?',
	'no firewall zone may reach %s',
	'no internet: allow forwarding from zone %s to zone %s',
	'nothing is mounted on %s',
	'passwords',
	'pulling %s: %s',
	'removed from the engine',
	'removed outside of ucidockd',
	'requested manually',
	'section removed',
	'SSH keys',
	'stops the container; it will be deleted in %s s, unless its section comes back',
	'takes over the container %s (%s)',
	'the agent\'s socket',
	'the agent\'s state and keys',
	'the change waits: %s',
	'the clock is not set',
	'the container cannot write to %s: the file system is mounted read-only',
	'the Docker name %s is also that of section %s',
	'the engine does not answer',
	'the engine\'s socket',
	'the kernel\'s settings',
	'the new container ended with 0 after %s s, but a service must keep running',
	'the new container exited with %s after %s s',
	'the new container is not healthy after %s s',
	'the new container is unhealthy',
	'the replacement waits: %s',
	'the router\'s configuration',
	'the router\'s file system',
	'the router\'s programs',
	'the router\'s whole file system',
	'this container can take control of the router, by %s',
	'unknown container section %s',
	'unknown network %s',
	'wanted: running',
	'wanted: stopped',
	'what the router runs',
	// states of a container, as Docker names them
	'created',
	'dead',
	'exited',
	'paused',
	'restarting',
	'running',
	'%s (%s)'
];

// what the agent does, as it stands in plans and in its history
const VERBS = { acknowledgeloss: () => _('accept the loss'), forget: () => _('no longer manage'), note: () => _('write down'), prepare: () => _('prepare'), restore: () => _('bring back'), adopt: () => _('take over'), create: () => _('create'), pull: () => _('pull'), reconnect: () => _('reconnect'), reload: () => _('reload'), remove: () => _('remove'), rename: () => _('rename'), replace: () => _('replace'), restart: () => _('restart'), retire: () => _('stop before removal'), start: () => _('start'), stop: () => _('stop'), unpause: () => _('resume'), update: () => _('change in place') };

const PATTERNS = TEMPLATES.filter(text => text.includes('%s')).map(text => [ text, new RegExp('^%s$'.format(text.split('%s').map(part => part.replace(/[\^$.*+?()[\]{}|\\]/g, '\\$&')).join('(.+?)')), 's') ]);

function say(text) {
	if (!text)
		return text;

	const known = _(text);

	if (known !== text)
		return known;

	for (const [ template, pattern ] of PATTERNS) {
		const found = pattern.exec(text);

		if (found)
			return String.prototype.format.apply(_(template), found.slice(1).map(say));
	}

	const parts = text.split(', ');

	// a list of known things; of other texts with commas a half that is translated would read worse than none
	if (parts.length > 1 && parts.every(part => _(part) !== part))
		return parts.map(part => _(part)).join(', ');

	return text.includes('; ') ? text.split('; ').map(say).join('; ') : text;
}

return baseclass.extend({ say, verb: name => VERBS[name]?.() ?? name });
