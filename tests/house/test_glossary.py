"""docs/glossary.md has the texts of the page's glossary; they are short, and hold every word of the screens."""

import re

import glossary

USED = re.compile(r'<Term of="([^"]+)"')
SCREENS = glossary.ROOT / "page/src"


def test_the_document_is_current() -> None:
    written = (glossary.ROOT / glossary.DOCUMENT).read_text(encoding="utf-8")
    assert written == glossary.render(glossary.ROOT), "run `python tests/house/glossary.py`"


def test_every_text_is_short() -> None:
    for word, text in glossary.texts(glossary.ROOT).items():
        sentences = re.findall(r"[.:](?: |$)", text)
        assert text[0].isupper() and text.endswith("."), word
        assert 1 <= len(sentences) <= 4 and len(text.split()) <= 42, f"{word}: {len(text.split())} words"


def test_the_screens_show_words_that_are_explained() -> None:
    texts = glossary.texts(glossary.ROOT)
    used = {word for path in SCREENS.rglob("*.tsx") for word in USED.findall(path.read_text(encoding="utf-8"))}
    assert used <= texts.keys()
    assert len(used) >= 20
    assert len(texts) >= 40
