"""``python -m vaes``, which is how ``accelerate launch -m vaes`` starts it."""

from vaes.cli import main

raise SystemExit(main())
