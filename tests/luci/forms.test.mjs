// SPDX-License-Identifier: GPL-2.0-or-later
// What forms are made of: every option of the schemas, widgets, checks, rows; what a change does; what buttons do; files in parts.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { load } from './load.mjs';

const options = load('ucidockd.options');
const schemas = load('ucidockd.schemas');
const rows = load('ucidockd.rows');
const effects = load('ucidockd.effects');
const settings = load('ucidockd.settings');
const sha256 = load('ucidockd.sha256');
const transfer = load('ucidockd.transfer');

const SCHEMAS = new URL('../../schemas/', import.meta.url);
const schemaOf = type => JSON.parse(readFileSync(new URL(`${type}.schema.json`, SCHEMAS), 'utf8'));
const TYPES = readdirSync(SCHEMAS).filter(name => name.endsWith('.schema.json')).map(name => name.split('.')[0]);

test('the schemas of containers, networks, volumes, logins and the agent are there', () => {
	assert.deepEqual([ 'container', 'network', 'volume', 'auth', 'agent' ].filter(type => !TYPES.includes(type)), []);
});

for (const type of TYPES) {
	const schema = schemaOf(type);

	test(`${type}: every option of the schema is on one tab, and no other`, () => {
		const shown = options.tabsOf(schema).flatMap(([ , names ]) => names);
		assert.deepEqual(shown.sort(), Object.keys(schema.properties).sort());
		assert.ok(options.tabsOf(schema).every(([ tab ]) => options.titleOf(tab)));
	});

	test(`${type}: the schema's own examples and defaults pass the form's checks`, () => {
		for (const [ name, property ] of Object.entries(schema.properties)) {
			const examples = [ ...property.examples ?? [], property.default ].flat().filter(value => value !== undefined && value !== '');
			for (const value of examples)
				assert.equal(schemas.check(type, name, property, value), '', `${name} ${value}`);
			assert.ok([ 'flag', 'choice', 'list', 'secret', 'text' ].includes(schemas.kindOf(property)));
		}
	});
}

test('each check that a schema names is one of the forms', () => {
	const known = { ...load('ucidockd.checks').byName, ...load('ucidockd.daemonchecks').byName };
	const named = TYPES.flatMap(type => Object.values(schemaOf(type).properties)).flatMap(property => [ property['x-check'] ?? [] ].flat().slice(0, 1));

	assert.ok(named.length > 80);
	assert.deepEqual(named.filter(name => typeof known[name] !== 'function'), []);
	assert.deepEqual(Object.keys(known).filter(name => !named.includes(name)), []);
});

test('a container without a default of ours can be told yes, no, or nothing', () => {
	const { properties } = schemaOf('container');
	assert.deepEqual([ 'privileged', 'enabled', 'pull', 'port', 'image' ].map(name => schemas.kindOf(properties[name])), [ 'choice', 'flag', 'choice', 'list', 'text' ]);
	assert.deepEqual(schemas.choicesOf('privileged', properties.privileged).map(([ value ]) => value), [ '1', '0' ]);
	assert.equal(schemas.kindOf(schemaOf('auth').properties.password), 'secret');
});

test('what is wrong is said with what is expected', () => {
	const { properties } = schemaOf('container');
	assert.match(schemas.check('container', 'restart', properties.restart, 'sometimes'), /^expected: no, always/);
	assert.match(schemas.check('container', 'port', properties.port, '80:99999'), /8080:80/);
	assert.match(schemas.check('container', 'pull', properties.pull, 'often'), /missing, always, never/);
});

for (const [ name, type, option, value, shown ] of [
	[ 'a yes in another word is a yes', 'container', 'enabled', 'yes', '1' ],
	[ 'a no in another word is a no', 'container', 'privileged', 'off', '0' ],
	[ 'a command written as an option keeps its quoted words', 'container', 'command', "sh -c 'echo \"a b\"; sleep 1' x\\ y", [ 'sh', '-c', 'echo "a b"; sleep 1', 'x y' ] ],
	[ 'a command with an open quote stays as it is', 'container', 'command', "sh -c 'echo", [ "sh -c 'echo" ] ],
	[ 'an environment entry with blanks is one entry', 'container', 'env', 'A=b c', [ 'A=b c' ] ],
	[ 'a list stays a list', 'container', 'command', [ 'a b' ], [ 'a b' ] ],
	[ 'an unset option stays unset', 'container', 'memory', null, null ]
])
	test(`forms: ${name}`, () => assert.deepEqual(schemas.fromUci(type, option, schemaOf(type).properties[option], value), shown));

for (const [ name, text, row ] of [
	[ 'port', '8080:80', { address: '', host: '8080', inner: '80', protocol: 'tcp' } ],
	[ 'port', '127.0.0.1:53:53/udp', { address: '127.0.0.1', host: '53', inner: '53', protocol: 'udp' } ],
	[ 'port', '[fd00::1]::80', { address: 'fd00::1', host: '', inner: '80', protocol: 'tcp' } ],
	[ 'port', '8000-8010:80/sctp', { address: '', host: '8000-8010', inner: '80', protocol: 'sctp' } ],
	[ 'port', '80/tcp', { address: '', host: '', inner: '80', protocol: 'tcp' } ],
	[ 'volume', 'data:/data:ro,nocopy', { source: 'data', target: '/data', ro: '1', more: 'nocopy' } ],
	[ 'volume', '/mnt/sda1:/srv:rw', { source: '/mnt/sda1', target: '/srv', ro: '0', more: 'rw' } ],
	[ 'volume', '/cache', { source: '', target: '/cache', ro: '0', more: '' } ],
	[ 'env', 'A=b=c d', { key: 'A', value: 'b=c d' } ],
	[ 'network', 'lan,alias=www,alias=web,ip=172.20.0.10,ip6=fd00::1', { network: 'lan', alias: 'www web', ip: '172.20.0.10', ip6: 'fd00::1' } ],
	[ 'device', 'usb:10c4:ea60:0001:/dev/zigbee:rw', { device: 'usb:10c4:ea60:0001', target: '/dev/zigbee', rights: 'rw' } ],
	[ 'device', 'nvidia.com/gpu=all', { device: 'nvidia.com/gpu=all', target: '', rights: '' } ],
	[ 'extra_host', 'nas:fd00::5', { key: 'nas', address: 'fd00::5' } ],
	[ 'ulimit', 'nofile=1024:2048', { key: 'nofile', soft: '1024', hard: '2048' } ]
])
	test(`rows: ${name} ${text}`, () => {
		const kind = rows.of('container', name);
		assert.deepEqual({ ...rows.parse(kind, text) }, row);
		assert.equal(rows.format(kind, row), text.replace(/\/tcp$/, ''));
		assert.equal(rows.wrong(kind, row), null);
	});

for (const [ name, text ] of [ [ 'env', 'FROM_FILE' ], [ 'env', 'A=two\nlines' ], [ 'volume', 'a:/b:z,ro' ], [ 'volume', 'a:/b:/c:ro' ], [ 'port', '80:80/TCP' ], [ 'port', 'http' ], [ 'network', 'lan,ip=1,alias=x' ], [ 'device', '/dev/a:rw' ] ])
	test(`rows: ${name} ${JSON.stringify(text)} stays text, or says what it said`, () => {
		const kind = rows.of('container', name), row = rows.parse(kind, text);
		assert.ok(row === null || rows.format(kind, row) === text);
	});

test('rows: what an entry said is never lost, whatever it is', () => {
	const values = JSON.parse(readFileSync(new URL('values.json', import.meta.url), 'utf8'));
	const texts = JSON.stringify(values).match(/"((?:[^"\\]|\\.)*)"/g).map(text => JSON.parse(text));
	const alphabet = ':/,=[].-%aA0189 \n\t"\'ro';
	for (let round = 0; round < 5000; round++)
		texts.push(Array.from({ length: round % 12 }, () => alphabet[Math.floor(Math.random() * alphabet.length)]).join(''));
	let count = 0;
	for (const type of [ 'container', 'network', 'volume', 'globals' ])
		for (const name of Object.keys(schemaOf(type).properties).filter(one => rows.of(type, one)))
			for (const text of texts) {
				const kind = rows.of(type, name), row = rows.parse(kind, text);
				count += row !== null;
				assert.ok(row === null || kind.format(row).replace(/\/tcp$/, '') === text.replace(/\/tcp$/, ''), `${name} ${text}`);
			}
	assert.ok(count > 1000);
});

test('rows: the examples of the schemas are rows', () => {
	for (const type of [ 'container', 'network', 'volume', 'globals' ])
		for (const [ name, property ] of Object.entries(schemaOf(type).properties).filter(([ one ]) => rows.of(type, one)))
			for (const text of property.examples.flat())
				assert.notEqual(rows.parse(rows.of(type, name), text), null, `${name} ${text}`);
});

for (const [ name, row, column ] of [
	[ 'a port of a container is needed', { address: '', host: '80', inner: '', protocol: 'tcp' }, 'inner' ],
	[ 'a port is a number', { address: '', host: 'http', inner: '80', protocol: 'tcp' }, 'host' ],
	[ 'an address is one', { address: 'router', host: '80', inner: '80', protocol: 'tcp' }, 'address' ]
])
	test(`rows: ${name}, and the row says where it is wrong`, () => assert.equal(rows.wrong(rows.of('container', 'port'), row)[0], column));

test('commands are shown as a shell has them', () => {
	assert.equal(rows.commandText([ 'nginx', '-g', "daemon off; it's" ]), "nginx -g 'daemon off; it'\\''s'");
	assert.equal(rows.commandText("sh -c 'a  b'"), "sh -c 'a  b'");
	assert.deepEqual([ rows.commandIsClosed("a 'b"), rows.commandIsClosed("a 'b'") ], [ false, true ]);
});

test('settings: of a dockerd whose settings are made elsewhere there is only the option that says so', () => {
	const found = Object.fromEntries(TYPES.map(type => [ type, schemaOf(type) ]));
	const shown = settings.subjects().flatMap(subject => settings.placesOf(subject, found, true)).flatMap(([ type, first, folded ]) => [ ...first, ...folded ].map(name => `${type}.${name}`));
	assert.deepEqual(shown.filter(name => /^(?:globals|tls|proxies)/.test(name)), [ 'globals.alt_config_file' ]);
	assert.ok(shown.includes('agent.docker_host') && shown.includes('firewall.blocked_interfaces'));
});

test('the values of a choice have words, and the value beside them', () => {
	const { properties } = schemaOf('container');
	assert.deepEqual(schemas.choicesOf('strategy', properties.strategy), [ [ 'swap', 'stop the old one first (swap)' ], [ 'handover', 'start the new one first (handover)' ], [ 'free-first', 'make room first (free-first)' ] ]);
	assert.equal(schemas.unsetWords('pull', properties.pull), 'default: if it is missing (missing)');
	// a value that a schema gets later is not without words beside others that have some
	for (const type of TYPES)
		for (const [ name, property ] of Object.entries(schemaOf(type).properties).filter(([ , one ]) => one.enum && !one.enum.includes('yes'))) {
			const worded = schemas.choicesOf(name, property).filter(([ value, words ]) => words !== value || [ 'off', 'daily', 'weekly', 'always', 'never', 'running', 'stopped' ].includes(value)).length;
			assert.ok([ 0, property.enum.length ].includes(worded), `${type}.${name}`);
		}
});

test('settings: every event of a notice has words', () => {
	const events = settings.events();
	assert.deepEqual(events.map(([ name ]) => name), schemaOf('notify').properties.event.items.enum);
	assert.ok(events.every(([ name, words ]) => words && words !== name));
});

test('settings: every option of dockerd and of the agent is on the page once', () => {
	const found = Object.fromEntries(TYPES.map(type => [ type, schemaOf(type) ]));
	for (const type of [ 'globals', 'tls', 'proxies', 'firewall', 'agent' ]) {
		const shown = settings.subjects().flatMap(subject => settings.placesOf(subject, found)).filter(([ one ]) => one === type).flatMap(([ , first, folded ]) => [ ...first, ...folded ]);
		assert.deepEqual(shown.sort(), Object.keys(found[type].properties).sort(), type);
	}
});

for (const [ found, stopsAll, text, heavy ] of [
	[ [ 'reload', 'restart' ], false, /containers keep running/, false ], [ [ 'restart' ], true, /all containers stop/, true ], [ [ 'restart', 'stop' ], false, /all containers stop/, true ], [ [ 'reload' ], true, /nothing stops/, false ]
])
	test(`a change of dockerd's options that ${found} says what becomes of containers`, () => {
		const [ line ] = effects.ofDaemon(found, stopsAll);
		assert.match(line.text, text);
		assert.equal(line.heavy, heavy);
	});

test('a change of nothing of dockerd\'s says nothing', () => assert.deepEqual(effects.ofDaemon([ 'nothing', undefined ], true), []));

test('a plan says what stops, for how long, and what stays', () => {
	const plan = { operations: [
		{ op: 'replace', key: 'container:web', level: 'replace', down_s: 2, follows: [ 'proxy' ] }, { op: 'start', key: 'container:web', level: 'run', down_s: null },
		{ op: 'update', key: 'container:db', level: 'in place', down_s: null }, { op: 'note', key: 'container:x', level: 'note', down_s: null }
	], pending: [ { key: 'container:cam', state: 'waiting', message: 'waits for /mnt/sda1' } ] };
	assert.deepEqual(effects.ofPlan(plan), [
		{ text: 'web is replaced: down for about 2 s, its volumes stay. This also affects: proxy.', heavy: true },
		{ text: 'db changes in place: no restart.', heavy: false }, { text: 'cam: waits for /mnt/sda1', heavy: false }
	]);
});

test('a copy of a section takes over all but what no two can have, under a name that is free', () => {
	const clone = load('ucidockd.clone');
	const copied = clone.valuesOf({ '.name': 'web', '.index': 1, image: 'a', name: 'my-web', ip: '10.0.0.2', mac_address: '02:00:00:00:00:01', env: [ 'A=1' ], gone: null });
	assert.deepEqual(copied, [ [ 'image', 'a' ], [ 'env', [ 'A=1' ] ] ]);
	assert.deepEqual([ clone.freeName('web', [ 'web' ]), clone.freeName('web', [ 'web2', 'web3' ]), clone.freeName('web2', [ 'web2' ]) ], [ 'web2', 'web4', 'web3' ]);
});

const actions = load('ucidockd.actions', { uci: {}, ui: {}, 'ucidockd.calls': {} });
const owner = (...conditions) => ({ section: 'web', conditions });

for (const [ name, action, one, decision ] of [
	[ 'stopping a managed one is written into UCI', 'stop', owner(), { by: 'uci', section: 'web', set: { state: 'stopped' } } ],
	[ 'removing a managed one removes its section', 'remove', owner(), { by: 'uci', section: 'web', set: null } ],
	[ 'starting one that is held lets the agent do it', 'start', owner({ type: 'Synced', status: false, reason: 'Held' }), { by: 'reconcile' } ],
	[ 'starting one that UCI stops changes UCI', 'start', owner({ type: 'Synced', status: true, reason: 'InSync' }), { by: 'uci', section: 'web', set: { state: '', enabled: '' } } ],
	[ 'a restart is the engine\'s', 'restart', owner(), { by: 'engine', method: 'restart', id: 'abc', query: undefined } ],
	[ 'what is nobody\'s goes to the engine', 'remove', undefined, { by: 'engine', method: 'remove', id: 'abc', query: { force: true } } ],
	[ 'a declared one gets its new name in UCI', 'rename', owner(), { by: 'uci', section: 'web', set: { name: 'shop' } } ],
	[ 'what is nobody\'s gets its new name on the engine', 'rename', undefined, { by: 'engine', method: 'rename', id: 'abc', query: { name: 'shop' } } ]
])
	test(`buttons: ${name}`, () => assert.deepEqual(actions.decide(action, { Id: 'abc' }, one, { name: 'shop' }), decision));

test('a container is told with what it has, and its ports as they are published', () => {
	const { factsOf } = load('ucidockd.containerinfo', { 'ucidockd.dom': { el: (_name, _attributes, ...content) => content.join('') } });
	const facts = Object.fromEntries(factsOf({
		Id: 'abc', Config: { Image: 'x', Cmd: [ 'a' ], Labels: { l: '<b>' } }, State: { Status: 'running', StartedAt: '0001-01-01T00:00:00Z' },
		HostConfig: { Dns: [], CapAdd: [ 'NET_ADMIN' ], RestartPolicy: { Name: '' } },
		NetworkSettings: { Ports: { '80/tcp': [ { HostIp: '::', HostPort: '8080' } ], '53/udp': null } }
	}).map(([ name, value ]) => [ name, [ value ].flat().filter(Boolean).join('; ') ]));
	assert.deepEqual([ facts.Ports, facts['Capabilities to add'], facts.Labels, facts['Restart policy'], facts.Started ], [ '[::]:8080 → 80/tcp; 53/udp', 'NET_ADMIN', 'l=<b>', 'no restart', '-' ]);
	assert.equal('DNS servers' in facts || 'Mounts' in facts || 'Health' in facts, false);
});

const resources = load('ucidockd.resources', { 'ucidockd.calls': {}, 'ucidockd.dom': {} });
const limited = { HostConfig: { Memory: 67108864, MemorySwap: -1, MemoryReservation: 0, NanoCpus: 1500000000, CpuShares: 0, CpusetCpus: '0-1', PidsLimit: null, BlkioWeight: 0, RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 } } };

test('a variable whose name says that it is secret is shown on request', () => {
	const { factsOf } = load('ucidockd.containerinfo', { 'ucidockd.dom': { el: (name, _attributes, ...content) => '<%s>%s'.format(name, content.flat().join('')) } });
	const env = Object.fromEntries(factsOf({ Config: { Env: [ 'TZ=UTC', 'DB_PASSWORD=hunter=2', 'API_TOKEN=', 'MY_KEY=***' ] }, State: {}, HostConfig: {} }).filter(([ name ]) => name === 'Environment'));

	assert.deepEqual(env.Environment, [ '<div>TZ=UTC', '<div>DB_PASSWORD= <button>Show', '<div>API_TOKEN=', '<div>MY_KEY=***' ]);
});

test('resources: limits of a container read as UCI has them', () => {
	assert.deepEqual(resources.valuesOf(limited), {
		memory: '64m', memory_swap: '-1', memory_reservation: '', cpus: '1.5', cpu_shares: '', cpuset: '0-1', pids_limit: '', blkio_weight: '', restart: 'on-failure:3'
	});
});

for (const [ name, values, body ] of [
	[ 'what stays the same is not sent', {}, {} ],
	[ 'sizes, CPUs and policies are sent as the engine wants them', { memory: '1.5g', memory_swap: '2g', cpus: '0.3', pids_limit: '100', restart: 'always' },
		{ Memory: 1610612736, MemorySwap: 2147483648, NanoCpus: 300000000, PidsLimit: 100, RestartPolicy: { Name: 'always', MaximumRetryCount: 0 } } ],
	[ 'a policy keeps its count', { restart: 'on-failure:5' }, { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 5 } } ]
])
	test(`resources: ${name}`, () => {
		const before = resources.valuesOf(limited);
		assert.deepEqual(resources.bodyOf({ ...before, ...values }, before), body);
	});

test('resources: a limit that is taken away is refused, since the engine would keep it without a word', () => {
	const before = resources.valuesOf(limited);
	assert.throws(() => resources.bodyOf({ ...before, memory: '' }, before), /memory: Docker cannot remove a limit/);
});

test('sha256: any split gives what node gives', () => {
	for (const size of [ 0, 1, 55, 56, 63, 64, 65, 119, 120, 1000 ]) {
		const data = randomBytes(size), wanted = createHash('sha256').update(data).digest('hex');
		for (const step of [ 1, 7, 64, 1000 ]) {
			const hash = sha256.make();
			for (let at = 0; at < size; at += step)
				hash.push(data.subarray(at, at + step));
			assert.equal(hash.end(), wanted);
		}
	}
});

// an agent that keeps what comes, and breaks when `faults` says so
function store({ file = Buffer.alloc(0), faults = [], lie = '' } = {}) {
	const parts = [];
	const json = (body, status = 200) => new Response(JSON.stringify(body), { status });
	const seen = [];
	const send = async (method, path, { body, query } = {}) => {
		const fault = faults.shift();
		seen.push(`${method} ${path}`);
		if (fault === 'cut')
			throw new TypeError('network');
		if (fault)
			return json({ error: { message: 'refused' } }, fault);
		if (method === 'PUT')
			parts.push(Buffer.from(body));
		if (method === 'GET' && query)
			return new Response(file.subarray(+path.split('/')[2], +path.split('/')[2] + query.length));
		return json({ transfer: { id: 't', title: 'a.tar', size: file.length, error: null, sha256: lie || createHash('sha256').update(file).digest('hex'), ...(body && method === 'POST' ? JSON.parse(body) : {}) } });
	};
	return { send, seen, parts, transfers: transfer.make(send, async () => {}) };
}

test('files: an upload goes in growing parts, again where one broke, with its hash at the end', async () => {
	const data = randomBytes(6 * 1024 * 1024 + 5), shown = [];
	const { transfers, parts, seen } = store({ faults: [ undefined, undefined, 'cut', 502 ] });
	const end = await transfers.upload({ target: 'load' }, new Blob([ data ]), done => shown.push(done));
	assert.equal(Buffer.concat(parts).compare(data), 0);
	assert.equal(end.sha256, createHash('sha256').update(data).digest('hex'));
	assert.deepEqual(seen.slice(1, 5), [ 'PUT /t/0', 'PUT /t/1048576', 'PUT /t/1048576', 'PUT /t/1048576' ]);
	assert.deepEqual(shown, [ 1048576, 3145728, data.length ]);
});

test('files: an upload is over when the agent is done with it, and fails when it is not', async () => {
	const states = [ { state: 'ending' }, { state: 'ending' }, { state: 'done', members: 3 } ];
	const send = async (method, path) => new Response(JSON.stringify({ transfer: { id: 't', job: null, ...path === '' ? {} : method === 'PUT' ? {} : states.shift() } }));
	const transfers = transfer.make(send, async () => {});
	assert.equal((await transfers.upload({ target: 'volume' }, new Blob([ 'x' ]), () => {})).members, 3);
	states.push({ state: 'ending' }, { state: 'failed', error: 'the disk is full' });
	await assert.rejects(transfers.upload({ target: 'volume' }, new Blob([ 'x' ]), () => {}), /the disk is full/);
	states.push({ state: 'ending', job: 'j' });
	assert.equal((await transfers.upload({ target: 'load' }, new Blob([ 'x' ]), () => {})).job, 'j');
});

test('files: what the agent refuses for good is not tried again', async () => {
	const { transfers, seen } = store({ faults: [ undefined, 415 ] });
	await assert.rejects(transfers.upload({ target: 'load' }, new Blob([ 'x' ]), () => {}), /refused/);
	assert.deepEqual(seen, [ 'POST ', 'PUT /t/0', 'DELETE /t' ]);
});

for (const size of [ 0, 5, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1 ])
	test(`files: a download of ${size} bytes comes whole`, async () => {
		const file = randomBytes(size);
		const { transfers } = store({ file, faults: [ undefined, 'cut' ] });
		const { blob, title } = await transfers.download({ target: 'save' }, () => {});
		assert.equal(Buffer.from(await blob.arrayBuffer()).compare(file), 0);
		assert.equal(title, 'a.tar');
	});

test('files: a download with another hash is not offered', async () => {
	const { transfers } = store({ file: Buffer.from('abc'), lie: '0'.repeat(64) });
	await assert.rejects(transfers.download({ target: 'save' }, () => {}), /did not come whole/);
});
