"""The smallest backend: whoever asks the service `echo` hears it again, with the
name that the gateway vouches for before it."""

from sluice_backend import arguments, is_late, run


def handle(request):
    if is_late(request):
        return 0, b""  # nobody waits for it any more
    return 0, f"{request.origin.user_id}: ".encode() + request.payload


if __name__ == "__main__":
    run("echo", handle, arguments(__doc__).parse_args())
