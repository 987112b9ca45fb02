// SPDX-License-Identifier: GPL-2.0-or-later
// Takes a running container over into UCI: shows the sections first, then commits them.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

return baseclass.extend({
	// `name` is what it is called to people
	async show(id, name, done) {
		const preview = await calls.agent.adopt(id, '', false);

		D.ask(_('Adopt %s').format(name), [
			_('Adopting writes these sections to /etc/config/containers. The container is then replaced by one that ucidockd manages: it is down for the time that it takes to stop and start again. Its volumes stay. If the new container does not start, the old one comes back.'),
			D.el('pre', { 'style': 'max-height:50vh;overflow:auto' }, preview.text), ...(preview.notes ?? []).map(note => D.el('p', { 'class': 'alert-message notice' }, D.said(note)))
		], _('Adopt'), async () => {
			await calls.agent.adopt(id, '', true);
			done();
		});
	}
});
