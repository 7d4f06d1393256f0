"""Class names of any alphabet are drawn with letters, or plainly without accents; never as boxes without a word."""

import logging

import pytest
from PIL import ImageFont

from kseg.visualization import fonts
from kseg.visualization.fonts import font_for


def drawn(font, text):
    mask = font.getmask(text)
    return mask.size, bytes(mask)


@pytest.fixture
def no_system_font(monkeypatch):
    monkeypatch.setattr(fonts, "_SYSTEM", ())
    fonts._warn.cache_clear()


def test_english_names_have_pillows_own_font():
    font, names = font_for(["traffic light", "road"], 15)
    assert names == ["traffic light", "road"]
    assert drawn(font, "road") == drawn(ImageFont.load_default(size=15), "road")


def test_other_letters_have_a_font_of_the_system():
    try:
        ImageFont.truetype("DejaVuSans.ttf", 15)
    except OSError:
        pytest.skip("there is no DejaVuSans.ttf")
    font, names = font_for(["Straße", "дорога"], 15)
    assert names == ["Straße", "дорога"]
    assert font_for(["Straße", "\U0001f697"], 15)[1][0] == "Straße"  # one that no font has changes no other
    letters = [drawn(font, letter) for letter in "ßдорг"]
    assert len(set(letters)) == len(letters)  # boxes would be equal
    assert drawn(font, fonts._NO_LETTER) not in letters


def test_without_such_a_font_letters_lose_their_accents(no_system_font, caplog):
    with caplog.at_level(logging.WARNING, "kseg"):
        font, names = font_for(["Straße", "Bäume", "Češka"], 15)
    assert names == ["Strasse", "Baume", "Ceska"]
    assert drawn(font, fonts._NO_LETTER) not in [drawn(font, letter) for letter in "".join(names)]
    assert not caplog.messages


def test_letters_that_no_font_has_are_named(no_system_font, caplog):
    with caplog.at_level(logging.WARNING, "kseg"):
        names = font_for(["道路"], 15)[1]
    assert names == ["道路"]
    assert "路道" in caplog.text
