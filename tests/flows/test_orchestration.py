from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clustering_flows.orchestration import DEFAULTS, api_configured, prepare

URL = "http://127.0.0.1:4200/api"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Prefect home without anything in it."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def profiles(home: Path, text: str) -> Path:
    path = home / "profiles.toml"
    path.write_text(text)
    return path


def test_nothing_is_configured_by_default(home: Path) -> None:
    assert api_configured() is False


@pytest.mark.parametrize(("value", "expected"), [(URL, True), ("", False)], ids=["set", "empty"])
def test_the_environment_comes_first(value: str, expected: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(home, f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{"" if expected else URL}"\n')
    monkeypatch.setenv("PREFECT_API_URL", value)
    assert api_configured() is expected


PROFILES = {
    "active with an API": (f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{URL}"\n', True),
    "active without": (f'active = "b"\n[profiles.a]\nPREFECT_API_URL = "{URL}"\n[profiles.b]\n', False),
    "active and empty": ('active = "a"\n[profiles.a]\nPREFECT_API_URL = ""\n', False),
    "active and gone": (f'active = "c"\n[profiles.a]\nPREFECT_API_URL = "{URL}"\n', False),
    "none active": (f'[profiles.a]\nPREFECT_API_URL = "{URL}"\n', False),
    "no profiles": ("", False),
    "not TOML": ("active = [", False),
}


@pytest.mark.parametrize(("text", "expected"), PROFILES.values(), ids=PROFILES)
def test_the_active_profile_decides(text: str, expected: bool, home: Path) -> None:
    profiles(home, text)
    assert api_configured() is expected


def test_the_environment_may_name_the_profile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(home, f'active = "b"\n[profiles.a]\nPREFECT_API_URL = "{URL}"\n[profiles.b]\n')
    monkeypatch.setenv("PREFECT_PROFILE", "a")
    assert api_configured() is True


def test_the_environment_may_name_the_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = profiles(elsewhere, f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{URL}"\n')
    assert api_configured() is False
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(path))
    assert api_configured() is True


def test_a_file_that_is_not_text_is_no_configuration(home: Path) -> None:
    (home / "profiles.toml").write_bytes(b"\xff\xfe\x00")
    assert api_configured() is False


def test_preparing_leaves_what_the_user_has_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        # Set before it is deleted: only then does monkeypatch remove the variable after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    prepare()
    environment = {name: os.environ[name] for name in DEFAULTS}
    assert environment == {**DEFAULTS, "PREFECT_SERVER_ANALYTICS_ENABLED": "true"}


def test_looking_does_not_import_prefect() -> None:
    look = "import sys; from clustering_flows import orchestration as o; o.api_configured(); o.prepare(); "
    look += "sys.exit(any(name.split('.')[0] == 'prefect' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
