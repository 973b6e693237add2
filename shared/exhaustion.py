"""Tells a file that is damaged from a host that is short of open files or memory, which may end."""

import errno
import os

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def raise_exhaustion(error: Exception) -> None:
    """Raise an OSError if a file could not be read because the process may open no more, or has no memory.

    Call it before a failed read is reported as damage, which is not tried again.

        except (OSError, sqlite3.Error) as exc:
            raise_exhaustion(exc)
            raise IndexDamaged("cannot be read") from exc

    Args:
        error: of the read. Native libraries have the reason in their text; SQLite does not tell it.

    Raises:
        OSError: with `errno` EMFILE, ENFILE or ENOMEM.
    """
    number = error.errno if isinstance(error, OSError) else None
    found = next((one for one in _EXHAUSTED if one == number or os.strerror(one) in str(error)), None)
    if found is not None:
        raise OSError(found, os.strerror(found)) from error
    os.close(os.open(os.devnull, os.O_RDONLY))  # fails where no more files may be opened, whatever `error` says
