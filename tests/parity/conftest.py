"""The account of which goldens were read comes after everything that reads them."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "every_golden" in item.name)
