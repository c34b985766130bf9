"""A history of releases under load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.console import ROOT
from tools.fleet import MIX, RATE, SITE, Fleet
from tools.load import Load


@pytest.fixture(scope="module")
def fleet(address: str, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    source = Path(shutil.copytree(ROOT / "molecule/releases/ledger", tmp_path_factory.mktemp("source") / "ledger"))
    return Fleet(address, Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ca/ca.pem", source, os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture(scope="module")
def load(fleet: Fleet) -> Iterator[Load]:
    made = Load(SITE, MIX, RATE, fleet.ca_file, fleet.address)
    yield made
    made.stop()
