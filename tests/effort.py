"""How much the tests try: a part of it by default, all of it where VAE_TUTORIAL_LONG is 1."""

import os

LONG = os.environ.get("VAE_TUTORIAL_LONG") == "1"


def effort(default, long):
    """Return how many of something to try, or which: less by default, more in the long profile."""
    return long if LONG else default
