"""Which command installs an optional library."""

from importlib.metadata import PackageNotFoundError, distribution
from json import loads
from pathlib import Path
from urllib.parse import unquote, urlparse


def install_hint(extra: str, *, options: str = "") -> str:
    """Return the command that installs one of phicalc's extras, for this installation.

    Where phicalc was installed from a clone (``pip install .``, in place or not), the extra is
    taken from that folder as long as it is there: pip would look for phicalc elsewhere.

    Parameters
    ----------
    extra
        Name of the extra in ``setup.cfg``.
    options
        Further options of pip.
    """
    folder, in_place = _clone()
    target = f"{folder or 'phicalc'}[{extra}]"
    command = ["pip install", options, "-e" if in_place else "", f'"{target}"']
    return " ".join(filter(None, command))


def _clone() -> tuple[str | None, bool]:
    """Folder from which phicalc was installed, None if there is none, and whether in place."""
    try:
        text = distribution("phicalc").read_text("direct_url.json")
    except PackageNotFoundError:
        return None, False
    record = loads(text) if text else {}
    if "dir_info" not in record:
        return None, False
    folder = unquote(urlparse(record["url"]).path)
    if not Path(folder).is_dir():
        return None, False
    return folder, bool(record["dir_info"].get("editable"))
