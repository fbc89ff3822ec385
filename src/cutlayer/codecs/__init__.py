"""Codecs: activations and gradients in fewer bytes, chosen per cut and direction by a word.

`codec_of` knows the words; a codec of one's own is a `Codec`. What crosses are ordinary tensors, checked where they
arrive. None of them is a defence.
"""

from .base import Codec, Exact, Like, Moment, Part, Written, check_parts, written_bytes
from .casts import Cast
from .circular import Circular
from .feedback import buffer_name, make_room, write_with_feedback
from .float8 import Float8
from .integers import Integer
from .product import ProductQuantiser
from .sparse import RandomTopK, TopK
from .words import EXACT, codec_of, full_word, known_words

__all__ = [
    "EXACT", "Cast", "Circular", "Codec", "Exact", "Float8", "Integer", "Like", "Moment", "Part", "ProductQuantiser",
    "RandomTopK", "TopK", "Written", "buffer_name", "check_parts", "codec_of", "full_word", "known_words", "make_room",
    "write_with_feedback", "written_bytes",
]  # fmt: skip
