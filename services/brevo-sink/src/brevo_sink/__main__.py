"""`python -m brevo_sink`, or `tajo-brevo-sink`."""

from shared.lasting import run


def main() -> None:
    """Run the service until SIGTERM."""
    run("brevo_sink")


if __name__ == "__main__":
    main()
