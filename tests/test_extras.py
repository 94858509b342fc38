"""Every extra is there, and what lacks one is a sentence with the command that installs it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
NOT_ASKED_FOR = {"dev", "docs", "slurm"}  # slurm's is asked for after the cluster's own commands, see tests/sweep
RUN = "run/ckpt/step000004"
LACKING = {
    "hub": ("huggingface_hub", "import vaes; vaes.load('somebody/nothing')"),
    "wandb": ("wandb", "from vaes.cli import main; sys.exit(main(['train', '-e', 'r', '--train.trackers', '[wandb]']))"),
    "mlflow": ("mlflow", "from vaes.cli import main; sys.exit(main(['train', '-e', 'r', '--train.trackers', '[mlflow]']))"),
    "trackio": ("trackio", "from vaes.cli import main; sys.exit(main(['train', '-e', 'r', '--train.trackers', '[trackio]']))"),
    "search": ("optuna", "from vaes.cli import main; sys.exit(main(['sweep', '-e', 's', '--search', 'optuna', '--range', 'train.lr=0.001..0.01']))"),
    "ray": ("ray", "from vaes.cli import main; sys.exit(main(['sweep', '-e', 's', '--engine', 'ray', '--grid', 'seed=0,1']))"),
    "film": ("imageio_ffmpeg", "from vaes.cli import main; sys.exit(main(['sample', 'zoo:digits', '--mode', 'interpolate', '--format', 'mp4']))"),
    "parquet": ("pyarrow", "from vaes.cli import main; sys.exit(main(['encode', 'zoo:digits', '--split', 'test', '-o', 'c.parquet']))"),
    "explore": ("starlette", "from vaes.cli import main; sys.exit(main(['explore', 'zoo:digits']))"),
    "export": ("onnx", "from vaes.cli import main; sys.exit(main(['export', 'zoo:digits', '--to', 'onnx']))"),
    "fid": ("torch_fidelity", "from vaes.cli import main; sys.exit(main(['evaluate', 'zoo:digits', '--only', 'generation', '--features', 'inception']))"),
    "h5": ("h5py", "from vaes.cli import main; sys.exit(main(['train', '-e', 'r', '--data.kind', 'shapes3d', '--data.root', '.']))"),
}
HIDE = """
import importlib.abc, importlib.util, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None
sys.meta_path.insert(0, Hidden())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] == {package!r} else real(name, package)
"""


def test_each_extra_is_tried_below() -> None:
    assert set(EXTRAS) == set(LACKING) | NOT_ASKED_FOR


@pytest.mark.parametrize("extra", LACKING)
def test_a_missing_one_is_a_sentence_that_installs_it(extra: str, tmp_path: Path) -> None:
    package, code = LACKING[extra]
    call = code if "main(" in code else f"from vaes.cli import guarded; guarded(lambda: exec({code!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{HIDE.format(package=package)}\n{call}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert re.search(rf"pip install 'vaes\[{extra}\]'", said), said
