"""Sentinels in a bucket as Snakemake sees them: a few listings answer for all of them.

Version 1.1.4 of Snakemake's plugin for buckets asks four times for each object, one after the
other, or lists every chunk beside it. This class, put in the place of the plugin's, fills
Snakemake's cache when the first object is asked for. While jobs run, Snakemake asks for each, once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import snakemake_storage_plugin_gcs as plugin  # type: ignore[import-untyped]
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.io import Mtime  # type: ignore[import-untyped]

from finescale import store
from finescale.errors import FinescaleError
from finescale.storage import Objects


class StorageObject(plugin.StorageObject):  # type: ignore[misc]
    """An object in a bucket that may lie in a folder which is listed at once."""

    stores: ClassVar[str] = ""
    """Root of stores, a URL."""
    folders: ClassVar[tuple[str, ...]] = ()
    """It, and the others that are listed."""

    @property
    def _folder(self) -> str | None:
        """Return the listed folder that the object lies in."""
        return next((f for f in self.folders if self.query.startswith(f"{f}/")), None)

    def get_inventory_parent(self) -> str | None:
        """Return what stands for all objects that are listed together with this one."""
        return self._folder and self._key(self._folder)

    def _key(self, url: str) -> str:
        return str(self.cache_key(url.removeprefix("gs://")))

    async def inventory(self, cache: Any) -> None:
        """Let the cache know of every object in the listed folders.

        Of all of them: the times of benchmarks are asked for without an inventory before.
        """
        for folder in self.folders if self._folder else ():
            parent = self._key(folder)
            if parent in cache.exists_in_storage.has_inventory:
                continue
            for name, time in _listed(folder, are_stores=folder == self.stores).items():
                key = self._key(f"{folder}/{name}")
                cache.exists_in_storage[key] = True
                if time is not None:
                    cache.mtime[key] = Mtime(storage=time)
            cache.exists_in_storage.has_inventory.add(parent)

    def exists(self) -> bool:
        """Tell whether the object is there, in one request."""
        return bool(self.blob.exists())

    def is_directory(self) -> bool:
        """Tell whether this is a folder: no rule makes one, and to look for it takes a listing."""
        return False

    def remove(self) -> None:
        """Remove the object; a store that is about to be made anew is not announced any more."""
        if self._folder == self.stores:
            store.unmark(self.query.removesuffix(f"/{store.SENTINEL}"))
        super().remove()


def _listed(folder: str, *, are_stores: bool) -> dict[str, float | None]:
    """Return the objects in a folder, of stores their sentinels, with their times."""
    try:
        if are_stores:
            return store.committed(folder)
        return {key: entry.modified for key, entry in Objects(folder).list().items()}
    except FinescaleError as error:
        raise WorkflowError(str(error)) from None


def install(stores: str, *folders: str) -> None:
    """Let Snakemake list these folders: the root of stores, and others with few objects."""
    StorageObject.stores, StorageObject.folders = stores, (stores, *folders)
    plugin.StorageObject = StorageObject
