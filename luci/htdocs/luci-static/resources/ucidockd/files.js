// SPDX-License-Identifier: GPL-2.0-or-later
// Files between this browser and the engine, by the bridge in LuCI's dispatcher (luci/ucode). Up in parts, which `transfer`
// knows; down by a plain link, so that the browser writes to its disk what comes and keeps nothing. uhttpd cuts a request
// after 60 s: what takes longer comes in parts, to a file where the browser lets pages write one (HTTPS), else to its disk by way
// of its database.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.transfer as transfer';

const LOOK_MS = 1000, LOOKS = 3; // a browser that has not begun after these, or has stopped, was cut
const CUT_MS = 50000; // what stopped before, somebody cancelled
const PARTS = 'ucidockd-parts-', FORGOTTEN_MS = 24 * 3600 * 1000;

function place(path, query) {
	return '%s%s?%s'.format(L.url('admin/services/ucidockd/transfer'), path, new URLSearchParams(query));
}

function send(method, path, { body, query, signal } = {}) {
	return fetch(place(path, { ...query, ...(method === 'GET' ? {} : { token: L.env.token }) }), {
		method, body, signal, credentials: 'same-origin', headers: body ? { 'Content-Type': typeof body === 'string' ? 'application/json' : 'application/octet-stream' } : {}
	});
}

const transfers = transfer.make(send);

function click(href, title) {
	const link = D.el('a', { href, 'download': title, 'style': 'display:none' });

	document.body.append(link);
	link.click();
	link.remove();
}

function offer({ title, blob }) {
	const url = URL.createObjectURL(blob);

	click(url, title);
	window.setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function settled(request) {
	return new Promise((done, fail) => Object.assign(request, { onsuccess: () => done(request.result), oncomplete: () => done(), onerror: () => fail(request.error), onabort: () => fail(request.error) }));
}

// what a page that was closed too soon left behind
async function tidy() {
	for (const { name } of await window.indexedDB.databases())
		if (name.startsWith(PARTS) && Date.now() - name.slice(PARTS.length) > FORGOTTEN_MS)
			window.indexedDB.deleteDatabase(name);
}

// A blob that comes out of the database is a file on the browser's disk, and so is one that is made of many: none of it is in memory.
async function diskSink() {
	const name = PARTS + Date.now();
	const opened = window.indexedDB.open(name), blobs = [];

	tidy().catch(() => {});
	opened.onupgradeneeded = () => opened.result.createObjectStore('parts');

	const base = await settled(opened);
	const forget = () => {
		base.close();
		window.indexedDB.deleteDatabase(name);
	};

	return {
		async write(bytes) {
			const writing = base.transaction('parts', 'readwrite');

			writing.objectStore('parts').put(new Blob([ bytes ]), blobs.length);
			await settled(writing);
			blobs.push(await settled(base.transaction('parts').objectStore('parts').get(blobs.length)));
		},
		async close() {
			window.setTimeout(forget, 60000);

			return new Blob(blobs, { type: 'application/octet-stream' });
		},
		async abort() {
			forget();
		}
	};
}

// where the parts of a download go: to a file that the user chose, or to the browser's disk; a browser that has neither keeps them
async function sinkFor(title) {
	if (!window.showSaveFilePicker)
		return diskSink().catch(() => null);

	const handle = await window.showSaveFilePicker({ suggestedName: title });

	return handle.createWritable();
}

return baseclass.extend({
	// gives what was made in the page to the browser as a file: {title, blob}
	offer,

	// a line that shows how far a transfer is: {node, tell, clear, isOver}
	progress() {
		const node = D.spoken('div', {});
		const one = {
			node, isOver: false,
			tell: (done, size) => one.show(size ? _('%s of %s').format(format.bytes(done), format.bytes(size)) : _('%s so far').format(format.bytes(done))),
			show: (...words) => D.fill(node, D.el('p', {}, one.title ? [ D.el('strong', {}, one.title), ' ' ] : '', words, ' ',
				D.el('button', { 'class': 'btn cbi-button', 'click': () => one.cancel() }, _('Cancel')))),
			clear: () => D.fill(node),
			cancel: () => {
				one.isOver = true;
				one.clear();
				one.onCancel?.();
			},
			begin: (title, onCancel) => Object.assign(one, { isOver: false, title, onCancel })
		};

		return one;
	},

	upload(spec, file, progress) {
		if (!file)
			return Promise.resolve();

		progress.begin(file.name ?? spec.path, null);

		return transfers.upload(spec, file, progress.tell, () => progress.isOver).finally(progress.clear);
	},

	// by a link; resolves once the browser has it, or was cut
	async download(spec, progress) {
		const { id, title } = await transfers.create('down', spec);
		const began = Date.now();

		progress.begin(title, () => transfers.end(id));
		progress.tell(0, 0);
		click(place('/%s/0'.format(id), { length: 'all' }), title);

		for (let idle = 0; !progress.isOver && idle < LOOKS;) {
			await new Promise(done => window.setTimeout(done, LOOK_MS));

			const now = await transfers.status(id);

			if (now.error)
				throw new Error(now.error);

			idle = now.is_read ? 0 : idle + 1;

			if (!now.is_read && now.state === 'done')
				return transfers.end(id).finally(() => progress.isOver || progress.clear());

			progress.tell(now.offset, now.total);
		}

		if (progress.isOver)
			return;

		transfers.end(id);

		if (!window.showSaveFilePicker && Date.now() - began > CUT_MS) // a file has to be chosen by a click
			return this.inParts(spec, progress);

		D.fill(progress.node, D.el('p', { 'class': 'alert-message warning' }, _('%s did not come whole: the router\'s web server ends a request after 60 s, or the download was cancelled.').format(title), ' ',
			D.always('apply', _('Download in parts'), () => this.inParts(spec, progress))));
	},

	async inParts(spec, progress) {
		progress.begin(spec.name ?? '', null);

		const done = await transfers.download(spec, progress.tell, sinkFor, () => progress.isOver).finally(progress.clear);

		if (done.blob)
			offer(done);
	}
});
