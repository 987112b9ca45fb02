// SPDX-License-Identifier: GPL-2.0-or-later
// Takes a running container over into UCI: shows the sections first, then commits them.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

return baseclass.extend({
	async show(name, done) {
		const preview = await calls.agent.adopt(name, '', false);
		const commit = async () => {
			await calls.agent.adopt(name, '', true);
			close();
			done();
		};

		const close = D.dialogue(_('Adopt %s').format(name),
			D.el('p', {}, _('These sections go to /etc/config/containers. The agent then replaces the container by one of its own, and brings the old one back should that fail.')),
			D.el('pre', { 'style': 'max-height:50vh;overflow:auto' }, preview.text),
			(preview.notes ?? []).map(note => D.el('p', { 'class': 'alert-message notice' }, note)),
			D.el('div', { 'class': 'right' },
				D.el('button', { 'class': 'btn', 'click': () => close() }, _('Cancel')), ' ',
				D.button('positive', _('Adopt'), commit)));
	}
});
