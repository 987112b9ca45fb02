// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's sentences in the user's language. One without names in it is a key of the catalogues (luci/i18n) itself; others
// are found by their template here, and what stands at its holes is translated in turn. What is not known stays as it is. Pure.
'use strict';
'require baseclass';
'require ucidockd.causes as causes';
'require ucidockd.dockerwords as docker';
'require ucidockd.faults as faults';
'require ucidockd.mistakes as mistakes';
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
	// what an import says of a flag or key; the longer of two that begin alike comes first
	'`ucidockd import compose FILE` takes a compose file',
	'`ucidockd logs` shows what a container prints',
	'a dependant restarts only when it shares a namespace',
	'a double quote is not closed',
	'a mount of the type %s cannot be expressed in a section',
	'a quote is not closed',
	'a section `network %s` is added',
	'a section `volume %s` has its options',
	'a section cannot empty the image\'s command',
	'a section cannot express it',
	'a section has no such option',
	'a section is one container',
	'a section keeps its container',
	'a section runs one command: write a script for all',
	'a single quote is not closed',
	'an extension, which docker ignores too',
	'build it elsewhere and give `image`',
	'compose has no such key',
	'compose takes its value from your shell',
	'compose wants $$ for a dollar sign',
	'containers of sections always run in the background',
	'did you mean %s?',
	'docker has removed it',
	'docker ignores it too',
	'docker run has no such flag',
	'docker takes its value from your shell',
	'docker would make up a name',
	'expected `services:` with at least one service',
	'expected a line such as docker run -d nginx',
	'expected CMD, CMD-SHELL or NONE first',
	'expected keys such as image below it',
	'expected keys such as test below it',
	'expected keys with values below it',
	'expected limits or reservations',
	'expected missing, always or never',
	'expected names with values below it',
	'expected none, on-failure or any',
	'expected one of %s',
	'expected one value',
	'expected settings such as driver below it',
	'expected the name of a service',
	'external ones need a swarm, which the router does not have',
	'give either a docker run line or a compose file',
	'give it in .env',
	'give network %s its `list subnet`, then add it',
	'give the file that it is in as well',
	'give the folder that it starts from, or an absolute path',
	'give the included file as well',
	'if the word after it is its value and not the image, write --%s=...',
	'if you want that, bind /var/run/docker.sock',
	'images are built elsewhere: build it, push it to a registry, and give `image`',
	'it becomes `option restart no`',
	'it belongs to the profile %s, which is not chosen',
	'it cannot be read',
	'it changes what runs now',
	'it extends itself through %s',
	'it gives no name',
	'it hands the engine and your registry logins to the container',
	'it has neither file, content nor environment',
	'it has no effect here',
	'it has no effect on Linux',
	'it has no effect on one machine',
	'it is a network that exists: `list network \'%s\'`',
	'it is about the terminal of `docker compose up`',
	'it is about the terminal that starts the container',
	'it is empty',
	'it is empty, so the image\'s own check counts',
	'it is for a swarm',
	'it is for development',
	'it is for Windows only',
	'it is made as %s',
	'it is not a compose file',
	'it is not a variable and is taken as it stands',
	'it is not set, so it is replaced by nothing',
	'it is optional, and there is no file %s to read',
	'it is read as %s',
	'it is section %s, which is there already',
	'it is section %s already',
	'it names no image',
	'it names no target',
	'it needs a --network with a name',
	'it sets nothing',
	'it starts after %s',
	'it starts no container',
	'it takes over a network that exists already',
	'its absolute path is %s',
	'its bridge is called %s: %s is another network\'s',
	'its lines are read as one, although no backslash ends them',
	'its value does not have a form that compose knows',
	'its value is missing',
	'its value is %s',
	'name other devices in devices',
	'names resolve in the network',
	'network sections use the default address management',
	'no service uses it',
	'none of the chosen services has this name',
	'only docker run, docker create, docker network create and docker volume create are read',
	'only GPUs can be reserved',
	'put `services:` above its services and indent them',
	'put both containers into one `list network`: their names resolve there',
	'put its variables into the .env of the project',
	'put the other container into the same network',
	'reading YAML needs PyYAML: install python3-yaml, or give the file as JSON (docker compose config --format json prints it)',
	'remove the section to remove the container',
	'run it yourself before the container starts',
	'sections declare what should run',
	'services.%s.extends: %s',
	'set it in .env, or write $$ if a dollar sign is meant',
	'the agent keeps the ids of containers itself',
	'the agent pulls images by itself',
	'the command runs as the container does',
	'the compose file cannot be read as YAML',
	'the compose file demands it',
	'the compose file expands to too many values',
	'the compose file has no services',
	'the compose file is larger than %s MiB',
	'the compose file is nested too deeply',
	'the container is called %s',
	'the container is in the network %s already',
	'the container that needs it is left out',
	'the container waits for it in any case',
	'the container waits for the file: remove the line if there is none',
	'the engine chooses its own delays',
	'the engine takes whole seconds: %s',
	'the file declares no network %s',
	'the file declares no volume %s',
	'the file keeps its owner and mode',
	'the file %s is mounted at %s',
	'the kernel and docker have removed it',
	'the section %s is made',
	'the variable %s is not set: %s',
	'the variable %s is not set',
	'the whole volume is mounted',
	'there is no `docker run` in it',
	'there is no service %s',
	'this is not YAML: %s',
	'values are taken as they stand, with their quotes',
	'without it nothing restarts the container: `option restart no`',
	'write its lines as `list label`',
	'write NAME=value',
	'write one section for each',
	'write the image instead of %s',
	'write the value instead of %s, which only a shell knows',
	'write the value instead of %s',
	'written as `option restart %s`',
	'%s does not resolve',
	'%s resolves in all containers of its networks',
	'%s runs no container, so compose does not wait for it',
	'%s is left out: a section cannot express it',
	'%s is not known here',
	'%s is there already, in line %s',
	'%s keeps its own name',
	'%s: expected names with settings below them',
	'the file declares no %s %s',
	'expected %s',
	'line %s: %s',
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
const PATTERNS = [ TEMPLATES, ...[ mistakes, wrongvalues, faults, causes, docker ].map(each => each.templates) ].flat().filter(text => text.includes('%s')).sort((one, other) => other.replaceAll('%s', '').length - one.replaceAll('%s', '').length)
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

	for (const [ template, pattern ] of PATTERNS) {
		const found = pattern.exec(text);

		if (found)
			return String.prototype.format.apply(_(template), found.slice(1).map((part, at) => isCode(template, at) ? part : say(part)));
	}

	return together(text);
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
