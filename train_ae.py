"""accelerate-launch train_ae.py [-c CONFIG] [-e EXP_DIR]: ``vaes train`` for autoencoders."""

import sys

from vaes.cli import guarded, train

if __name__ == "__main__":
    raise SystemExit(guarded(lambda: train(sys.argv[1:], prog="train_ae.py", methods=("ae", "rae_l2", "rae_gp"))))
