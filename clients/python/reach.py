"""What the programs that go through a proxy share: a URL in, one JSON line out, and a pause to be looked at in."""

import json
import os
import sys
from collections.abc import Callable

SECONDS = 20


def main(reach: Callable[[str, str], tuple[int, str]]) -> int:
    """Runs `reach(url, key)`, prints `{status, body}` or `{error}`; with `--pause`, ends when a line comes."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--pause"]
    key = os.environ.get("OPENAI_API_KEY")
    if len(arguments) != 1 or key is None:
        print(f"usage: OPENAI_API_KEY=KEY {sys.argv[0]} [--pause] URL", file=sys.stderr)
        return 2
    try:
        status, body = reach(arguments[0], key)
        report = {"status": status, "body": body}
    except Exception as error:  # whatever ends the run belongs in the report
        report = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(report), flush=True)
    if "--pause" in sys.argv:
        sys.stdin.readline()
    return 1 if "error" in report else 0
