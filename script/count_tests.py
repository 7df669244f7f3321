# SPDX-License-Identifier: Apache-2.0
"""Adds up the JUnit files below a folder: prints `N passed, N failed, N skipped`.

    count_tests.py FOLDER RUNNERS_FAILED

A program that crashed leaves no file: with runners that failed, at least as many tests did.
Exits with 1 if a test failed or none ran.
"""

import pathlib
import sys
from xml.etree import ElementTree

passed = failed = skipped = 0
for path in pathlib.Path(sys.argv[1]).rglob("*.xml"):
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
failed = max(failed, int(sys.argv[2]))
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(1 if failed or not passed else 0)
