// SPDX-License-Identifier: GPL-2.0-or-later
// What forms are made of: every option of the schemas, widgets, checks; UCI text; what buttons do; files in parts.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { load } from './load.mjs';

const options = load('ucidockd.options');
const schemas = load('ucidockd.schemas');
const ucitext = load('ucidockd.ucitext');
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

test('a container without a default of ours can be told yes, no, or nothing', () => {
	const { properties } = schemaOf('container');
	assert.deepEqual([ 'privileged', 'enabled', 'pull', 'port', 'image' ].map(name => schemas.kindOf(properties[name])), [ 'choice', 'flag', 'choice', 'list', 'text' ]);
	assert.deepEqual(schemas.choicesOf(properties.privileged).map(([ value ]) => value), [ '1', '0' ]);
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

test('UCI text quotes what is odd and leaves out what LuCI keeps for itself', () => {
	const text = ucitext.format([
		{ '.name': 'web', '.type': 'container', '.anonymous': false, '.index': 3, env: [ "A=it's", 'B=two\nlines' ], image: 'x', gone: null },
		{ '.name': 'cfg01', '.type': 'auth', '.anonymous': true, username: 'me' }
	]);
	assert.equal(text, "config container 'web'\n\tlist env 'A=it'\\''s'\n\tlist env 'B=two\nlines'\n\toption image 'x'\n\nconfig auth\n\toption username 'me'\n");
});

// LuCI's uci, as far as sections that are new go
function uciWith(sections) {
	return {
		sections: (_config, type) => Object.values(sections).filter(one => one['.type'] === type),
		get: (_config, id) => sections[id] ?? null,
		add: (_config, type, id) => sections[id] = { '.type': type, '.name': id, '.create': id },
		set: (_config, id, option, value) => sections[id][option] = value,
		remove: (_config, id) => delete sections[id]
	};
}

for (const [ name, sections, typed, kept ] of [
	[ 'one that nobody touched is not saved', {}, {}, [] ],
	[ 'one with something in it is', {}, { verify: '0' }, [ 'tls' ] ],
	[ 'one whose seed was taken back is', {}, { enabled: undefined }, [ 'tls' ] ],
	[ 'one that was there stays', { tls: { '.type': 'tls', '.name': 'tls', enabled: '0' } }, {}, [ 'tls' ] ],
	[ 'one of another name is the one', { mine: { '.type': 'tls', '.name': 'mine' } }, {}, [ 'mine' ] ]
])
	test(`sections that a form provides: ${name}`, () => {
		const made = load('ucidockd.provided', { uci: uciWith(sections) }).make('dockerd');
		const id = made.want('tls', 'tls', { enabled: '0' });
		Object.assign(sections[id], typed);
		made.drop();
		assert.deepEqual(Object.keys(sections), kept);
		made.add();
		assert.ok(id in sections);
	});

test('a copy of a section takes over all but what no two can have, under a name that is free', () => {
	const clone = load('ucidockd.clone', { 'uci': {}, 'ucidockd.dom': {} });
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
	assert.throws(() => resources.bodyOf({ ...before, memory: '' }, before), /memory: the engine takes no limit away/);
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
