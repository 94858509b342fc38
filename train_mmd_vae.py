"""accelerate-launch train_mmd_vae.py [-c CONFIG] [-e EXP_DIR] [--train.coef_alpha A] [--train.coef_lambda L]: ``vaes
train`` for MMD-VAE."""

import sys

from vaes.cli import guarded, train

if __name__ == "__main__":
    raise SystemExit(guarded(lambda: train(sys.argv[1:], prog="train_mmd_vae.py", methods=("mmd_vae", "info_vae"))))
