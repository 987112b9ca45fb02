// SPDX-License-Identifier: GPL-2.0-or-later
// The tabs of the forms. Which one an option is on, its schema says, as its type, values and words. Pure.
'use strict';
'require baseclass';

// tabs in the order of the forms; an option's own is `x-tab` of its schema
const TABS = [
	'general', 'door', 'network', 'storage', 'environment', 'resources', 'devices', 'health', 'policy', 'addresses', 'more', 'registries', 'defaults', 'compatibility', 'cleanup', 'updates'
];

return baseclass.extend({
	// [[tab, [option, ...]], ...] of all options of a schema, in the schema's order
	tabsOf(schema) {
		const names = Object.keys(schema.properties);
		const tabs = TABS.map(tab => [ tab, names.filter(name => schema.properties[name]['x-tab'] === tab) ]);

		return tabs.filter(([ , options ]) => options.length > 0);
	},

	titleOf(tab) {
		return {
			general: _('General'), network: _('Network'), storage: _('Storage'), environment: _('Environment'), resources: _('Resources'),
			devices: _('Devices and rights'), health: _('Health and log'), policy: _('Policy'), addresses: _('Addresses'), more: _('More'),
			door: _('Access'), registries: _('Registries'), defaults: _('Container defaults'), compatibility: _('Compatibility'),
			cleanup: _('Clean-up'), updates: _('Updates')
		}[tab];
	}
});
