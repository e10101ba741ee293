"""`python -m riyaz VERB …`, which torchrun starts too: the same as `riyaz VERB …`."""

import sys

from riyaz.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
