"""`python -m poller`, or `tajo-poller`."""

from shared.lasting import run


def main() -> None:
    """Run the service until SIGTERM."""
    run("poller")


if __name__ == "__main__":
    main()
