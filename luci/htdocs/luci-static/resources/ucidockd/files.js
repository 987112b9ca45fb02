// SPDX-License-Identifier: GPL-2.0-or-later
// Files between this browser and the engine, by the bridge in LuCI's dispatcher (luci/ucode). How, `transfer` knows.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.transfer as transfer';

function send(method, path, { body, query } = {}) {
	const words = new URLSearchParams({ ...query, ...(method === 'GET' ? {} : { token: L.env.token }) });

	return fetch('%s%s?%s'.format(L.url('admin/services/ucidockd/transfer'), path, words), {
		method, body, credentials: 'same-origin', headers: body ? { 'Content-Type': typeof body === 'string' ? 'application/json' : 'application/octet-stream' } : {}
	});
}

const transfers = transfer.make(send);

function offer({ title, blob }) {
	const url = URL.createObjectURL(blob);
	const link = D.el('a', { 'href': url, 'download': title });

	link.click();
	window.setTimeout(() => URL.revokeObjectURL(url), 60000);
}

return baseclass.extend({
	// gives what was made in the page to the browser as a file: {title, blob}
	offer,

	// a line that shows how far a transfer is: {node, tell, clear}
	progress() {
		const node = D.el('p', {});

		return {
			node,
			tell: (done, size) => D.fill(node, size ? _('%s of %s').format(format.bytes(done), format.bytes(size)) : format.bytes(done)),
			clear: () => D.fill(node)
		};
	},

	upload(spec, file, { tell, clear }) {
		return file ? transfers.upload(spec, file, tell).finally(clear) : Promise.resolve();
	},

	download(spec, { tell, clear }) {
		return transfers.download(spec, tell).then(offer).finally(clear);
	}
});
