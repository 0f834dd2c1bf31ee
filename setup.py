"""Packaging; the settings of tools are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "nasib_ray/version.py").read_text(encoding="utf-8"), re.MULTILINE
)
assert VERSION is not None, "nasib_ray/version.py holds no version"

ROOMS = ["nasib_ray", "schedulers", "trainables"]

setup(
    name="nasib-ray",
    version=VERSION[1],
    description="Budgeted neural architecture search (NASIB) on Ray Tune: one global budget of device-time",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "neural architecture search",
        "hyperparameter optimization",
        "budget",
        "ray",
        "tune",
        "optuna",
        "pytorch",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=[*ROOMS, "nasib_ray.report"],
    package_data={
        **{room: ["py.typed"] for room in ROOMS},
        "nasib_ray.report": ["page.css", "page.html.j2", "page.js"],
    },
    python_requires=">=3.10",
    install_requires=[
        "filelock>=3.12",
        "jinja2>=3.1",
        "markupsafe>=2.0",
        "numpy>=1.26",
        "optuna>=4.0",
        "pandas>=2.1",
        "pillow>=10.0",
        "plotly>=6.0",
        "pyarrow>=17.0",
        "pydantic>=2.12",
        "PyYAML>=6.0.1",
        "ray[tune]>=2.57",
        "rich>=13.7",
        "safetensors>=0.4.3",
        "scikit-learn>=1.3",
        "scipy>=1.11",
        "tensorboard>=2.15",
        "torch>=2.4",
        "torchvision>=0.19",
        "typer>=0.20",
    ],
    extras_require={
        # For the clusters' own commands: ray up, ray submit, ray job submit; and the dashboard.
        "cluster": ["ray[default,tune]>=2.57"],
        # Formatting and strictness differ between the releases of these two, so that they are held.
        "dev": [
            "hypothesis>=6.100",
            "moto[server]>=5.0",
            "mypy>=2.4,<2.5",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "onnxscript>=0.3",
            "pre-commit>=3.5",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ray[default,tune]>=2.57",
            "ruff>=0.17.6,<0.18",
            "types-PyYAML>=6.0",
        ],
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3"],
    },
    entry_points={"console_scripts": ["nasib-ray = nasib_ray.cli:main"]},
)
