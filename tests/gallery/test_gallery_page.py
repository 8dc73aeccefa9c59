"""The page of the figures has the pictures that are drawn now, the numbers of the fits, and the shipped configs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import clustering as c
from clustering_flows.cli import run
from docs.gallery import jobs
from docs.gallery.__main__ import main
from docs.gallery.figures import FIGURES, images
from docs.gallery.soft_k_means import LIMIT_BETAS, ROUNDING

PAGE = jobs.ROOT / "docs" / "gallery.md"
FOLDER = jobs.ROOT / "docs" / "gallery"
LEVELS = 40
"""Levels of 255 by which a pixel may differ, as the files have few colours."""
PIXELS = 60
"""Pixels of a picture that may differ more, as last digits differ between machines."""


def sections() -> dict[str, str]:
    """Text of each figure's section, without line breaks, by the name of its file."""
    texts = PAGE.read_text().split("\n## ")[1:]
    return {re.findall(r"\]\(gallery/([\w.-]+)\)", text)[0]: " ".join(text.split()) for text in texts}


def test_the_page_shows_every_figure_once_in_order_and_no_other_picture_lies_around() -> None:
    assert list(sections()) == list(FIGURES)
    pictures = {path.name for path in FOLDER.iterdir() if path.suffix not in (".py", "") and path.is_file()}
    assert pictures == set(FIGURES)


def test_pictures_are_small() -> None:
    sizes = {name: (FOLDER / name).stat().st_size for name in FIGURES}
    assert sum(sizes.values()) < 1_000_000
    assert sizes["em-frames.gif"] < 300_000


@pytest.mark.parametrize("name", FIGURES)
def test_the_committed_picture_is_what_is_drawn_now(name: str, shown: Callable[[str], Any]) -> None:
    last = FIGURES[name].frames(shown(name)) - 1
    numbers = sorted({0, last // 2, last})
    with Image.open(FOLDER / name) as file:
        committed = [frame.convert("RGB") for frame in ImageSequence.Iterator(file)]
    for number, drawn in zip(numbers, images(name, shown(name), numbers), strict=True):
        assert drawn.size == committed[number].size
        differences = np.abs(np.asarray(drawn, int) - np.asarray(committed[number], int)).max(axis=-1)
        assert np.sum(differences > LEVELS) <= PIXELS, "run make gallery"


def test_the_animation_has_a_frame_for_each_pass(shown: Callable[[str], Any]) -> None:
    with Image.open(FOLDER / "em-frames.gif") as animation:
        assert animation.n_frames == len(shown("em-frames.gif").means)


def test_numbers_on_the_page_are_those_of_the_fits(shown: Callable[[str], Any]) -> None:
    steps, bad = shown("alternating-steps.png"), shown("bad-optimum.png")
    stiffness, unequal = shown("stiffness.png"), shown("unequal.png")
    densities, limit = shown("densities.png"), shown("limit.png")
    k_means, mixture = unequal.misplaced
    one, ten = (f"−{-value:.3f}" for value in densities.likelihoods)
    rounding = min(beta for beta, far in zip(LIMIT_BETAS, limit.from_hard_centers, strict=True) if far < ROUNDING)
    expected = {
        "alternating-steps.png": (
            f"falls from {steps.history[0, 0]:.1f} to {steps.history[-1, -1]:.1f} until the {len(steps.history)}th pass"
        ),
        "bad-optimum.png": f"at {bad.costs[0] / bad.costs[1]:.2f} times the least cost",
        "stiffness.png": f"chooses {stiffness.chosen:.1f}, where",
        "unequal.png": f"misplaces {k_means:.1%} of".replace("%", " %"),
        "densities.png": f"from {one} to {ten}",
        "em-frames.gif": f"in each of the {len(shown('em-frames.gif').means)} passes",
        "limit.png": f"From β = {rounding:,.0f} on",
    }
    texts = sections()
    for name, sentence in expected.items():
        assert sentence in texts[name]
    assert f"{bad.best[0]} reach the least cost from one start, and all {bad.best[1]} with" in texts["bad-optimum.png"]
    assert f"critical value of {stiffness.critical:.2f}" in texts["stiffness.png"]
    assert f"misplaces {mixture:.1%}".replace("%", " %") in texts["unequal.png"]


@pytest.mark.parametrize("config", jobs.CONFIGS, ids=lambda path: path.stem)
def test_the_commands_of_a_config_run_and_fit_what_the_figure_shows(
    config: Path, lecture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = config.relative_to(jobs.ROOT / "configs").with_suffix("").as_posix()
    assert config.name in PAGE.read_text()
    monkeypatch.chdir(lecture_folder)
    # Its store is there, made by the command before.
    ingest, fit = jobs.commands(config)
    assert (ingest[0], *fit) == ("ingest", "fit", f"configs/{name}.yaml")
    store = jobs.config_of(name).output.store
    assert store.startswith("demo/")
    assert run([*fit, "--no-prefect", "--set", "output.report=false"]) == 0
    np.testing.assert_array_equal(np.asarray(c.load_fit(store).centers), np.asarray(jobs.fit(name).centers))


def test_a_figure_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'limits.png'" in line
    assert "did you mean 'limit.png'?" in line


def test_stores_are_made_in_a_folder_that_is_thrown_away() -> None:
    before = Path.cwd()
    with contextlib.suppress(KeyError), jobs.workplace() as folder:
        assert Path.cwd() == folder.resolve()
        assert (folder / "demo" / "islands.zarr").is_dir()
        raise KeyError
    assert not folder.exists()
    assert Path.cwd() == before
