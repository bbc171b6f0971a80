"""``python -m resnets`` and ``torchrun -m resnets``: the same as the ``resnets`` command."""

import sys

from resnets.cli import main

if __name__ == "__main__":
    sys.exit(main())
