// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's sentences in the user's language. One without names in it is a key of the catalogues (luci/i18n) itself; others
// are found by their template here, and what stands at its holes is translated in turn. What is not known stays as it is. Pure.
'use strict';
'require baseclass';
'require ucidockd.causes as causes';
'require ucidockd.dockerwords as docker';
'require ucidockd.faults as faults';
'require ucidockd.importwords as imports';
'require ucidockd.mistakes as mistakes';
'require ucidockd.reasons as reasons';
'require ucidockd.wrongvalues as wrongvalues';

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
	'it does not exist yet',
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
	'it is %s and should be running',
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
	'it should be running',
	'it should be stopped',
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

// those that say more come first: `%s (%s)` fits much
const PATTERNS = [ TEMPLATES, ...[ imports, mistakes, wrongvalues, faults, causes, reasons, docker ].map(each => each.templates) ].flat().filter(text => text.includes('%s')).sort((one, other) => other.replaceAll('%s', '').length - one.replaceAll('%s', '').length)
	.map(text => [ text, new RegExp('^%s$'.format(text.split('%s').map(part => part.replace(/[\^$.*+?()[\]{}|\\]/g, '\\$&')).join('(.+?)')), 's') ]);
// of several mistakes of the settings
const NEXT = (/; (?=(?:containers|dockerd)\.[^\s:]+: )/), OF_OPTION = (/^((?:containers|dockerd)\.[^\s:]+): (.+)$/s), WISH = ', expected ';

// whether the hole is between backticks: `option restart always` is what one types
function isCode(template, hole) {
	return template.split('%s').slice(0, hole + 1).join('').split('`').length % 2 === 0;
}

function say(text) {
	if (!text)
		return text;

	const known = _(text);

	if (known !== text)
		return known;

	const several = text.split(NEXT);

	if (several.length > 1)
		return several.map(say).join('; ');

	const [ , option, mistake ] = OF_OPTION.exec(text) ?? [];

	if (option)
		return '%s: %s'.format(option, say(mistake));

	const [ , body, where ] = (/^(.+)( \(\/\S+:\d+\))$/s).exec(text) ?? [];

	if (where)
		return say(body) + where;

	if (text.includes(WISH)) {
		const [ wrong, ...wish ] = text.split(WISH);

		return '%s; %s'.format(say(wrong), _('expected: %s').format(say(wish.join(WISH))));
	}

	// as an import says it
	const [ , wrong, wish, more ] = (/^(.+?) \(expected (.+)\)(?:; (.+))?$/s).exec(text) ?? [];

	if (wish)
		return [ '%s (%s)'.format(say(wrong), _('expected: %s').format(say(wish))), ...more ? [ say(more) ] : [] ].join('; ');

	return filled(text, part => !part.includes('; ')) ?? eachOf(text) ?? filled(text, () => true) ?? together(text);
}

// by the first template that fits; `fits`: what may stand at a hole
function filled(text, fits) {
	for (const [ template, pattern ] of PATTERNS) {
		const found = pattern.exec(text)?.slice(1);

		if (found?.every(fits))
			return String.prototype.format.apply(_(template), found.map((part, at) => isCode(template, at) ? part : say(part)));
	}

	return null;
}

// of two sentences in one, if each is known: `exited with 3; it ended again` does not end with `3; it ended again`
function eachOf(text) {
	const parts = text.split('; '), told = parts.map(part => parts.length > 1 ? say(part) : part);

	return told.every((words, at) => words !== parts[at]) ? told.join('; ') : null;
}

// a text that is made of several
function together(text) {
	const parts = text.split(', ');

	// a list of known things; of other texts with commas a half that is translated would read worse than none
	if (parts.length > 1 && parts.every(part => _(part) !== part))
		return parts.map(part => _(part)).join(', ');

	if (text.includes('; '))
		return text.split('; ').map(say).join('; ');

	const [ , names, word, last ] = (/^(\S+(?:, \S+)*) (and|or) (\S+)$/).exec(text) ?? [];

	if (last)
		return (word === 'and' ? _('%s and %s') : _('%s or %s')).format(names, last);

	const [ , place, rest ] = (/^(\S+): (.+)$/s).exec(text) ?? [];

	// which option, or which host
	return place ? '%s: %s'.format(place, say(rest)) : text;
}

return baseclass.extend({ say, verb: name => VERBS[name]?.() ?? name });
