// SPDX-License-Identifier: GPL-2.0-or-later
// SHA-256 (FIPS 180-4) of data that comes in pieces: the browser's own takes all at once, and none at all without https. Pure.
'use strict';
'require baseclass';

const BLOCK = 64;

function primes(count) {
	const found = [];

	for (let number = 2; found.length < count; number++)
		if (found.every(prime => number % prime))
			found.push(number);

	return found;
}

function fraction(value) {
	return Math.floor((value - Math.floor(value)) * 2 ** 32);
}

const ROUNDS = Int32Array.from(primes(64), prime => fraction(Math.cbrt(prime)));
const START = Int32Array.from(primes(8), prime => fraction(Math.sqrt(prime)));

const Sha256 = baseclass.extend({
	__init__() {
		this.state = START.slice();
		this.words = new Int32Array(64);
		this.rest = new Uint8Array(0);
		this.size = 0;
	},

	// `bytes`: a Uint8Array
	push(bytes) {
		const data = new Uint8Array(this.rest.length + bytes.length);

		data.set(this.rest);
		data.set(bytes, this.rest.length);
		this.size += bytes.length;

		const end = data.length - data.length % BLOCK;

		for (let at = 0; at < end; at += BLOCK)
			this.block(data, at);

		this.rest = data.slice(end);
	},

	// the hash in hexadecimal; nothing can be pushed after it
	end() {
		const bits = this.size * 8;
		const padding = new Uint8Array((this.rest.length < 56 ? 64 : 128) - this.rest.length);
		const view = new DataView(padding.buffer);

		padding[0] = 0x80;
		view.setUint32(padding.length - 8, Math.floor(bits / 2 ** 32));
		view.setUint32(padding.length - 4, bits >>> 0);
		this.push(padding);

		return Array.from(this.state, word => (word >>> 0).toString(16).padStart(8, '0')).join('');
	},

	schedule(data, at) {
		const w = this.words;

		for (let i = 0; i < 16; i++, at += 4)
			w[i] = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];

		for (let i = 16; i < 64; i++) {
			const x = w[i - 15], y = w[i - 2];
			const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
			const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;

			w[i] = w[i - 16] + s0 + w[i - 7] + s1 | 0;
		}
	},

	block(data, at) {
		this.schedule(data, at);

		const w = this.words, s = this.state;
		let [ a, b, c, d, e, f, g, h ] = s;

		for (let i = 0; i < 64; i++) {
			const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
			const t1 = h + s1 + (e & f ^ ~e & g) + ROUNDS[i] + w[i] | 0;
			const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
			const t2 = s0 + (a & b ^ a & c ^ b & c) | 0;

			h = g; g = f; f = e; e = d + t1 | 0; d = c; c = b; b = a; a = t1 + t2 | 0;
		}

		[ a, b, c, d, e, f, g, h ].forEach((value, index) => s[index] = s[index] + value | 0);
	}
});

return baseclass.extend({ make: () => new Sha256() });
