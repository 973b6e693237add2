"""`make docs`: write anew what the documentation tells of the code."""

import sys

from tests.documents.facts import FACTS
from tests.documents.regions import pages, rewritten


def main() -> None:
    for page in pages():
        text = page.read_text()
        try:
            new = rewritten(text, FACTS)
        except ValueError as exc:
            sys.exit(f"{page.name}: {exc}")
        if new != text:
            page.write_text(new)
            print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
