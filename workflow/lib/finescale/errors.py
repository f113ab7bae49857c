"""Errors a user can cause or meet: what was expected, what came, where, and what to do.

Only `TransientError` is worth a retry; every other `FinescaleError` is permanent.
"""


class FinescaleError(Exception):
    """A failure that has one clear message for the user; permanent unless it says otherwise."""


class ConfigError(FinescaleError):
    """The configuration asks for something that cannot be."""


class SourceError(FinescaleError):
    """An input dataset is not what the configuration or the lock says."""


class ContractError(FinescaleError):
    """Data that a stage reads or is about to write break the stage's contract."""


class StoreError(FinescaleError):
    """A store is missing, incomplete, foreign or damaged."""


class TransientError(FinescaleError):
    """A failure outside the data and the configuration (network, preemption, memory)."""
