// SPDX-License-Identifier: GPL-2.0-or-later
// Choosing a folder or a device file of the router: a dialogue that lists what is there.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

// device files that containers are given
const DEVICE = /^\/dev\/(?:tty(?:USB|ACM|S)\d+|video\d+|sd[a-z]|nvme\w+|hidraw\d+|i2c-\d+|gpiochip\d+|fuse|kvm|watchdog\d*|rtc\d*)$/;

function joined(folder, name) {
	return '%s/%s'.format(folder === '/' ? '' : folder, name);
}

return baseclass.extend({
	// names below a folder, folders first; `types` are rpcd's: directory, file, char, block, ...
	async list(path, types) {
		const { entries } = await calls.router.list(path);

		return (entries ?? []).filter(one => types.includes(one.type)).map(one => one.name).sort();
	},

	// calls `chosen(path)`
	folder(start, chosen) {
		const place = D.el('div', { 'style': 'max-height:50vh;overflow:auto' }), title = D.el('code', {});
		let path = start?.startsWith('/') ? start.replace(/(?!^)\/+$/, '') : '/';
		const open = async to => {
			path = to;
			D.fill(title, path);

			const names = await this.list(path, [ 'directory' ]).catch(() => null);
			const line = (text, target) => D.el('div', {}, D.el('button', { 'type': 'button', 'class': 'btn cbi-button', 'style': 'margin:.15em 0', 'click': () => open(target) }, text));

			D.fill(place, path === '/' ? '' : line('..', path.replace(/\/[^/]*$/, '') || '/'),
				names ? names.map(name => line(name, joined(path, name))) : D.el('p', {}, _('This folder does not exist or cannot be read.')),
				names && !names.length ? D.el('p', {}, _('No folders in here.')) : '');
			place.querySelector('button')?.focus();
		};

		D.ask(_('Choose a folder of the router'), [ D.el('p', {}, title), place ], _('Choose this folder'), () => chosen(path));

		return open(path);
	},

	button(start, chosen) {
		return D.always('neutral', _('Browse'), () => this.folder(start(), chosen));
	},

	// device files that containers are given most often
	async devices() {
		const below = async folder => (await this.list(folder, [ 'char', 'block' ]).catch(() => [])).map(name => joined(folder, name));
		const found = await Promise.all([ '/dev', '/dev/serial/by-id', '/dev/dri', '/dev/net' ].map(below));

		return [ ...found[0].filter(path => DEVICE.test(path)), ...found.slice(1).flat() ];
	}
});
