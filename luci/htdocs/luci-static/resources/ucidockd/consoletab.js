// SPDX-License-Identifier: GPL-2.0-or-later
// The tab with a console in a container: a shell is opened at once, with the first one that the image has.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.terminal as terminal';

const TTYD_PORT = 7682;
const SHELLS = [ '/bin/sh', '/bin/bash', '/bin/ash' ];

const ConsoleTab = baseclass.extend({
	__init__(container) {
		this.container = container;
		this.place = D.el('div', {});
		this.other = D.el('p', {});
		this.user = D.el('input', { 'type': 'text', 'placeholder': _('user (default: the image\'s)'), 'aria-label': _('User') });
		this.command = D.select(_('Shell'), SHELLS.map(shell => [ shell, shell ]));
		this.node = D.el('div', {}, D.bar(this.command, this.user, D.button('apply', _('New console'), () => this.open()), D.button('neutral', _('Close'), () => this.close())), this.other, this.place);
		D.attempt(() => this.open());
	},

	async open() {
		this.close();
		D.fill(this.other);
		this.console = terminal.make({ container: this.container, command: [ this.command.value ], user: this.user.value.trim() },
			() => D.fill(this.other, D.button('neutral', _('Try ttyd'), () => this.ttyd())));
		D.fill(this.place, this.console.render());
		await new Promise(done => window.setTimeout(done)); // until the tab is on the page: the terminal takes its size from it
		await this.console.open();
	},

	// another container came in the place of this one
	move(container) {
		this.container = container;
		D.fill(this.other, _('The container was replaced. "New console" opens a shell in the new one.'));
	},

	close() {
		this.console?.close();
		this.console = null;
	},

	// where our own console cannot be had; ttyd asks for no password, so it listens on the router's loopback device only
	async ttyd() {
		await calls.ttyd.ttyd_start(this.container, this.command.value, this.user.value.trim());
		D.fill(this.other, _('ttyd accepts one client on the router, and ends with it; leave the shell with exit. Run this on your computer, then open the page:'), ' ',
			D.el('code', {}, 'ssh -L %d:127.0.0.1:%d root@%s'.format(TTYD_PORT, TTYD_PORT, location.hostname)), ' ',
			D.link('http://127.0.0.1:%d/'.format(TTYD_PORT), _('Open')));
	}
});

return baseclass.extend({ make: container => new ConsoleTab(container) });
