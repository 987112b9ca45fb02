// SPDX-License-Identifier: GPL-2.0-or-later
// Newer images: what the last check found, which the status has of each container (`update`), and a check now.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.sentences as sentences';

function has(resource, type) {
	return resource?.conditions?.some(one => one.type === type && one.status) ?? false;
}

function isNewer(resource) {
	return has(resource, 'UpdateAvailable') || resource?.update?.state === 'update';
}

// what became of an update or of the way back
function tell({ under_way: goesOn, containers }) {
	if (goesOn)
		return D.notify('info', _('This takes longer and continues in the background. The Overview shows the result.'));

	const words = { updated: _('updated'), 'rolled back': _('taken back to the previous image'), current: _('up to date already'), waiting: _('waiting'), failed: _('failed') };

	for (const { name, outcome, message } of containers ?? [])
		D.notify(outcome === 'failed' ? 'error' : 'info', [ name, words[outcome] ?? outcome, sentences.say(message) ].filter(Boolean).join(': '));

	return undefined;
}

function ask(title, text, label, action, done) {
	D.ask(title, [ text ], label, async () => {
		tell(await action());
		await done?.();
	});
}

function since({ first_seen: first, size }, now) {
	return [ first && _('known for %s').format(format.age(first, now)), size && format.bytes(size) ].filter(Boolean).join(', ');
}

return baseclass.extend({
	isNewer,

	// in words, of one container; '' where no image was checked
	words(resource, now) {
		const { update } = resource;

		if (!update)
			return isNewer(resource) ? _('A newer image is available') : '';

		const { state, why, checked_at: at } = update;

		switch (state) {
		case 'update':
			return [ _('A newer image is available'), since(update, now) ].filter(Boolean).join(', ');
		case 'up-to-date':
			return at ? _('Up to date, checked %s ago').format(format.age(at, now)) : _('Up to date');
		default:
			return why ? _('Not known: %s').format(sentences.say(why)) : _('Not known');
		}
	},

	// to the newest image; `resources`: those that have one
	updateButton: (resources, label, done) => D.button('apply', label, () => ask(_('Update %s').format(resources.map(one => one.name).join(', ')),
		_('The newer image is downloaded, then the container is replaced: down for a few seconds, its volumes stay. If the new one does not start, the old one comes back.'),
		_('Update'), () => calls.agent.update(resources.map(one => one.section)), done)),

	// To the image before, and where its data was saved before the update, with that. `image` as `describe` has it; '' where there
	// is nothing to go back to
	backButton: (resource, { previous, saved }, done) => !previous.length && !saved ? '' : D.button('neutral', _('Back to the previous image'), () => {
		const box = D.el('input', { 'type': 'checkbox', 'checked': previous.length ? null : '', 'disabled': previous.length ? null : '' });

		D.ask(_('Take %s back').format(resource.name), [
			_('The container is replaced by one with its previous image: down for a few seconds. It keeps that image until its settings change or you update it.'),
			saved ? D.el('p', {}, D.labelled(_('Put the data back too, as it was before the update'), box)) : _('Its volumes stay as they are.'),
			saved ? _('If you put the data back, what was written to the volumes since the update is lost.') : ''
		].filter(Boolean), _('Take back'), async () => {
			tell(await calls.agent.rollback(resource.section, box.checked || undefined));
			await done?.();
		});
	}),

	// of one container: whether there is a newer image, and that it stays on an earlier one
	factsOf(resource, done) {
		const words = resource ? this.words(resource, Date.now() / 1000) : '', isPinned = has(resource, 'Pinned');

		return [
			...(words ? [ [ _('Update', 'a fact'), [ D.coded(words), ' ', isNewer(resource) || isPinned ? this.updateButton([ resource ], _('Update'), done) : '' ] ] ] : []),
			...(isPinned ? [ [ _('Pinned'), D.said(resource.conditions.find(one => one.type === 'Pinned').message) ] ] : [])
		];
	},

	// those that have one, each a link; '' for none
	list(resources, now) {
		const found = resources.filter(isNewer);

		return found.length ? D.el('p', {}, D.badge('waiting', N_(found.length, '%d update', '%d updates').format(found.length)), ' ',
			found.map((one, index) => [ index ? ', ' : '', D.page([ 'container', one.section ], one.name), ' ', D.el('small', { 'class': 'ucidockd-quiet' }, one.update ? since(one.update, now) : '') ]), ' ',
			this.updateButton(found, found.length > 1 ? _('Update all') : _('Update'))) : '';
	},

	// asks the registries now
	button: () => D.button('neutral', _('Check for updates'), async () => {
		const { under_way: goesOn, containers } = await calls.agent.updates_check();
		const found = (containers ?? []).filter(one => one.state === 'update').length, failed = new Map();

		for (const { name, state, why } of containers ?? [])
			if (state === 'failed' || state === 'rate-limited')
				failed.set(why, [ ...failed.get(why) ?? [], name ]);

		D.notify('info', goesOn ? _('The registries are still being asked. What they say is shown here.') : N_(found, '%d update is available.', '%d updates are available.').format(found));
		failed.forEach((names, why) => D.notify('warning', '%s: %s'.format(names.join(', '), sentences.say(why))));
	})
});
