// SPDX-License-Identifier: GPL-2.0-or-later
// Files of any size in parts, through LuCI's own port: uhttpd ends every request after 60 s, so a part takes less than 20 s.
// A part that broke is sent or asked for again; the SHA-256 of the whole is compared at the end.
//
// `make(send)`: `send(method, path, {body, query})` -> Response, path below /v1/transfers.
'use strict';
'require baseclass';
'require ucidockd.sha256 as sha256';

const FIRST = 1024 * 1024, LARGEST = 4 * 1024 * 1024; // the agent can give the last 4 MiB again
const SLOW_MS = 5000, TRIES = 5, WORK_MS = 1000;

async function answer(response) {
	const body = await response.json().catch(() => ({}));

	if (!response.ok) {
		const error = new Error(body.error?.message ?? body.error ?? _('the router answered with status %d').format(response.status));

		error.final = response.status >= 400 && response.status < 500 && response.status !== 409;
		throw error;
	}

	return body.transfer;
}

const Transfers = baseclass.extend({
	__init__(send, wait) {
		this.send = send;
		this.wait = wait ?? (span => new Promise(done => window.setTimeout(done, span)));
	},

	async create(direction, spec) {
		return answer(await this.send('POST', '', { body: JSON.stringify({ direction, ...spec }) }));
	},

	async status(id) {
		return answer(await this.send('GET', '/' + id));
	},

	// again after a pause, unless the agent said that it is no use
	async persist(action) {
		for (let left = TRIES; ; left--) {
			try {
				return await action();
			} catch (error) {
				if (error.final || left <= 1)
					throw error;

				await this.wait(1000 * (TRIES - left + 1));
			}
		}
	},

	// ends and forgets it
	end(id) {
		return this.send('DELETE', '/' + id).catch(() => {});
	},

	// `file`: a File or Blob. `tell(done, size)` hears of the progress, `isOver()` says whether it was cancelled. Gives the
	// transfer at its end.
	async upload(spec, file, tell, isOver) {
		const { id } = await this.create('up', { ...spec, size: file.size });
		const hash = sha256.make();
		let offset = 0, size = FIRST;

		try {
			while (offset < file.size) {
				const bytes = new Uint8Array(await file.slice(offset, offset + size).arrayBuffer());
				const began = Date.now();

				if (isOver?.())
					throw new Error(_('The upload was cancelled.'));

				await this.persist(async () => answer(await this.send('PUT', '/%s/%d'.format(id, offset), { body: bytes })));
				hash.push(bytes);
				offset += bytes.length;
				size = Math.min(LARGEST, Date.now() - began < SLOW_MS ? size * 2 : size);
				tell(offset, file.size);
			}

			const sum = hash.end();

			return await this.worked(await this.persist(async () => answer(await this.send('POST', '/' + id, { body: JSON.stringify({ sha256: sum, size: file.size }) }))));
		} catch (error) {
			this.end(id);
			throw error;
		}
	},

	// The agent answers the end of an upload after 15 s, though it may still unpack, or stop containers. What feeds a job is told
	// by the job.
	async worked(transfer) {
		while (transfer.state === 'ending' && !transfer.job) {
			await this.wait(WORK_MS);
			transfer = await this.persist(() => this.status(transfer.id));
		}

		if (transfer.error)
			throw Object.assign(new Error(transfer.error), { final: true });

		return transfer;
	},

	async part(id, offset, length) {
		const response = await this.send('GET', '/%s/%d'.format(id, offset), { query: { length } });

		if (!response.ok)
			return answer(response);

		return new Uint8Array(await response.arrayBuffer());
	},

	// Gives {title, blob}. `sinkFor(title)` may give what takes the parts, {write, close, abort}: then the blob is what its `close`
	// gives. Raises when what came is not what the engine sent, and when `isOver()` says that it was cancelled.
	async download(spec, tell, sinkFor, isOver) {
		const { id, title } = await this.create('down', spec);
		const hash = sha256.make(), blobs = [];
		let offset = 0, last, sink = null;

		try {
			sink = await sinkFor?.(title) ?? null;

			do {
				if (isOver?.())
					throw new Error(_('The download was cancelled.'));

				last = await this.persist(() => this.part(id, offset, LARGEST));
				hash.push(last);
				await (sink ? sink.write(last) : blobs.push(new Blob([ last ])));
				offset += last.length;
				tell(offset, 0);
			} while (last.length === LARGEST);

			const { sha256: wanted, error, size } = await this.status(id);

			if (error || size !== offset || wanted !== hash.end())
				throw new Error(error ?? _('the file did not come whole'));

			return { title, blob: sink ? await sink.close() : new Blob(blobs, { type: 'application/octet-stream' }) };
		} catch (error) {
			await sink?.abort().catch(() => {});
			throw error;
		} finally {
			this.end(id);
		}
	}
});

return baseclass.extend({ make: (send, wait) => new Transfers(send, wait) });
