// SPDX-License-Identifier: GPL-2.0-or-later
// What an image gives a container that does not say otherwise: shown in the container's form. Values of environment
// variables stay out. Pure.
'use strict';
'require baseclass';

function keysOf(table) {
	return Object.keys(table ?? {}).sort();
}

// as a command line would have it
function quoted(words) {
	return (words ?? []).map(word => (/^[\w@%+=:,./-]+$/).test(word) ? word : "'%s'".format(word.replaceAll("'", "'\\''"))).join(' ');
}

function healthOf({ Test: test } = {}) {
	return !test || test[0] === 'NONE' ? '' : test[0] === 'CMD-SHELL' ? test[1] ?? '' : quoted(test.slice(1));
}

return baseclass.extend({
	// what fields show while they are empty; `config` is the image's `Config`
	placeholdersOf(config) {
		return {
			entrypoint: quoted(config.Entrypoint), command: quoted(config.Cmd), user: config.User ?? '', workdir: config.WorkingDir ?? '',
			stop_signal: config.StopSignal ?? '', health_cmd: healthOf(config.Healthcheck)
		};
	},

	// [[words, text], ...] of what it has
	factsOf(config) {
		const names = (config.Env ?? []).map(entry => entry.split('=')[0]);

		return [
			[ _('Entrypoint'), quoted(config.Entrypoint) ], [ _('Command'), quoted(config.Cmd) ], [ _('User'), config.User ], [ _('Working directory'), config.WorkingDir ],
			[ _('Ports'), keysOf(config.ExposedPorts).join(', ') ], [ _('Volumes'), keysOf(config.Volumes).join(', ') ],
			[ _('Environment (names)'), names.join(', ') ], [ _('Health check'), healthOf(config.Healthcheck) ], [ _('Stop signal'), config.StopSignal ]
		].filter(([ , text ]) => text);
	}
});
