"""Kind `prompt_card`: images without a model. What comes is a card that shows the prompt: a real PNG, and no picture
of what the prompt describes.

    _kind   the kind and its adapter
    _card   drawing; the part that needs Pillow

An image that is given to be edited is drawn beneath the words, within its mask if it has one.
"""

from ._kind import KIND as KIND
