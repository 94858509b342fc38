"""python sample.py -c CONFIG --weights WEIGHTS --n_samples N --save_dir DIR [--mode MODE] ...: ``vaes sample``."""

import sys

from vaes.cli import guarded, sample

if __name__ == "__main__":
    raise SystemExit(guarded(lambda: sample(sys.argv[1:], prog="sample.py", singles=True)))
