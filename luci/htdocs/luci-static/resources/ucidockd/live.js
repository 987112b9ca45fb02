// SPDX-License-Identifier: GPL-2.0-or-later
// The tab's live data, on this page's LuCI session. What it does, `stream` and `circle` know. Not by /ubus/subscribe:
// uhttpd never gives the connection of a subscription back (docs/uhttpd.md).
'use strict';
'require baseclass';
'require rpc';
'require ucidockd.calls as calls';
'require ucidockd.circle as circle';
'require ucidockd.stream as stream';

const { agent } = calls;

// goes out even while the page goes away, which an ordinary call does not; without `owner` the whole object ends
function leave(id, owner) {
	const params = [ rpc.getSessionID(), 'ucidockd', 'stream_close', owner ? { id, owner } : { id } ];

	fetch(rpc.getBaseURL(), {
		method: 'POST', keepalive: true, credentials: 'same-origin', headers: { 'Content-Type': 'application/json' },
		body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params })
	}).catch(() => {});
}

// `closed` where ubus says that there is no such object any more; other errors are the network's. What is not waited for goes
// together with what is opened.
async function read(id, after, wait) {
	try {
		return await (wait ? agent : calls.together().agent).stream_read(id, after, wait);
	} catch (error) {
		if (/ubus code/.test(error.message))
			return { packets: [], closed: _('the stream has ended') };

		throw error;
	}
}

// tabs of another session, such as another user's, are in another circle
function channel() {
	return window.BroadcastChannel ? new BroadcastChannel('ucidockd %s'.format(rpc.getSessionID())) : null;
}

const tab = stream.make({
	circle: circle.make,
	calls: {
		open: ({ id, kind, args, owner, tag } = {}) => agent.stream_open(id, kind, args, owner, tag),
		read, close: agent.stream_close, leave
	},
	id: Array.from(crypto.getRandomValues(new Uint8Array(8)), byte => byte.toString(16).padStart(2, '0')).join(''),
	channel,
	page: document,
	now: () => Date.now(),
	timer: { set: (call, span) => window.setTimeout(call, span), clear: id => window.clearTimeout(id) }
});

window.addEventListener('pagehide', () => tab.drop());
window.addEventListener('pageshow', event => event.persisted && tab.run());

return baseclass.extend({
	follow: (kind, args, take, how) => tab.follow(kind, args, take, how),
	onConnection: listener => tab.onConnection(listener)
});
