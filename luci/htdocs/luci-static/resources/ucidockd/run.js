// SPDX-License-Identifier: GPL-2.0-or-later
// Runs a program in a container and gives what it printed, over the tab's stream object.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.live as live';

const LIMIT = 512 * 1024; // characters
const WAIT_MS = 20000;

return baseclass.extend({
	// {code, out, err}. Rejects where it cannot be started, as in a container without that program.
	run(container, command) {
		return new Promise((done, failed) => {
			const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }, texts = { stdout: '', stderr: '' };
			let exit = null;

			const end = act => {
				window.clearTimeout(timer);
				stream.stop();
				act();
			};
			const timer = window.setTimeout(() => end(() => failed(new Error(_('The container does not answer.')))), WAIT_MS);
			const stream = live.follow('console', { container, command, tty: false, env: [ 'LC_ALL=C.UTF-8' ] }, item => {
				if (item.name in texts && texts[item.name].length < LIMIT)
					texts[item.name] += decoders[item.name].decode(Uint8Array.from(window.atob(item.bytes), char => char.charCodeAt(0)), { stream: true });
				else if (item.name === 'exit')
					exit = item.json;
				else if (item.name === 'end')
					end(() => !exit || (exit.reason && exit.code === undefined) ? failed(new Error(exit?.reason ?? _('The container does not answer.'))) : done({ code: exit.code, out: texts.stdout, err: texts.stderr }));
				else if (item.name === 'error')
					end(() => failed(new Error(D.wordsOf(item.json))));
			});
		});
	}
});
