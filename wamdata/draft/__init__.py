"""A first embodiment file guessed from data, each guess with its evidence; what the data cannot say is asked."""

from wamdata.draft.write import draft_embodiment

__all__ = ["draft_embodiment"]
