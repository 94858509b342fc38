"""accelerate-launch train_aae.py [-c CONFIG] [-e EXP_DIR] [--objective.lambda_ L]: ``vaes train`` for adversarial
autoencoders."""

import sys

from vaes.cli import guarded, train

if __name__ == "__main__":
    raise SystemExit(guarded(lambda: train(sys.argv[1:], prog="train_aae.py", methods=("aae", "wae_gan"))))
