"""The snippets of docs/evaluation.md run as they stand."""

import re
from pathlib import Path

from vaes.evaluate.groups import GROUPS


def snippets(repo: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (repo / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.DOTALL)


def test_scores_of_any_codes(repo: Path, capsys) -> None:
    exec(snippets(repo)[0], {})
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert float(lines["mig_locatello"][0]) > 0.8
    assert float(lines["factor_vae_score"][0]) == 1.0
    assert lines["mig_chen"][0] == "skipped:"


def test_any_encoder_and_decoder(repo: Path) -> None:
    names: dict[str, object] = {}
    exec(snippets(repo)[1], names)
    bound, evidence = names["bound"], names["evidence"]
    assert ((bound.value - evidence.value).abs() < 5 * (bound.stderr.square() + evidence.stderr.square()).sqrt()).all()
    assert {"elbo", "iw_bound_k10", "active_units"} <= {one.name for one in names["found"]}


def test_every_group_is_in_the_table(repo: Path) -> None:
    text = (repo / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in GROUPS:
        assert f"| `{name}` |" in text
