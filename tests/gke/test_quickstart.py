"""The quickstart through `snakemake --profile gke`, endpoints overridden and nothing else."""

from __future__ import annotations

import pytest
from gke.conftest import Deployment
from trial import Workflow

pytestmark = pytest.mark.slow


def test_the_quickstart_in_pods_is_the_one_of_this_machine(
    deployment: Deployment, local_quickstart: Workflow
) -> None:
    """The same stores under the same names, to the last bit; then there is nothing to do."""
    deployment.cluster.reset()
    outcome = deployment.snakemake()
    assert outcome.code == 0, outcome.text
    assert "Finescale: quickstart is complete." in outcome.text
    assert 6 <= len(deployment.cluster.jobs) <= 20
    assert deployment.bytes_of_stores() == local_quickstart.bytes_of_stores()
    assert "Nothing to be done" in deployment.snakemake().text
