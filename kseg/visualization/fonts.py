"""A font that has the letters of the class names: Pillow's own has those of English alone."""

import functools
import logging
import unicodedata

from PIL import ImageFont

# In the folders of fonts of Linux, macOS and Windows, the plain ones first. The last are for Chinese, Japanese, Korean.
_SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf"),
    *("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "YuGothR.ttc", "malgun.ttf", "wqy-microhei.ttc"),
)
_NO_LETTER = "\U0010ffff"  # of no alphabet: fonts draw it as they draw every letter that they lack
_LOG = logging.getLogger("kseg")


def font_for(texts, size):
    """Return (Pillow font, the texts as it can draw them), for class names of any alphabet.

    The font is Pillow's own if that has every letter, else the common one of the system that lacks the fewest. A letter
    that it lacks loses its accents ("ä" becomes "a"), and a warning names what is still drawn as a box.

    Args:
        texts: list of str. size: pixels.
    """
    letters = frozenset("".join(texts)) - {" "}
    best = ImageFont.load_default(size=size)
    lacking = _lacking(best, letters)
    for name in _SYSTEM if lacking else ():
        if (font := _system_font(name, size)) and len(less := _lacking(font, letters)) < len(lacking):
            best, lacking = font, less
        if not lacking:
            return best, texts
    plain = {ord(letter): _without_accents(letter) for letter in lacking}
    texts = [text.translate(plain) for text in texts]
    if boxes := _lacking(best, frozenset("".join(texts)) - {" "}):
        _warn("".join(sorted(boxes)))
    return best, texts


@functools.cache
def _system_font(name, size):
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _lacking(font, letters):
    """Return the letters that a font draws as it draws one that it lacks."""
    lacking = _drawn(font, _NO_LETTER)
    return {letter for letter in letters if _drawn(font, letter) == lacking}


def _drawn(font, letter):
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _without_accents(letter):
    split = unicodedata.normalize("NFKD", letter.replace("ß", "ss"))
    return "".join(part for part in split if not unicodedata.combining(part))


@functools.cache
def _warn(boxes):
    _LOG.warning(
        "No font here has the letters %s of the class names: pictures draw boxes. Install one that has them, such as "
        "DejaVu Sans, or Noto Sans CJK for Chinese, Japanese and Korean.",
        boxes,
    )
