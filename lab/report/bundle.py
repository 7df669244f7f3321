# SPDX-License-Identifier: Apache-2.0
"""Writes the chart library of the report: Vega, Vega-Lite and Vega-Embed as one script.

Usage: python bundle.py OUTPUT_JS
"""

import sys
from pathlib import Path

REMEDY = "run script/bootstrap, or: .venv/bin/pip install vl-convert-python==1.9.0.post1"


def main() -> None:
    try:
        import vl_convert
    except ImportError as error:
        sys.exit(f"bundle.py: vl-convert-python must be installed, got {error}; {REMEDY}")
    script = vl_convert.javascript_bundle()  # sets window.vegaEmbed, window.vega
    if "window.vegaEmbed=" not in script.replace(" ", ""):
        sys.exit(f"bundle.py: the bundle must define window.vegaEmbed, got none; {REMEDY}")
    # the bundle's own top-level names stay out of the page's
    Path(sys.argv[1]).write_text(f"(() => {{\n{script}\n}})();\n", encoding="utf-8")


if __name__ == "__main__":
    main()
