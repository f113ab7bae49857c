"""Memory of a job, from the shapes of what it works on: functions that a plan calls.

What a job holds is bounded by chunks and threads, never by the domain, but for weights and masks
of a few bytes a fine cell and series of the coarse grid. The factors are those of measured peaks
(`./run bench P5`, docs/decisions/0008): values of a tile as float32 and float64, copies included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from finescale.chunking import SLAB, Shape, band, chunks

BASE_MB = 300
"""Of a job before it holds any data: Python, its libraries, the decoder's buffers."""
MARGIN = 1.25
"""Of what is predicted: the allocator keeps some of what was given back."""


@dataclass(frozen=True)
class Sizes:
    """What a case works on: days of its axes, cells of its grids.

    n_days of the product, n_past of historical (0 without one), n_ref of the reference, n_train of
    the training; `fine`, `coarse`: rows and columns; n_threads.
    """

    n_days: int
    n_past: int
    n_ref: int
    n_train: int
    fine: tuple[int, int]
    coarse: tuple[int, int]
    n_threads: int = 1

    @property
    def axis(self) -> int:
        """Return the days of historical and scenario together."""
        return self.n_days + self.n_past

    @property
    def n_fine(self) -> int:
        """Return the number of fine cells."""
        return math.prod(self.fine)

    @property
    def n_coarse(self) -> int:
        """Return the number of coarse cells."""
        return math.prod(self.coarse)

    @property
    def tile(self) -> int:
        """Return the cells of a chunk of a fine store."""
        return _cells(chunks((self.n_ref, *self.fine), "tiles"))

    @property
    def column(self) -> int:
        """Return the cells of a chunk of a coarse store."""
        return _cells(chunks((max(self.axis, 1), *self.coarse), "full_time"))

    @property
    def beneath(self) -> int:
        """Return the coarse cells below a tile, its neighbours included."""
        share = (self.tile / self.n_fine) ** 0.5
        rows, columns = (math.ceil(n * share) + 2 for n in self.coarse)
        return min(rows * columns, self.n_coarse)


def _cells(chunk: Shape) -> int:
    return chunk[1] * chunk[2]


def mb(n_bytes: float) -> int:
    """Return the memory of a job that holds so many bytes of data [MB]."""
    return BASE_MB + math.ceil(MARGIN * n_bytes / 1e6)


def reference(s: Sizes) -> float:
    """Return bytes: a band as it is read, converted and checked."""
    days, rows = band((s.n_ref, *s.fine))
    return 12 * min(days, s.n_ref) * rows * s.fine[1] + 60e6


def simulation(s: Sizes) -> float:
    """Return bytes: a chunk of whole series, read in float64."""
    return 55 * s.column * s.n_days + 40e6


def weights(s: Sizes) -> float:
    """Return bytes: a table of the fine cells, built and as it is written."""
    return 400 * s.n_fine + 400 * s.n_coarse + 20e6


def coarsen(s: Sizes) -> float:
    """Return bytes: the fine cells below a chunk of coarse ones, a slab of days; the chunk."""
    covered = min(s.n_fine, s.column * s.n_fine // s.n_coarse)
    return 1.3 * max(100e6, 4 * SLAB * covered) + 8 * s.column * s.n_ref + 100 * s.n_fine


def climatology(s: Sizes) -> float:
    """Return bytes: for each thread sums, counts and fits of a tile, a slab of its days."""
    return s.n_threads * (110 * SLAB * min(s.tile, s.n_fine) + 30e6)


def adjust(s: Sizes, *, is_wide: bool) -> float:
    """Return bytes: for each thread the series of a chunk, in copies; ranks or epochs beside."""
    per_value = 90 if is_wide else 66
    return s.n_threads * per_value * s.column * (s.axis + s.n_ref) + 20e6


def bcsd(s: Sizes, *, is_solved: bool) -> float:
    """Return bytes: weights, a slab of a tile, the climatology below; solved coarse series."""
    solved = (16 * s.n_days + 6 * SLAB) * s.n_coarse if is_solved else 0
    return _product(s) + s.n_threads * 6 * SLAB * s.beneath + solved


def interpolate(s: Sizes) -> float:
    """Return bytes: weights; a slab of a tile for each thread."""
    return _product(s)


def qplad(s: Sizes) -> float:
    """Return bytes: besides, the training days of a tile, their departures; ranks below it."""
    beside = 16 * s.tile * s.n_train + 24 * s.beneath * (s.n_days + s.n_train)
    return _product(s) + s.n_threads * beside


def analogs(s: Sizes, *, n_variables: int) -> float:
    """Return bytes: the series of a region's cells, standardised; distances of a batch."""
    return n_variables * 32 * s.n_coarse * (s.n_days + s.n_train) + 150e6


def maca(s: Sizes) -> float:
    """Return bytes: training days of a tile, constructed days, the mapping's sub-blocks."""
    tile = 4 * s.tile * (2 * s.n_train + s.n_days)
    weights = 12 * (s.beneath + 90) * (s.n_train + s.n_days)
    return 200 * s.n_fine + s.n_threads * (tile + weights + 120e6)


def gard(s: Sizes, *, n_predictors: int, is_analog: bool) -> float:
    """Return bytes: training days of a tile, predictors below it, models of its cells."""
    n, m, cells, p = s.n_train, s.n_days, s.tile, n_predictors
    own = 4 * n * cells + 8 * (n + m) * p * s.beneath + 1000 * n * (p + 5) + 10_000 * cells
    own += 4 * n * cells * (p + 2) if is_analog else 6000 * cells * (p + 2)
    return 200 * s.n_fine + s.n_threads * (own + 30e6)


def aggregate(s: Sizes, *, n_groups: int) -> float:
    """Return bytes: sums and counts of a tile's groups, a slab of its days."""
    return 30 * n_groups * s.tile + 8 * SLAB * s.tile + 10e6


def evaluate(s: Sizes) -> float:
    """Return bytes: for each thread the series of a tile: product, reference, raw model, past."""
    series = 3 * s.n_days + 2 * s.n_past + 2 * s.n_ref
    return s.n_threads * (4 * s.tile * series + 30e6) + 200 * s.n_fine


def _product(s: Sizes) -> float:
    series = 8 * s.beneath * s.n_days
    return 200 * s.n_fine + s.n_threads * (24 * SLAB * s.tile + series + 60e6)
