"""Sentinels of ten thousand stores: how many requests tell Snakemake which of them are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import snakemake_storage_plugin_gcs as plugin
from listing import listing
from server import BUCKET, Flaky
from snakemake.io import IOCache
from snakemake_interface_common.exceptions import WorkflowError

from finescale import sentinels, store
from finescale.errors import StoreError
from finescale.storage import Objects

STAGES = ("adjust", "bcsd", "evaluate")


def write(root: str, name: str, *, sentinel: bool = True, marker: bool = True) -> str:
    """Let a store lie in the bucket, with a chunk; return its sentinel."""
    Objects(root).put(f"{name}/tas/0.0.0", b"chunk")
    if marker:
        Objects(f"{root}/{store.MARKERS}").put(name, b"")
    if sentinel:
        Objects(root).put(f"{name}/{store.SENTINEL}", b"{}")
    return f"{name}/{store.SENTINEL}"


@pytest.fixture
def provider(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[plugin.StorageProvider]:
    """Give Snakemake's plugin with our class in the place of its own."""
    monkeypatch.setattr(plugin, "StorageObject", plugin.StorageObject)
    sentinels.install(f"{bucket}/stores", f"{bucket}/results/small")
    made = plugin.StorageProvider(
        logger=None,
        local_prefix=tmp_path,
        settings=plugin.StorageProviderSettings(project="test"),
        keep_local=False,
        retrieve=False,
        is_default=False,
        wait_for_free_local_storage=None,
    )
    yield made
    made.client.close()


def found(provider: plugin.StorageProvider, *urls: str) -> dict[str, bool]:
    """Return which objects Snakemake would think are there, as it asks while it builds a DAG."""
    cache: Any = IOCache(0)
    told = {}
    for url in urls:
        one = provider.object(url)
        if one.get_inventory_parent() not in cache.exists_in_storage.has_inventory:
            asyncio.run(one.inventory(cache))
        told[url] = cache.exists_in_storage[one.cache_key()]
    return told


def test_committed_stores_and_results_are_known(
    bucket: str, provider: plugin.StorageProvider
) -> None:
    root = f"{bucket}/stores"
    there = {f"{root}/{write(root, 'bcsd/a.zarr')}": True}
    gone = {f"{root}/bcsd/b.zarr/{store.SENTINEL}": False}
    Objects(bucket).put("results/small/index.json", b"{}")
    result = {f"{bucket}/results/small/index.json": True, f"{bucket}/results/small/x.csv": False}
    wanted = there | gone | result
    assert found(provider, *wanted) == wanted


def test_a_store_that_was_removed_or_never_finished_is_not_there(
    bucket: str, provider: plugin.StorageProvider
) -> None:
    """A marker alone would tell of a store that somebody has deleted."""
    root = f"{bucket}/stores"
    deleted = write(root, "bcsd/a.zarr")
    Objects(f"{root}/bcsd/a.zarr").clear()
    begun = write(root, "bcsd/b.zarr", sentinel=False, marker=False)
    urls = [f"{root}/{path}" for path in (deleted, begun)]
    assert found(provider, *urls) == dict.fromkeys(urls, False)


def test_a_store_that_was_copied_into_the_bucket_is_found_and_marked(bucket: str) -> None:
    path = write(bucket, "bcsd/a.zarr", marker=False)
    assert store.list_stores(bucket) == [path]
    assert set(Objects(f"{bucket}/{store.MARKERS}").list()) == {"bcsd/a.zarr"}


def test_a_marker_that_says_too_much_goes_when_the_store_is_used(bucket: str) -> None:
    """A sentinel deleted by hand; the next run makes the store."""
    path = write(bucket, "bcsd/a.zarr", sentinel=False)
    assert store.list_stores(bucket) == [path]
    with pytest.raises(StoreError, match="run the workflow again, it makes it"):
        store.open_store(f"{bucket}/bcsd/a.zarr")
    assert store.list_stores(bucket) == []


def test_a_store_that_is_made_anew_is_not_announced_meanwhile(
    bucket: str, provider: plugin.StorageProvider
) -> None:
    """Snakemake removes the sentinel of a forced job, which may then be killed."""
    root = f"{bucket}/stores"
    url = f"{root}/{write(root, 'bcsd/a.zarr')}"
    provider.object(url).remove()
    assert found(provider, url) == {url: False}
    assert set(Objects(root).list()) == {"bcsd/a.zarr/tas/0.0.0"}


def test_an_object_costs_one_request_while_jobs_run(
    bucket: str, provider: plugin.StorageProvider, proxy: Flaky
) -> None:
    """The plugin looks for the bucket each time, and for a folder of that name."""
    there = provider.object(f"{bucket}/stores/{write(f'{bucket}/stores', 'bcsd/a.zarr')}")
    missing = provider.object(f"{bucket}/stores/bcsd/b.zarr/{store.SENTINEL}")
    proxy.reset()
    assert there.exists() and not missing.exists()
    assert proxy.count("/o[/?]") == 2, proxy.requests
    assert there.mtime() > 0


def test_a_bucket_that_may_not_be_listed_is_one_message(
    bucket: str, provider: plugin.StorageProvider, proxy: Flaky
) -> None:
    proxy.fail("GET .*/o[?]", 9, status=403)
    with pytest.raises(WorkflowError, match="is not permitted"):
        found(provider, f"{bucket}/stores/bcsd/a.zarr/{store.SENTINEL}")


def test_ten_thousand_stores_are_known_after_a_few_listings(
    bucket: str, provider: plugin.StorageProvider, proxy: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of them committed; the plugin asks 4 times for each of them."""
    root = f"{bucket}/stores"
    names = [f"{STAGES[n % 3]}/{n:05}.zarr" for n in range(10_000)]
    folder = root.removeprefix(f"gs://{BUCKET}/")
    keys = [
        key
        for name in names[:9_900]
        for key in (f"{name}/{store.SENTINEL}", f"{name}/tas/0.0.0", f"{store.MARKERS}/{name}")
    ]
    with listing([f"{folder}/{key}" for key in keys]) as names_only:
        monkeypatch.setattr(proxy, "upstream", names_only.url)
        proxy.reset()
        told = found(provider, *(f"{root}/{name}/{store.SENTINEL}" for name in names))
    assert list(told.values()) == [True] * 9_900 + [False] * 100
    pages = 10 + 1 + 3 * 4
    no_results = 2
    assert len(proxy.requests) <= pages + no_results, proxy.requests
