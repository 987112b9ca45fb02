// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's sentences in the user's language. One without names in it is a key of the catalogues (luci/i18n) itself; others
// are found by their template here, and what stands at its holes is translated in turn. What is not known stays as it is. Pure.
'use strict';
'require baseclass';

// `%s` stands for what varies. A test finds each in the agent's source; `make pot` takes them from here.
const TEMPLATES = [
	'%s is not there: another disk, or an empty one',
	'%s is not up',
	'a container named %s exists, and ucidockd did not create it',
	'a network named %s exists, and ucidockd did not create it',
	'a volume named %s exists, and ucidockd did not create it',
	'after %s, which has its name',
	'bind source %s is not there',
	'browsers send your LuCI login to the web pages of this container too (%s), because LuCI is used over http',
	'cannot pull %s: %s',
	'declared, does not exist yet',
	'depends on %s, which failed',
	'device %s is not there',
	'exited with %s',
	'it ended again soon after it was started',
	'it is %s, wanted: running',
	'its health check failed again after a restart',
	'no firewall zone may reach %s',
	'no internet: allow forwarding from zone %s to zone %s',
	'nothing is mounted on %s',
	'pulling %s: %s',
	'removed from the engine',
	'removed outside of ucidockd',
	'section removed',
	'takes over the container %s (%s)',
	'the change waits: %s',
	'the clock is not set',
	'the engine does not answer',
	'the new container ended with 0 after %s s, but a service must keep running',
	'the new container exited with %s after %s s',
	'the new container is not healthy after %s s',
	'the new container is unhealthy',
	'the replacement waits: %s',
	'this container can take control of the router, by %s',
	'wanted: running',
	'wanted: stopped'
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

	return text.includes('; ') ? text.split('; ').map(say).join('; ') : text;
}

return baseclass.extend({ say, verb: name => VERBS[name]?.() ?? name });
