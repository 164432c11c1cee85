"""The program `ragtune`, and `python -m ragtune`: it hears Ctrl-C before it loads anything large."""

import signal
import sys

from ragtune.base import stopping
from ragtune.base.garbage import begin, leave
from ragtune.base.leaving import leaving_threads
from ragtune.base.threads import settle_threads


@leaving_threads()
def main() -> None:
    """Run the command line."""
    stopping.install()
    begin()
    try:
        settle_threads()
        from ragtune import cli  # noqa: PLC0415 - Ctrl-C is ours before anything takes time

        cli.main()
    except SystemExit:
        raise
    except BaseException:  # what an interrupt became: it may have broken an import
        if not stopping.asked():
            raise
        sys.exit(stopping.farewell(sys.argv[1:]))
    finally:
        # Python's own handler would show a traceback while the interpreter is taken apart.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        leave()


if __name__ == "__main__":
    main()
