"""Which image is built, from what, and when it is built again."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from docker.errors import APIError, ImageNotFound

from tools import image
from tools.console import Problem


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "LOGS"):
        monkeypatch.setattr(image, name, tmp_path)
    monkeypatch.setattr(image, "PULLED", tmp_path / "pulled-images")
    monkeypatch.delenv("GROUNDCREW_IMAGE", raising=False)


def engine_with(*names: str, content: str = "") -> MagicMock:
    """An engine that holds images of these names."""
    client = MagicMock()

    def get(name: str) -> MagicMock:
        if name not in names:
            raise ImageNotFound(name)
        return MagicMock(labels={image.CONTENT_LABEL: content})

    client.images.get.side_effect = get
    return client


def test_a_changed_file_or_name_changes_the_content(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a")
    first = image.content_hash(tmp_path, "trixie")
    assert first == image.content_hash(tmp_path, "trixie")
    assert first != image.content_hash(tmp_path, "bookworm")
    (tmp_path / "Dockerfile").write_text("FROM b")
    assert first != image.content_hash(tmp_path, "trixie")


def test_one_variable_names_any_other_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDCREW_IMAGE", "registry.example/systemd:{release}")
    assert image.host_image("bookworm") == "registry.example/systemd:bookworm"
    client = engine_with()
    assert image.ensure(client, "bookworm") == "registry.example/systemd:bookworm, pulled"
    client.images.pull.assert_called_once_with("registry.example/systemd:bookworm")


def test_the_registrys_base_is_used_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "registry_has", lambda name: True)
    client = engine_with()
    assert image.ensure_base(client, "trixie") == "debian:trixie-slim"
    client.images.pull.assert_called_once_with("debian:trixie-slim")
    assert image.PULLED.read_text() == "debian:trixie-slim\n"


@pytest.mark.parametrize("refusal", [APIError("toomanyrequests:\nrate limit"), ConnectionError("rate limit")])
def test_a_registry_that_refuses_the_pull_leaves_the_mirror(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusal: Exception
) -> None:
    """Catches a rate limit that ends `make up` with a traceback, and an image noted for removal that was never pulled."""
    made: list[str] = []
    monkeypatch.setattr(image, "registry_has", lambda name: True)
    monkeypatch.setattr(image, "bootstrap_base", lambda client, release, name: made.append(name))
    client = engine_with()
    client.images.pull.side_effect = refusal
    assert image.ensure_base(client, "trixie") == "groundcrew-base:trixie"
    assert made == ["groundcrew-base:trixie"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("debian:trixie-slim cannot be pulled")
    assert line.endswith("rate limit")
    assert not image.PULLED.exists()


def test_without_a_registry_the_base_comes_from_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(image, "registry_has", lambda name: False)
    monkeypatch.setattr(image, "bootstrap_base", lambda client, release, name: made.append(name))
    assert image.ensure_base(engine_with(), "bookworm") == "groundcrew-base:bookworm"
    assert made == ["groundcrew-base:bookworm"]


def test_a_base_that_is_there_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "registry_has", lambda name: pytest.fail("the registry was asked"))
    assert image.ensure_base(engine_with("groundcrew-base:trixie"), "trixie") == "groundcrew-base:trixie"


def test_an_unchanged_image_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "build", lambda *_: pytest.fail("built"))
    content = image.content_hash(image.HOST_CONTEXT, "trixie")
    assert image.ensure(engine_with("groundcrew-host:trixie", content=content), "trixie").endswith("there already")


def test_a_changed_image_is_built_over_its_base() -> None:
    client = engine_with("groundcrew-host:trixie", "debian:trixie-slim", content="older")
    client.api.build.return_value = [{"stream": "Step 1"}]
    assert image.ensure(client, "trixie") == "groundcrew-host:trixie, built over debian:trixie-slim"
    assert client.api.build.call_args.kwargs["buildargs"]["BASE"] == "debian:trixie-slim"


def test_a_failed_build_shows_why() -> None:
    client = engine_with("debian:trixie-slim")
    client.api.build.return_value = [{"stream": "E: Unable to fetch\n"}, {"error": "apt-get returned 100"}]
    with pytest.raises(Problem, match="apt-get returned 100\nE: Unable to fetch"):
        image.ensure(client, "trixie")


def test_the_operators_proxy_reaches_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    client = engine_with("debian:trixie-slim")
    client.api.build.return_value = []
    image.ensure(client, "trixie")
    assert client.api.build.call_args.kwargs["buildargs"]["http_proxy"] == "http://proxy.example:3128"
