"""`python -m mapper`, or `tajo-mapper`."""

from shared.lasting import run


def main() -> None:
    """Run the service until SIGTERM."""
    run("mapper")


if __name__ == "__main__":
    main()
