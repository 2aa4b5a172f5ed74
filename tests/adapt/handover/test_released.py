"""What is known of released bases before any is here."""

from adapt.handover.released import KNOWN, consequence


def test_a_non_commercial_licence_is_said_to_be_inherited() -> None:
    assert "inherits" in consequence(KNOWN["dreamzero-droid"].licence)
    assert "inherits" not in consequence("Apache-2.0")
    assert "card" in consequence(None)
