// SPDX-License-Identifier: GPL-2.0-or-later
// What the form of a container shows beside the section. A page asks for it with its own data, while `form` is still fetched.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.browse as browse';
'require ucidockd.calls as calls';
'require ucidockd.watch as watch';

return baseclass.extend({
	// promises, each of which holds; `container`: a promise of what the engine says of it, whose image will be looked at
	ask(container) {
		const ask = calls.together(), isLoaded = L.resolveDefault(uci.load([ 'containers' ]).then(() => true), false); // why not, a writer's form hears as it tries again

		return {
			isLoaded,
			images: watch.list(ask.image.list()), volumes: L.resolveDefault(ask.volume.list(), {}), devices: browse.devices(),
			image: container?.then(async found => {
				await isLoaded;

				// a container that was rolled back has another image than its section
				const name = uci.get('containers', found?.Config?.Labels?.['ucidockd.section'] ?? '', 'image') ?? found?.Config?.Image;

				return name ? { name, found: await L.resolveDefault(ask.image.inspect(name), null) } : null;
			})
		};
	}
});
