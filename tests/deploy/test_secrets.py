"""Nothing like a credential in any file of the repository."""

from __future__ import annotations

import re
import subprocess

import pytest
from trial import ROOT

SECRETS = re.compile(
    "|".join(
        [
            r"-----BEGIN [A-Z ]*PRIVATE KEY",
            r'"private_key(?:_id)?"\s*:',
            r'"type"\s*:\s*"(?:service_account|authorized_user)"',
            r"\bAIza[\w-]{35}",  # a key of Google's services
            r"\bya29\.[\w-]{20}",  # a token of Google's services
            r"\bGOCSPX-[\w-]{20}",
            r"\bAKIA[A-Z0-9]{16}\b",
            r"\bgh[pousr]_\w{36}|\bgithub_pat_\w{20}",
            r"\bxox[bap]-\w{10}",
            r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.",  # a signed token, as of a service account
            r"client-key-data:\s*\S{20}",
            r"\b(?i:password|passwd|secret_key|api_key|access_token)\b['\"]?\s*[:=]\s*['\"]\w{8}",
            r"://[^/\s:@'\"{}$<>]+:[^/\s:@'\"{}$<>]{6,}@",  # in an address
        ]
    )
)
# What stands in these lines is put together here, so that this file has none itself.
EXAMPLES = [
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    '"private_key"' + ': "x"',
    '"type": ' + '"service_account"',
    "key=AIza" + "x" * 35,
    "Bearer ya29." + "x" * 30,
    "GOCSPX-" + "x" * 24,
    "AKIA" + "A" * 16,
    "ghp_" + "x" * 36,
    "xoxb-" + "1" * 12,
    "eyJ" + "x" * 12 + ".eyJ" + "x" * 12 + ".x",
    "client-key-data: " + "x" * 30,
    "password" + ' = "correcthorse"',
    "https://me:" + "correcthorse@example.org",
]


def files() -> dict[str, str]:
    """Return what is, or would be, committed."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    paths = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {str(path.relative_to(ROOT)): path.read_text(errors="replace") for path in paths}


def test_no_file_holds_anything_like_a_credential() -> None:
    found = files()
    assert {"Dockerfile", "deploy/gke/set-up.sh", "docs/running/gke.md"} <= found.keys()
    hits = {name: SECRETS.findall(text) for name, text in found.items() if SECRETS.search(text)}
    assert not hits


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_credential_would_be_noticed(text: str) -> None:
    assert SECRETS.search(text)


def test_no_key_or_local_settings_are_committed() -> None:
    kinds = (".pem", ".key", ".p12", ".env", "kubeconfig", "credentials.json")
    assert not [name for name in files() if name.endswith(kinds)]
