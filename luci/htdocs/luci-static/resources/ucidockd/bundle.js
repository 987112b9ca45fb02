// SPDX-License-Identifier: GPL-2.0-or-later
// What a client of dockerd's TLS needs, as a file to download. The key is on no page, and kept nowhere.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.tar as tar';

return baseclass.extend({
	async download(client) {
		const { name, files: texts } = await calls.agent.tls_client(client);
		const entries = Object.entries(texts).map(([ file, text ]) => ({ name: '%s/%s'.format(name, file), text, mode: 0o600 }));

		files.offer({ title: '%s.tar'.format(name), blob: new Blob([ tar.make(entries, Date.now() / 1000) ]) });
	},

	render() {
		if (!L.hasViewPermission())
			return null;

		const name = D.el('input', { 'type': 'text', 'aria-label': _('Name of the client'), 'placeholder': _('e.g. %s').format('laptop') });

		return D.el('div', { 'class': 'cbi-section' },
			D.el('h4', {}, _('TLS clients')),
			D.el('p', {}, _('Makes a certificate for a client, with its key and the CA. Anyone who has the key controls this router: give each client its own, and keep the file in a safe place.')),
			D.el('p', {}, name, ' ', D.button('neutral', _('Download client bundle'), () => this.download(name.value.trim()))));
	}
});
