"""The site as a person sees it, in a real browser."""

from __future__ import annotations

import os
from pathlib import Path

from tools import browser, engine


def test_visitor_gets_a_report(generated: Path) -> None:
    """Catches a certificate that browsers refuse, a script or style that the security policy blocks, and a page that does not update."""
    client = engine.connect()
    scenario = os.environ["MOLECULE_SCENARIO_NAME"]
    (host,) = client.containers.list(filters={"label": f"groundcrew.scenario={scenario}"})
    # In the host's own network, where the site's name is its address
    seen = browser.visit(client, "https://localhost/", generated / "ca" / "ca.pem", f"container:{host.id}")
    assert seen == {"state": "done", "words": "4", "same_page": True, "console": []}
