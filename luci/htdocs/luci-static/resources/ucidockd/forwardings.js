// SPDX-License-Identifier: GPL-2.0-or-later
// The forwarding that a container needs: a condition of its names the two firewall zones, a button adds the section to UCI.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.actions as actions';
'require ucidockd.dom as D';

const LABELS = {
	'allow-in': _('Allow %s to reach containers'),
	'allow-out': _('Allow containers to reach %s')
};

function freeName(wanted) {
	let name = wanted, number = 1;

	while (uci.get('firewall', name))
		name = '%s_%d'.format(wanted, ++number);

	return name;
}

return baseclass.extend({
	// stages it: what is there but off, or for IPv6 only, is turned on
	stage({ src, dest }) {
		const there = uci.sections('firewall', 'forwarding').find(one => one.src === src && one.dest === dest);

		if (there) {
			uci.unset('firewall', there['.name'], 'enabled');
			uci.unset('firewall', there['.name'], 'family');

			return;
		}

		const name = uci.add('firewall', 'forwarding', freeName('%s_%s'.format(src, dest).replace(/[^A-Za-z0-9_]/g, '_')));

		uci.set('firewall', name, 'src', src);
		uci.set('firewall', name, 'dest', dest);
	},

	// with LuCI's way back; the firewall is reloaded by the change of its file
	async allow(zones) {
		await uci.load('firewall');
		this.stage(zones);
		await uci.save();
		await actions.apply();
	},

	// '' for a condition that no forwarding mends
	button(condition) {
		const { remedy, details: { src, dest } = {} } = condition;

		if (!src || !dest || !(remedy in LABELS))
			return '';

		const label = LABELS[remedy].format(remedy === 'allow-out' ? dest : src);

		return D.button('positive', label, () => this.allow({ src, dest })) ?? '';
	}
});
