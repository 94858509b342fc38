"""accelerate-launch train_vae.py [-c CONFIG] [-e EXP_DIR] [--train.coef_kl BETA]: ``vaes train`` for VAE and
beta-VAE."""

import sys

from vaes.cli import guarded, train

if __name__ == "__main__":
    raise SystemExit(guarded(lambda: train(sys.argv[1:], prog="train_vae.py", methods=("vae", "beta_vae"))))
