"""Which command installs an optional library."""

from importlib.metadata import PackageNotFoundError, distribution
from json import loads
from urllib.parse import unquote, urlparse


def install_hint(extra: str, *, options: str = "") -> str:
    """Return the command that installs one of phicalc's extras, for this installation.

    A clone that is installed in place (``pip install -e .``) is asked to take the extra from its
    own folder, as pip would otherwise look for phicalc elsewhere.

    Parameters
    ----------
    extra
        Name of the extra in ``setup.cfg``.
    options
        Further options of pip.
    """
    folder = _editable_folder()
    target = f"phicalc[{extra}]" if folder is None else f"{folder}[{extra}]"
    command = ["pip install", options, "-e" if folder is not None else "", f'"{target}"']
    return " ".join(filter(None, command))


def _editable_folder() -> str | None:
    """Folder of the clone from which phicalc is installed in place; None if there is none."""
    try:
        text = distribution("phicalc").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    record = loads(text) if text else {}
    if not record.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlparse(record["url"]).path)
