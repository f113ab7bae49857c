"""Listing, reasons and garbage in a bucket, as in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from configs import changed

from finescale import inventory, start, store
from finescale.plan import Artefact, Plan
from finescale.storage import Objects


def planned(folder: Path, **changes: object) -> Plan:
    return start.read(changed(changes), folder / "small.yaml").plan


def commit(artefact: Artefact, root: str) -> str:
    """Return a store committed at an artefact's place, with something small in it."""
    path = artefact.path.removesuffix(f"/{store.SENTINEL}")
    header = store.Header(artefact.stage, artefact.identity, artefact.facets, artefact.recipe)
    arrays = {"x": store.coordinate(("x",), np.arange(100.0))}
    store.Writer(f"{root}/{path}", header, arrays).create({}).commit()
    return path


def test_a_bucket_is_listed_explained_and_cleared(bucket: str, tmp_path: Path) -> None:
    before = planned(tmp_path)
    after = planned(tmp_path, **{"adjust/half_window": 7})
    old, kept = before.stage("adjust")[0], after.stage("weights")[0]
    paths = [commit(artefact, bucket) for artefact in (old, kept)]
    document, _ = inventory.ls(bucket, [("small", after)])
    needed = {
        entry["url"].removeprefix(f"{bucket}/"): entry["needed_by"] for entry in document["entries"]
    }
    assert needed == dict(zip(paths, ([], ["small"]), strict=True))
    assert store.list_stores(bucket) == sorted(f"{path}/{store.SENTINEL}" for path in paths)

    reasons, _ = inventory.why(after.stage("adjust")[0].name, [("small", after)], root=bucket)
    assert [d["ingredient"] for d in reasons["differences"]] == ["half_window"]

    assert inventory.gc(bucket, [("small", after)]) == [], "all of it is young"
    (garbage,) = inventory.gc(bucket, [("small", after)], grace_seconds=0)
    assert (garbage.path, garbage.kind) == (paths[0], "store")
    inventory.collect(bucket, [garbage])
    marker = f"{store.MARKERS}/{paths[1]}"
    left = {key.partition(".zarr")[0] + ".zarr" for key in Objects(bucket).list()}
    assert left == {paths[1], marker}
