"""UMAP of codes, computed beside the page."""

import time

import numpy as np
import pytest

from vaes.errors import UserError
from vaes.explore import embedding


def test_what_installs_it_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'vaes\[umap\]'"):
        embedding.Embedding().look(np.zeros((9, 3), np.float32))


def test_it_is_made_once_beside_the_page_and_anew_for_other_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly(codes: np.ndarray) -> np.ndarray:
        made.append(len(codes))
        if len(codes) < embedding.FEWEST:
            raise UserError("too few")
        return codes[:, :2] * 2

    monkeypatch.setattr(embedding, "installed", lambda: True)
    monkeypatch.setattr(embedding, "umap", slowly)
    beside = embedding.Embedding()
    for count in (9, 5):
        codes = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
        while not (found := beside.look(codes)[0]):
            time.sleep(0.01)
        np.testing.assert_array_equal(found["umap"], codes[:, :2] * 2)
        assert beside.look(codes)[0]
    few = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match="UMAP: too few"):  # noqa: PT012 - until its thread has found out
        while True:
            beside.look(few)
            time.sleep(0.01)
    assert made == [9, 5, 2]


@pytest.mark.skipif(not embedding.installed(), reason="vaes[umap] is not installed")
def test_too_few_codes_are_a_sentence() -> None:
    with pytest.raises(UserError, match="4 codes, got 3"):
        embedding.umap(np.zeros((3, 5), np.float32))
