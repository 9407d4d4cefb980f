"""`python -m ingest`, or `tajo-ingest`."""

from shared.lasting import run


def main() -> None:
    """Run the service until SIGTERM."""
    run("ingest")


if __name__ == "__main__":
    main()
