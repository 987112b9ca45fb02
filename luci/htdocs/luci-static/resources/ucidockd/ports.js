// SPDX-License-Identifier: GPL-2.0-or-later
// A published port as a link, with who can reach it as far as the router's firewall says.
'use strict';
'require baseclass';
'require ucidockd.containerlist as rows';
'require ucidockd.dom as D';

const SECURE = [ 443, 8443, 9443 ]; // what containers speak TLS on

function hostOf(ip) {
	return rows.isAnywhere(ip) ? location.hostname : ip.includes(':') ? '[%s]'.format(ip) : ip;
}

function isLocal(ip) {
	return (/^127\.|^::1$/).test(ip ?? '');
}

function whoReaches({ ip, zones }) {
	if (isLocal(ip))
		return _('this router only');

	return zones === undefined ? '' : zones.length ? zones.join(', ') : _('blocked by the firewall');
}

return baseclass.extend({
	// the link to a container's web page, by the router's name as the browser has it; '' without one, or without its port
	webui({ owner, ports }) {
		const href = (owner?.webui ?? '').replace(/\[host\]/g, location.hostname)
			.replace(/\[port:(\d+)\]/g, (place, inner) => ports.find(one => one.inner === Number(inner) && one.type === 'tcp' && one.host)?.host ?? place);

		return href && !href.includes('[port:') ? D.link(href, _('Web page')) : '';
	},

	// `port` as `rows` has it: {ip, host, inner, type, zones}
	node(port) {
		const { ip, host, inner, type } = port;

		if (!host)
			return D.el('div', {}, D.el('small', { 'class': 'ucidockd-quiet', 'title': _('not published: only other containers reach it') }, '%d/%s'.format(inner, type)));

		const text = '%d → %d%s'.format(host, inner, type === 'tcp' ? '' : '/' + type);
		const who = whoReaches(port);

		return D.el('div', {}, type === 'tcp' && !isLocal(ip) ? D.link('%s://%s:%d/'.format(SECURE.includes(inner) ? 'https' : 'http', hostOf(ip), host), text) : text,
			who && [ ' ', D.el('small', { 'class': 'ucidockd-quiet', 'title': _('who can reach it, as far as the firewall of this router says') }, '(', who, ')') ]);
	}
});
