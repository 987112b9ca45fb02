// SPDX-License-Identifier: GPL-2.0-or-later
// The tab's one stream object, on this page's LuCI session. What it does, `stream` knows.
'use strict';
'require baseclass';
'require rpc';
'require ucidockd.calls as calls';
'require ucidockd.stream as stream';

const { agent } = calls;

// goes out even while the page goes away, which an ordinary call does not
function leave(id) {
	const params = [ rpc.getSessionID(), 'ucidockd', 'stream_close', { id } ];

	fetch(rpc.getBaseURL(), {
		method: 'POST', keepalive: true, credentials: 'same-origin', headers: { 'Content-Type': 'application/json' },
		body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params })
	}).catch(() => {});
}

function subscribe(object, signal) {
	return fetch('%s/subscribe/%s'.format(rpc.getBaseURL().replace(/\/$/, ''), object), {
		headers: { Authorization: 'Bearer %s'.format(rpc.getSessionID()) }, cache: 'no-store', signal
	});
}

// null where the agent says that there is no such object any more; other errors are the network's
async function resume(id) {
	try {
		return await agent.stream_resume(id);
	} catch (error) {
		if (/ubus code|the stream object has ended/.test(error.message))
			return null;

		throw error;
	}
}

const tab = stream.make({
	calls: {
		open: ({ id, kind, args } = {}) => agent.stream_open(id, kind, args),
		resume, ack: agent.stream_ack, read: agent.stream_read, close: agent.stream_close, leave
	},
	subscribe,
	page: document,
	timer: { set: (call, span) => window.setTimeout(call, span), clear: id => window.clearTimeout(id) }
});

window.addEventListener('pagehide', () => tab.drop());
window.addEventListener('pageshow', event => event.persisted && tab.run());

return baseclass.extend({
	follow: (kind, args, take, how) => tab.follow(kind, args, take, how),
	onConnection: listener => tab.onConnection(listener)
});
