"""`python -m benchmarks.child MODULE:FUNCTION ARGUMENTS`: one measurement in a fresh process.

The arguments are a JSON object; what the function returns is printed as the last line, as JSON.
"""

import importlib
import json
import sys


def main() -> None:
    """Calls the function that is named."""
    module, name = sys.argv[1].split(":")
    function = getattr(importlib.import_module(module), name)
    print(json.dumps(function(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
