// Writes xterm.js, its add-on that fits it into the page, and its style sheet (`CSS`) as one module, in a form that survives jsmin, which LuCI's build runs over it: jsmin
// makes blanks of control characters, in strings too, and takes a template within a template for code.
import { readFileSync } from 'node:fs';

import { parse } from 'espree';

const read = path => readFileSync(`${process.argv[2]}/${path}`, 'utf8').replace(/^\/\/# sourceMappingURL.*\n?/gm, '').trim();
const fit = read('addon-fit/lib/addon-fit.mjs').replace(/export\{(\w+) as FitAddon\};$/, 'return $1;');
const source = `${read('xterm/lib/xterm.mjs')}
export const FitAddon=(()=>{
${fit}
})();
export const CSS=${JSON.stringify(read('xterm/css/xterm.css'))};
`;
const edits = [];

function escaped(text, characters) {
	return text.replace(/\\?[\s\S]/g, one => characters.test(one.at(-1)) && !(one.length > 1 && one.at(-1) == '\n')
		? `\\x${one.charCodeAt(one.length - 1).toString(16).padStart(2, '0')}` : one);
}

function visit(node, depth) {
	if (Array.isArray(node))
		return node.forEach(each => visit(each, depth));
	if (!node?.type)
		return;
	const characters = depth > 1 ? /[\0-\x20/'"]/ : /[\0-\x09\x0b-\x1f]/;
	const text = node.type == 'TemplateElement' ? node.value.raw : node.type == 'Literal' && typeof node.value == 'string' ? node.raw.slice(1, -1) : '';
	if (characters.test(text)) {
		const from = source.indexOf(text, node.start);
		edits.push([ from, from + text.length, escaped(text, characters) ]);
	}
	for (const value of Object.values(node))
		if (value && typeof value == 'object')
			visit(value, depth + (node.type == 'TemplateLiteral' ? 1 : 0));
}

visit(parse(source, { ecmaVersion: 'latest', sourceType: 'module' }), 0);
let result = source;
for (const [ from, to, text ] of edits.sort((a, b) => b[0] - a[0]))
	result = result.slice(0, from) + text + result.slice(to);
process.stdout.write(result);
