"""What a source asks for that a folder of results doesn't have yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dsr_fit.dataset.fingerprints import changed
from dsr_fit.dataset.manifest import PlanNote
from dsr_fit.dataset.shards import Done, Store
from dsr_fit.dataset.sources import Source
from dsr_fit.errors import InputError

RETRIED = ("failed", "refused", "unjudged")
"""Statuses that may be fitted again."""


@dataclass(frozen=True)
class Follow:
    """How a run follows a source that has changed since the last one."""

    retry: Collection[str] = ()
    """Also images with a person of one of these statuses."""
    only_new: bool = False
    """Take images that were done as they are, whatever has become of their files."""
    strict: bool = False
    """Refuse any change, and compare the content of every file."""


FOLLOW = Follow()
"""New and replaced images are fitted, all others are left as they are."""


@dataclass
class Changes:
    """Names of images to fit, in the source's order."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    """The image, its keypoints, or the people asked for in it are others than before."""
    retried: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Of earlier plans, no longer in the source; their rows stay."""

    def note(self) -> PlanNote:
        counts = (len(self.added), len(self.replaced), len(self.retried))
        return PlanNote(sum(counts), *counts, len(self.removed))

    def names(self, source: Source) -> list[str]:
        """The images to plan."""
        chosen = {*self.added, *self.replaced, *self.retried}
        return [entry.imgname for entry in source.entries if entry.imgname in chosen]


def changes_of(source: Source, store: Store, states: dict[str, Done], follow: Follow) -> Changes:
    """Compare a source with the results so far, and with what is planned but not done yet.

    Raises InputError where they have no image in common, and for any change where `follow.strict`.
    """
    waiting = {name for batch in store.left() for name in store.names[batch]}
    known = {*states, *waiting}
    present = {entry.imgname for entry in source.entries}
    if known and not known & present:
        raise InputError(
            f"--out {store.folder}: belongs to another source ({len(known)} images, none of them among the "
            f"{len(present)} of {source.images}); choose another --out"
        )
    found = Changes(removed=sorted(known - present))
    for entry in source.entries:
        if entry.imgname in waiting:
            continue
        state = states.get(entry.imgname)
        if state is None:
            found.added.append(entry.imgname)
        elif set(follow.retry) & set(state.statuses):
            found.retried.append(entry.imgname)
        elif follow.only_new:
            continue
        elif state.asked != entry.digest() or (
            state.files is not None and changed(state.files, source.files(entry), strict=follow.strict)
        ):
            found.replaced.append(entry.imgname)
    if follow.strict and known and (found.added or found.replaced or found.removed):
        raise InputError(
            f"--strict: the source has changed since ({len(found.added)} new, {len(found.replaced)} replaced, "
            f"{len(found.removed)} removed, such as {[*found.added, *found.replaced, *found.removed][0]}); leave "
            "--strict out to follow it"
        )
    return found
