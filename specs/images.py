"""What `down --rmi` says about images: which a stack had, who still uses them, what became of them.

The controller knows every stack's releases and says which digests stay; each node knows its
names and its tasks, and removes what is left. Nobody's image goes because one side did not know.
"""

from __future__ import annotations

from pydantic import Field

from specs.base import Model


class StackImage(Model):
    """An image as services name it, and every digest it had in their stack's releases."""

    name: str
    digests: tuple[str, ...] = ()


class StackImages(Model):
    """The images of a stack: all, or those built under no name of the user's."""

    images: tuple[StackImage, ...] = ()


class ForgetImages(Model):
    """To an agent: remove these unless somebody uses them; ``keep``: digest -> who does."""

    images: tuple[StackImage, ...]
    keep: dict[str, str] = Field(default_factory=dict)


class ForgottenImages(Model):
    """The agent's answer: names of which nothing is left, and why others stay."""

    removed: tuple[str, ...] = ()
    kept: dict[str, str] = Field(default_factory=dict)


class ImageLeft(Model):
    """What became of one image on one node; ``reason`` empty = it is removed there.

    ``image`` is empty where the node did not answer: what it has stays.
    """

    node: str
    image: str = ""
    reason: str = ""


class ImagesLeft(Model):
    rows: tuple[ImageLeft, ...] = ()
