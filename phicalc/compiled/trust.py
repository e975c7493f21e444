"""Whether code on disk is safe to run: nobody but this user may have written it."""

import os
import stat
from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # not POSIX: owners and permissions mean nothing there
    grp = pwd = None  # type: ignore[assignment]  # what else could say that there is none

#: Permission bits with which others can write.
_GROUP, _ANYONE = stat.S_IWGRP, stat.S_IWOTH


def distrust(folder: Path) -> str | None:
    """Return why code in a folder is not safe to run, or None if only this user can put it there.

    The folder must belong to this user and be closed to all others. Those above it must belong to
    this user or root; others may write into them only under the sticky bit, as in ``/tmp``, which
    protects what belongs to this user.

    Parameters
    ----------
    folder
        A folder that exists.
    """
    if pwd is None:
        return None
    folder = Path(os.path.realpath(folder))
    if reason := _distrust_one(folder, folder.stat()):
        return reason
    for above in folder.parents:
        info = above.stat()
        if info.st_uid not in (0, os.geteuid()):
            return _foreign(above, info)
        forbidden = _ANYONE if _is_private(info.st_gid) else _GROUP | _ANYONE
        if info.st_mode & forbidden and not info.st_mode & stat.S_ISVTX:
            return _writable(above, info)
    return None


def distrust_file(path: Path) -> str | None:
    """Return why a file in a trusted folder is not safe to run, or None if it is.

    It must be a regular file (no link) of this user that nobody else can write.
    """
    if pwd is None:
        return None
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        return f"{path} is no regular file"
    return _distrust_one(path, info)


def _distrust_one(path: Path, info: os.stat_result) -> str | None:
    """Return why one file or folder is not safe."""
    if info.st_uid != os.geteuid():
        return _foreign(path, info)
    return _writable(path, info) if info.st_mode & (_GROUP | _ANYONE) else None


def _foreign(path: Path, info: os.stat_result) -> str:
    """Say whose it is."""
    return f"{path} belongs to another user ({info.st_uid}, this is {os.geteuid()})"


def _writable(path: Path, info: os.stat_result) -> str:
    """Say that others can write, and how to end that."""
    return f"others can write to {path} (mode {stat.S_IMODE(info.st_mode):o}; chmod go-w ends it)"


def _is_private(group: int) -> bool:
    """Whether a group has this user alone, as many systems set up for everybody but root."""
    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return (
        user.pw_uid != 0 and entry.gr_name == user.pw_name and set(entry.gr_mem) <= {entry.gr_name}
    )
