"""`python -m nnunetv2_hlfd.deploy.runtime`, the same as an export's `predict.pyz`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
