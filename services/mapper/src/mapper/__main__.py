"""`python -m mapper`, or `tajo-mapper`: run the service."""

from shared.lasting import lasting


def main() -> None:
    """Import it, and run until SIGTERM."""
    with lasting(
        without="rich"
    ):  # structlog and httpx look for it: a tenth of a start, and no container has it
        from mapper.main import main as run

    run()


if __name__ == "__main__":
    main()
