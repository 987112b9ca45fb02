// SPDX-License-Identifier: GPL-2.0-or-later
// From LuCI's dispatcher to the agent's control socket, for files: bodies go through as they come, in both directions, and
// nothing is kept. uhttpd ends a script after 60 s, hence /transfer, which moves a file in parts (docs/luci.md).
//
// LuCI calls these functions with its own scope: `http` and `ctx` are of this request.
//
// The control socket is root's and LuCI lets readers call function routes, so the session's right is asked for here, for
// every action; a change also needs the session's token, which no other web page knows.

'use strict';

import { connect } from 'ubus';
import * as socket from 'socket';

const AGENT = '/var/run/ucidockd/agent.sock';
const PIECE = 32768;
const HEAD_LIMIT = 65536;
const TIMEOUT_MS = 55000;
const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.\/:@-]{0,254}$/;
const PASSED = [ 'content-type', 'content-length', 'content-disposition', 'transfer-encoding', 'x-transfer-offset', 'x-docker-container-path-stat' ];
const PAIR = /^[A-Za-z0-9%._~!$'()*+,;:@\/?=-]+$/;
const OURS = [ 'token', 'X-Registry-Auth' ];
const CHANGES = { POST: true, PUT: true, DELETE: true };

// luci-app-dockerman's routes: the Engine API call that each stands for, and the right that it takes
const ENGINE = {
	archive_get: [ 'GET', '/containers/%s/archive', 'docker.container', 'get_archive', ID ],
	archive_put: [ 'PUT', '/containers/%s/archive', 'docker.container', 'put_archive', ID ],
	container_export: [ 'GET', '/containers/%s/export', 'docker.container', 'export', ID ],
	containers_prune: [ 'POST', '/containers/prune', 'docker.container', 'prune' ],
	images_build: [ 'POST', '/build', 'docker.image', 'build' ],
	build_prune: [ 'POST', '/build/prune', 'docker.image', 'build_prune' ],
	images_load: [ 'POST', '/images/load', 'docker.image', 'load' ],
	images_create: [ 'POST', '/images/create', 'docker.image', 'create' ],
	images_push: [ 'POST', '/images/%s/push', 'docker.image', 'push', NAME ],
	images_prune: [ 'POST', '/images/prune', 'docker.image', 'prune' ],
	networks_prune: [ 'POST', '/networks/prune', 'docker.network', 'prune' ],
	volumes_prune: [ 'POST', '/volumes/prune', 'docker.volume', 'prune' ],
	docker_events: [ 'GET', '/events', 'docker', 'events' ]
};

// what a new transfer does, by direction and target
const TRANSFERS = {
	'up load': [ 'docker.image', 'load' ],
	'up build': [ 'docker.image', 'build' ],
	'up archive': [ 'docker.container', 'put_archive' ],
	'up volume': [ 'docker.container', 'put_archive' ],
	'down save': [ 'docker.image', 'get' ],
	'down export': [ 'docker.container', 'export' ],
	'down archive': [ 'docker.container', 'get_archive' ],
	'down file': [ 'docker.container', 'get_archive' ],
	'down logs': [ 'docker.container', 'logs' ],
	'down volume': [ 'docker.container', 'get_archive' ],
	'down volume_file': [ 'docker.container', 'get_archive' ]
};

// what readers may download
const READABLE = 'logs';

function refuse(status, message) {
	http.status(status, message);
	http.header('Content-Type', 'application/json');
	http.write_json({ error: message });
	http.close();

	return false;
}

function is_allowed(object, method) {
	let answer = connect()?.call('session', 'access', {
		ubus_rpc_session: ctx.authsession, scope: 'ubus', object, function: method
	});

	return answer?.access === true;
}

function may(object, method) {
	return is_allowed(object, method) || refuse(403, `the session may not ${object} ${method}`);
}

function has_token() {
	let token = ctx.authtoken;

	return (length(token) && http.message.params.token === token) || refuse(403, 'the token of the session is missing');
}

// the query as the browser encoded it (a name may come more than once), without what is for us
function query() {
	let pairs = filter(split(http.getenv('QUERY_STRING') ?? '', '&'), pair =>
		match(pair, PAIR) && !(split(pair, '=')[0] in OURS));

	return length(pairs) ? `?${join('&', pairs)}` : '';
}

function send_all(sock, data) {
	while (length(data)) {
		let count = sock.send(data);

		if (!count)
			return false;

		data = substr(data, count);
	}

	return true;
}

function open_request(method, path, headers) {
	let sock = socket.connect(socket.sockaddr(AGENT), null, { family: socket.AF_UNIX, socktype: socket.SOCK_STREAM }, TIMEOUT_MS);

	if (!sock) {
		refuse(503, 'the agent does not answer');

		return null;
	}

	let lines = [ `${method} ${path} HTTP/1.1`, 'Host: localhost', 'Connection: close' ];

	for (let name, value in headers)
		push(lines, `${name}: ${value}`);

	send_all(sock, join('\r\n', lines) + '\r\n\r\n');

	return sock;
}

// [ status, headers, what came of the body with them ]
function read_head(sock) {
	let data = '', end;

	while ((end = index(data, '\r\n\r\n')) < 0) {
		let piece = sock.recv(PIECE);

		if (!length(piece) || length(data) > HEAD_LIMIT)
			return null;

		data += piece;
	}

	let lines = split(substr(data, 0, end), '\r\n');
	let status = match(shift(lines), /^HTTP\/1\.[01] ([0-9]{3}) ?(.*)$/);
	let headers = {};

	for (let line in lines) {
		let parts = match(line, /^([^:]+):[ \t]*(.*)$/);

		if (parts)
			headers[lc(parts[1])] = parts[2];
	}

	return status ? [ +status[1], headers, substr(data, end + 4) ] : null;
}

// the agent's framing goes through as it is, so that the browser sees when an answer is not complete
function forward(sock) {
	let head = read_head(sock);

	if (!head)
		return refuse(502, 'the agent gave no answer');

	http.status(head[0], '');

	for (let name in PASSED)
		if (name in head[1])
			http.header(name, head[1][name]);

	http.write(head[2]);

	for (let piece = sock.recv(PIECE); length(piece); piece = sock.recv(PIECE))
		http.write(piece);

	http.close();
	sock.close();

	return true;
}

// A request with the body that the browser sends: raw, or the file of a form. Pieces go on as they come. One that was cut
// gets no last chunk: else the agent would take half a file for the whole.
function send_body(method, path, headers) {
	let sock, failed = false, whole = false, received = 0;

	let begin = () => {
		if (!has_token() || !(sock = open_request(method, path, { ...headers, 'Transfer-Encoding': 'chunked' })))
			failed = true;

		return !failed;
	};

	http.setfilehandler((meta, chunk, eof) => {
		if (failed || (!meta.file && meta.name != 'raw') || (!sock && !begin()))
			return;

		if (length(chunk))
			failed = !send_all(sock, sprintf('%x\r\n', length(chunk))) || !send_all(sock, chunk) || !send_all(sock, '\r\n');

		received += length(chunk);
		whole = eof && (meta.file || received == +http.getenv('CONTENT_LENGTH'));
	});
	http.content();

	if (!sock && !failed && !begin())
		return false;

	if (!sock)
		return false;

	if (received && !whole) {
		sock.close();

		return refuse(400, 'the upload ended before its end');
	}

	send_all(sock, '0\r\n\r\n');

	return forward(sock);
}

// what the browser sends as JSON, small
function send_json(method, path, text, headers) {
	let sock = open_request(method, path, { ...headers, 'Content-Type': 'application/json', 'Content-Length': length(text) });

	return sock && send_all(sock, text) && forward(sock);
}

function create() {
	let text = http.content() ?? '', spec;

	try {
		spec = json(text);
	}
	catch (e) {
		return refuse(400, 'expected JSON');
	}

	let right = TRANSFERS[`${spec?.direction} ${spec?.target}`];

	if (!right)
		return refuse(400, 'direction and target: expected up load|build|archive|volume, or down save|export|archive|file|logs|volume|volume_file');

	return may(right[0], right[1]) && (spec.target == READABLE || may('ucidockd', 'job_start')) && send_json('POST', '/v1/transfers', text, {});
}

function transfer(...words) {
	let method = http.getenv('REQUEST_METHOD');
	let path = '/v1/transfers/' + join('/', words);

	if (length(words) > 2 || length(filter(words, word => !match(word, /^[0-9a-z]{1,32}$/))))
		return refuse(400, 'expected transfer/<id>[/<offset>]');

	if (!(method in CHANGES) && method != 'GET')
		return refuse(405, 'expected GET, POST, PUT or DELETE');

	if (method in CHANGES && !has_token())
		return false;

	if (!length(words))
		return method == 'POST' ? create() : refuse(405, 'expected POST');

	// who may begin no other transfer has those of logs only: the agent knows which they are
	let limit = is_allowed('ucidockd', 'job_start') ? {} : { 'X-Transfer-Target': READABLE };

	if (length(limit) && !may('docker.container', 'logs'))
		return false;

	if (method == 'PUT')
		return send_body('PUT', path, limit);

	if (method == 'POST')
		return send_json('POST', path, http.content() ?? '', limit);

	let sock = open_request(method, path + query(), limit);

	return sock && forward(sock);
}

function engine(name, words) {
	let route = ENGINE[name], method = route[0], path = route[1], form = route[4];
	let id = join('/', words);

	if (form && (!match(id, form) || index(id, '..') >= 0))
		return refuse(400, 'expected an id or a name');

	if (!may(route[2], route[3]))
		return false;

	let target = `/docker${form ? sprintf(path, id) : path}`;

	// the old pages post it, and it has to end
	if (name == 'docker_events' && !http.message.params.until)
		return refuse(400, 'until: expected a time');

	if (method == 'GET') {
		let sock = open_request('GET', target + query(), {});

		return sock && forward(sock);
	}

	let login = http.message.params['X-Registry-Auth'];

	return send_body(method, target + query(), login && match(login, /^[A-Za-z0-9+\/=_-]+$/) ? { 'X-Registry-Auth': login } : {});
}

let routes = {
	transfer,
	images_get: (...words) => {
		if (!may('docker.image', 'get'))
			return false;

		let name = join('/', words);

		if (length(name) && (!match(name, NAME) || index(name, '..') >= 0))
			return refuse(400, 'expected the name of an image');

		let sock = open_request('GET', (length(name) ? `/docker/images/${name}/get` : '/docker/images/get') + query(), {});

		return sock && forward(sock);
	}
};

// a closure of its own each: those of a loop share the loop's variable
function route_of(name) {
	return (...words) => engine(name, words);
}

for (let name in keys(ENGINE))
	routes[name] = route_of(name);

return routes;
