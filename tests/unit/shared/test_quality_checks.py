"""Checks of live quality on made-up searches: ten thousand that are as they should be, and those that are not."""

import numpy as np
import pytest

from shared.quality.checks import LOOKS, check
from shared.quality.contract import FEATURES, CheckState, ShadowedSearch

VERSION = "20260101T000000000000Z-00000000"
WITHIN = 200


def searches(n: int, shift: dict[str, float], *, recall: float = 0.99, seed: int = 0) -> list[ShadowedSearch]:
    """Of one version, in the order they came; each feature a tenth of its spread off, as new photos are."""
    rng = np.random.default_rng(seed)
    deviations = np.clip(rng.normal(0.1, 1.05, (n, len(FEATURES))), -4, 4)
    for name, by in shift.items():
        deviations[:, FEATURES.index(name)] += by
    found = rng.binomial(10, recall, n) / 10
    return [search(recall=float(found[i]), deviations=tuple(deviations[i].tolist())) for i in range(n)]


def search(**changed: object) -> ShadowedSearch:
    given: dict[str, object] = {
        "version": VERSION, "fingerprint": "f" * 64, "recall": 1.0, "best_score": 0.8, "certain": True,
        "category": "Sofas", "model_s": 0.01, "search_s": 0.002, "n_audited": 32, "n_damaged": 0,
        "deviations": (None,) * len(FEATURES),
    }  # fmt: skip
    return ShadowedSearch(**{**given, **changed})  # type: ignore[arg-type]


def states(newest_first: list[ShadowedSearch], version: str = VERSION) -> dict[str, str]:
    return {one.name: one.state for one in check(newest_first, version)}


def test_ten_thousand_searches_as_they_should_be_raise_no_alarm() -> None:
    came = searches(10_000, {})
    for n in range(10, len(came), 10):
        found = states(came[max(0, n - 400) : n][::-1])
        assert CheckState.ALARM not in found.values(), n
    assert found == {"recall": "fine", "damage": "fine", "drift": "fine"}


@pytest.mark.parametrize(
    ("shift", "recall", "name"),
    [
        ({"red_over_blue": -1.37}, 0.99, "drift"),  # as of 503 real photos with their channels exchanged
        ({"bars": -1.8}, 0.99, "drift"),  # and cropped
        ({}, 0.85, "recall"),
    ],
)
def test_what_goes_wrong_in_the_life_of_an_index_is_told_within_200_searches(
    shift: dict[str, float], recall: float, name: str
) -> None:
    came = searches(400, {}) + searches(WITHIN, shift, recall=recall, seed=1)
    assert states(came[::-1])[name] == CheckState.ALARM
    right = searches(400, {}, seed=2)
    assert states((came + right)[::-1])[name] == CheckState.FINE  # and gone again when it is


def test_a_few_queries_of_another_kind_and_one_that_is_always_the_same_are_no_alarm() -> None:
    assert states(searches(LOOKS[0] - 1, {"bars": 4.0})) == {"recall": "unknown", "damage": "fine", "drift": "unknown"}
    assert states(searches(400, {"brightness": 0.3, "embedding_1": -0.3}))["drift"] == CheckState.FINE


def test_damage_and_recall_are_the_live_versions_own_and_drift_outlives_a_reindex() -> None:
    came = [search(version="other", n_damaged=1), *searches(100, {"bars": -1.8})]
    assert states(came) == {"recall": "fine", "damage": "fine", "drift": "alarm"}
    assert states(came, "other") == {"recall": "unknown", "damage": "alarm", "drift": "alarm"}
    assert states([]) == {"recall": "unknown", "damage": "unknown", "drift": "unknown"}


def test_what_is_not_known_says_why() -> None:
    def told(came: list[ShadowedSearch]) -> dict[str, str]:
        return {one.name: one.detail for one in check(came, VERSION) if one.state == CheckState.UNKNOWN}

    nothing = told([])
    assert nothing["damage"] == "no search of this version was shadowed"
    assert nothing["drift"] == f"fewer than {LOOKS[0]} searches were shadowed"
    of_an_index_without_either = told([search(n_audited=0)] * 60)
    assert "has no digests" in of_an_index_without_either["damage"]
    assert "fewer than 48 listings" in of_an_index_without_either["drift"]
