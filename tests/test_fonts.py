"""Pictures show the letters of names in any script, as far as the machine has them."""

import pytest
from PIL import Image, ImageDraw, ImageFont


def drawn(letters: ImageFont.FreeTypeFont, text: str) -> bytes:
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((5, 5), text, 255, letters)
    return image.tobytes()


@pytest.mark.parametrize("letter", "aéßłøğЖΩع")
def test_letters_of_europe_and_the_near_east(letter: str) -> None:
    letters = fonts.font(20, letter)
    assert drawn(letters, letter) not in (drawn(letters, "\ufffe"), drawn(letters, ""))


def test_letters_of_east_asia() -> None:
    letters = fonts.font(20, "a 气球")
    if letters.getname()[0] == "DejaVu Sans":
        pytest.skip(f"none of {', '.join(fonts.EAST_ASIAN)} on this machine")
    assert drawn(letters, "气") not in (drawn(letters, "\ufffe"), drawn(letters, ""))


def test_an_unknown_letter_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "EAST_ASIAN", ())
    fonts._font.cache_clear()
    assert fonts.font(20, "气").getname()[0] == "DejaVu Sans"
    fonts._font.cache_clear()
