"""`python -m tajo`, or `tajo`."""

from shared.lasting import lasting


def main() -> None:
    """Import what every command needs, and do what is asked for."""
    with lasting():
        from tajo.main import main as run

    run()


if __name__ == "__main__":
    main()
