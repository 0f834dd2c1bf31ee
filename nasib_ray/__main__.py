"""``python -m nasib_ray``: the same as the command ``nasib-ray``."""

from __future__ import annotations

from nasib_ray.cli import main

if __name__ == "__main__":
    main()
