"""``charloom doctor``."""

from __future__ import annotations

from .options import command


def doctor() -> None:
    """Check the installation and print every setting in force."""
    from .checks import check_installation

    check_installation()


app = command(doctor)
