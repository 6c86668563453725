"""`python -m daemon` is `ambara`."""

import sys


def main() -> None:
    from daemon.cli import app  # late: the child processes that spawn this module need none of it

    sys.exit(app.main())


if __name__ == "__main__":
    main()
