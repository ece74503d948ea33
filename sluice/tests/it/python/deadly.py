"""A backend that dies of some requests, for the test of dead letters."""

import os
import sys

from sluice_backend import arguments, run


def handle(request):
    if request.payload == b"deadly":
        os._exit(7)
    if request.payload == b"odd":
        raise ValueError("odd indeed")
    return 0, b"survived"


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    print("up", flush=True, file=sys.stderr)
    run("echo", handle, options)
