// SPDX-License-Identifier: GPL-2.0-or-later
// Every call that the pages make, one declaration a method, and what their answers mean: an error in an answer is thrown.
'use strict';
'require baseclass';
'require rpc';

const AGENT = {
	status: [ 'after' ], plan: [], reach: [], preview: [ 'sections', 'staged' ], reconcile: [], diff: [ 'name' ], load: [ 'name', 'hours' ], history: [ 'name' ], revert: [ 'name', 'version', 'commit' ], updates_check: [ 'names' ], update: [ 'names' ], rollback: [ 'name', 'with_data' ], describe: [ 'name' ], backup_list: [ 'name' ], backup_run: [ 'names' ], backup_restore: [ 'name', 'volume', 'file', 'into' ], adopt: [ 'container', 'section', 'commit' ], import: { run: '', compose: '', commit: false },
	notify_test: [ 'name' ], prune: [ 'images', 'older', 'build_cache', 'dry_run' ], dockerd_start: [], dockerd_stop: [], dockerd_restart: [], move_data_check: [ 'target' ], move_data: [ 'target' ], tls_client: [ 'name' ], volume_list: [ 'name', 'path' ],
	job_start: { kind: '', image: '', source: '', remote: '', tags: null, dockerfile: '', what: '', all: false }, job_list: [], job_status: [ 'id' ], job_cancel: [ 'id' ],
	stream_open: [ 'id', 'kind', 'args', 'owner', 'tag' ], stream_read: [ 'id', 'after', 'wait' ],
	stream_close: [ 'id', 'stream' ], stream_input: [ 'id', 'stream', 'data' ], stream_resize: [ 'id', 'stream', 'rows', 'columns' ]
};

const DOCKER = {
	'docker': { version: [], info: [], df: [] },
	'docker.container': {
		list: [ 'query' ], inspect: [ 'id' ], top: [ 'id', 'query' ], changes: [ 'id' ], start: [ 'id' ], stop: [ 'id' ],
		restart: [ 'id' ], kill: [ 'id' ], pause: [ 'id' ], unpause: [ 'id' ], remove: [ 'id', 'query' ], rename: [ 'id', 'query' ], update: [ 'id', 'body' ]
	},
	'docker.image': { list: [], inspect: [ 'id' ], history: [ 'id' ], tag: [ 'id', 'query' ], remove: [ 'id', 'query' ] },
	'docker.network': { list: [], inspect: [ 'id' ], create: [ 'body' ], remove: [ 'id' ], connect: [ 'id', 'body' ], disconnect: [ 'id', 'body' ] },
	'docker.volume': { list: [], inspect: [ 'id' ], create: [ 'opts' ], remove: [ 'id', 'query' ] }
};

// arguments that are undefined are not sent; a slow call keeps no other one waiting (nobatch)
function declare(object, method, params, batch) {
	return rpc.declare({ object, method, params, nobatch: !batch, reject: true });
}

async function answerOf(call, values) {
	const answer = await call(...values);

	if (answer?.error)
		throw new Error(answer.error.message ?? String(answer.error));

	return answer || {};
}

async function bodyOf(call, values) {
	const { code, body } = await call(...values);

	if (code >= 300 && code !== 304)
		throw Object.assign(new Error(body?.message ?? _('the engine answered with status %d').format(code)), { status: code });

	return body;
}

// what is known of a file is in a header, and there is no body
async function statOf(call, values) {
	const { code, headers } = await call(...values);

	if (code !== 200)
		throw new Error(code === 404 ? _('there is no such file') : _('the engine answered with status %d').format(code));

	return headers['x-docker-container-path-stat'] ?? '';
}

// `batch`: quick ones, which go out together
function table(object, methods, unwrap, batch) {
	const made = {};

	for (const [ method, params ] of Object.entries(methods)) {
		const call = declare(object, method, params, batch);

		made[method] = (...values) => unwrap(call, values);
	}

	return made;
}

const agent = table('ucidockd', AGENT, answerOf), pageOf = agent.status;

// the status comes in pages, as no answer on ubus may pass 1 MiB
function whole(first) {
	return async () => {
		const status = await first();

		for (let page = status; page.next !== undefined;) {
			page = await pageOf(page.next);
			status.resources.push(...page.resources);
		}

		return status;
	};
}

agent.status = whole(pageOf);

// Streams of a page that is shown are opened together by one request. LuCI sends such ones before it draws next, which a hidden
// page never does.
const openedTogether = table('ucidockd', { stream_open: AGENT.stream_open }, answerOf, true).stream_open, openedAlone = agent.stream_open;

agent.stream_open = (...values) => (document.hidden ? openedAlone : openedTogether)(...values);

const batched = {
	agent: { status: whole(table('ucidockd', { status: AGENT.status }, answerOf, true).status), plan: table('ucidockd', { plan: AGENT.plan }, answerOf, true).plan, ...table('ucidockd', { reach: [], job_list: [], backup_list: [], load: AGENT.load, diff: AGENT.diff, history: AGENT.history, describe: AGENT.describe, stream_read: AGENT.stream_read }, answerOf, true) },
	docker: table('docker', { info: [] }, bodyOf, true),
	...Object.fromEntries([ 'container', 'image', 'network', 'volume' ].map(one => {
		const { list, inspect, top } = DOCKER['docker.' + one];

		return [ one, table('docker.' + one, { list, inspect, ...top && { top } }, bodyOf, true) ];
	}))
};

return baseclass.extend({
	agent,

	// whether the agent has a method: an older one may lack it
	async can(method) {
		return method in ((await L.resolveDefault(rpc.list('ucidockd'), {})).ucidockd ?? {});
	},

	// what a page asks for as it opens, in one request where it is shown (a hidden one would never send it)
	together() {
		return document.hidden ? this : batched;
	},

	docker: table('docker', DOCKER['docker'], bodyOf),
	container: table('docker.container', DOCKER['docker.container'], bodyOf),
	mounts: table('luci', { getMountPoints: [] }, answerOf, true),
	system: table('system', { info: [] }, answerOf, true),
	router: table('file', { list: [ 'path' ] }, answerOf, true),
	files: table('docker.container', { info_archive: [ 'id', 'query' ] }, statOf),
	ttyd: table('docker.container', { ttyd_start: [ 'id', 'cmd', 'uid' ] }, answerOf),
	image: table('docker.image', DOCKER['docker.image'], bodyOf),
	network: table('docker.network', DOCKER['docker.network'], bodyOf),
	volume: table('docker.volume', DOCKER['docker.volume'], bodyOf)
});
