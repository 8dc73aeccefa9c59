from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.fitting.cluster_names import ClusterNames, default_colour, default_names, meaning


@pytest.mark.parametrize(
    ("largest", "kind"),
    [(0, "i1"), (127, "i1"), (128, "i2"), (32767, "i2"), (32768, "i4"), (2**31, "i8")],
    ids=str,
)
def test_labels_take_the_smallest_signed_integer_for_the_largest_id(largest: int, kind: str) -> None:
    assert ClusterNames(np.array([0, largest])).dtype == np.dtype(kind)


def test_clusters_without_names_are_called_by_their_ids() -> None:
    clusters = ClusterNames(np.array([0, 2, 9]))
    assert clusters.display_names == ["0", "2", "9"]
    assert clusters.attributes == {
        "long_name": "cluster of each sample; -1 where masked",
        "flag_values": [0, 2, 9],
        "flag_meanings": "cluster_0 cluster_2 cluster_9",
    }
    assert default_names(3).ids.tolist() == [0, 1, 2]


def test_names_and_colours_belong_to_their_clusters() -> None:
    clusters = ClusterNames(np.array([0, 2, 9]), {2: "deep convection", 5: "lost"}, {9: "#00ff00"})
    assert clusters.display_names == ["0", "deep convection", "9"]
    assert clusters.attributes["flag_meanings"] == "cluster_0 deep_convection cluster_9"
    assert clusters.attributes["flag_colors"] == "#3f90da #bd1f01 #00ff00"


@given(st.dictionaries(st.integers(0, 6), st.text(max_size=12)))
def test_meanings_are_words_of_their_own_whatever_people_call_clusters(names: dict[int, str]) -> None:
    words = ClusterNames(np.arange(7), names).attributes["flag_meanings"].split(" ")
    assert len(set(words)) == 7
    assert all(re.fullmatch(r"[\w.+@-]+", word) for word in words)


def test_names_that_are_alike_stay_apart() -> None:
    clusters = ClusterNames(np.arange(4), {0: "a", 1: "a 3", 2: "cluster 3", 3: "a"})
    assert clusters.meanings == ["a", "a_3", "cluster_3", "a_3_3"]


def test_a_name_of_signs_alone_leaves_the_cluster_its_own() -> None:
    assert meaning(3, "!? ") == "cluster_3"
    assert meaning(3, None) == "cluster_3"
    assert meaning(3, "Kühl & feucht") == "Kühl_feucht"


def test_labels_are_found_among_the_clusters() -> None:
    labels = np.array([[9, -1, 0], [2, 2, 9]], np.int8)
    assert ClusterNames(np.array([0, 2, 9])).positions(labels).tolist() == [[2, -1, 0], [1, 1, 2]]


def test_the_colour_of_a_cluster_is_its_own_in_every_run() -> None:
    few, many = ClusterNames(np.array([1, 30])), ClusterNames(np.arange(60))
    assert few.hex_colours == [many.hex_colours[1], many.hex_colours[30]]
    assert len({default_colour(i) for i in range(500)}) == 500
    assert all(re.fullmatch("#[0-9a-f]{6}", default_colour(i)) for i in range(500))
